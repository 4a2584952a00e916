"""The layer of SwiGLU experts, forward and backward, against transformers' experts.

    python experiments/bench/experts.py --out experiments/bench/results/experts.json

The same weights and the same routing in every variant; gradients of tokens, gates and weights.
"products alone" are the matrix products that no variant can do without, into memory that is ready:
its time over ours is the share of ours that is arithmetic. Where transformers has no experts of
that kind, it gets the nearest that computes the same:

- two widths: half of the experts are half as wide; theirs are filled up with zeros;
- half frozen: half of the weights take no gradient; theirs are one parameter, which takes one;
- odd sizes, float64: `grouped_mm` refuses them, which leaves `eager`;
- all run: every token has every expert, which ours computes without sorting.

`batched_mm` copies a weight for each choice of each token, so it has one case of its own. "kept for
backward" are the floats that wait for the backward pass, as multiples of the hidden size and for
each choice of each token, without what is there anyway: weights, tokens, gates.

"router features": the whole layer, 4 LM and 4 MT experts with their router, with the features of
the Fourier transform and without.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness import Row, agreement, main, measure, row, with_goal  # sets the environment

# ruff: isort: split
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, MixtralConfig
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from polylect.layers.context import RoutingContext
from polylect.layers.experts.bank import Experts
from polylect.layers.experts.ffn import ExpertFFN, attach_experts
from polylect.layers.experts.routers import make_router
from polylect.layers.tokens import Tokens

NOT_SLOWER = round(1 / 1.05, 3)  # than the fastest of theirs
FASTER = 1.1  # where they cannot follow
FEATURES_SHARE = 0.1  # of the layer's time, at most
ACTIVATION = nn.SiLU()
PROJECTIONS = {name: f"{name}_proj" for name in ("gate", "up", "down")}


@dataclass(frozen=True)
class Case:
    what: str = "all alike"
    tokens: int = 1024
    experts: int = 8
    top: int = 2
    hidden: int = 256
    width: int = 512
    second_width: int | None = None
    """of the second half of the experts, where they are a group of their own"""
    frozen: bool = False
    """the first half of the experts, where they are a group of their own"""
    dtype: torch.dtype = torch.float32
    peers: tuple[str, ...] = ("eager", "grouped_mm")
    least: float = NOT_SLOWER
    """goal for the fastest peer's time over ours"""

    def groups(self) -> list[tuple[slice, int, bool]]:
        """Experts, width, and whether they learn, of each group."""
        half = self.experts // 2
        if self.second_width is None:
            return [(slice(0, self.experts), self.width, True)]
        first = (slice(0, half), self.width, not self.frozen)
        return [first, (slice(half, self.experts), self.second_width, True)]


CASES = (
    *(
        Case(tokens=tokens, experts=experts, top=top)
        for tokens in (512, 4096)
        for experts in (4, 16)
        for top in (1, 2)
    ),
    Case(),
    Case(hidden=512, width=1024),
    Case("two widths", second_width=256, least=FASTER),
    Case("half frozen", second_width=512, frozen=True, least=FASTER),
    Case("odd sizes", hidden=250, width=509, peers=("eager",), least=FASTER),
    Case("float64", dtype=torch.float64, peers=("eager",), least=FASTER),
    Case("all run", experts=4, top=4),
    Case(tokens=512, peers=("batched_mm",)),
)


def linear(weight: Tensor, learns: bool = True) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, *weight.t().shape, bias=False, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=learns)
    return layer


def side_by_side(gate_up: Tensor, down: Tensor, width: int) -> list[Tensor]:
    """Weights of some of their experts as those of linear layers, gate, up and down."""
    gate, up = (half[:, :width].flatten(0, 1) for half in gate_up.chunk(2, dim=1))
    return [gate, up, down[:, :, :width].transpose(0, 1).flatten(1)]


@dataclass
class Job:
    """One case with all its variants."""

    case: Case
    theirs: MixtralExperts
    groups: list[Experts]
    x: Tensor
    indices: Tensor
    weights: Tensor
    toward: Tensor

    @classmethod
    def of_case(cls, case: Case) -> "Job":
        config = MixtralConfig(
            hidden_size=case.hidden,
            intermediate_size=case.width,
            num_local_experts=case.experts,
            num_experts_per_tok=case.top,
        )
        theirs = MixtralExperts(config).to(case.dtype)
        with torch.no_grad():
            theirs.gate_up_proj.normal_(0, case.hidden**-0.5)
            theirs.down_proj.normal_(0, case.width**-0.5)
            for experts, width, _ in case.groups():
                theirs.down_proj[experts, :, width:] = 0
                for half in theirs.gate_up_proj[experts].chunk(2, dim=1):
                    half[:, width:] = 0
        x = torch.randn(case.tokens, case.hidden, dtype=case.dtype, requires_grad=True)
        logits = torch.randn(case.tokens, case.experts, dtype=case.dtype)
        weights, indices = logits.softmax(-1).topk(case.top)
        groups = []
        for experts, width, learns in case.groups():
            expert_weights = [weight.detach()[experts] for weight in theirs.parameters()]
            layers = (linear(weight, learns) for weight in side_by_side(*expert_weights, width))
            groups.append(Experts(range(experts.start, experts.stop), *layers))
        toward = torch.randn_like(x)
        return cls(case, theirs, groups, x, indices, weights.requires_grad_(), toward)

    def ours(self) -> Tensor:
        parts = (self.of_group(group) for group in self.groups)
        return sum(parts, start=next(parts))

    def of_group(self, experts: Experts) -> Tensor:
        if self.case.top < self.case.experts:
            return experts.forward_topk(ACTIVATION, self.x, self.indices, self.weights)
        in_order = self.weights.gather(1, self.indices.argsort(dim=1))
        return experts.forward_dense(ACTIVATION, self.x, in_order)

    def parameters(self) -> list[nn.Parameter]:
        return [layer.weight for g in self.groups for layer in (g.gate, g.up, g.down)]

    def of_transformers(self, implementation: str) -> Tensor:
        self.theirs.config._experts_implementation = implementation
        return self.theirs(self.x, self.indices, self.weights)

    def step(self, forward: Callable[[], Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
        """Output, and gradients of tokens, gates and parameters."""
        y = forward()
        return [y, *torch.autograd.grad(y, (self.x, self.weights, *parameters), self.toward)]

    def variants(self) -> dict[str, Callable[[], list[Tensor]]]:
        learning = [p for p in self.parameters() if p.requires_grad]
        variants = {"ours": lambda: self.step(self.ours, learning)}
        for peer in self.case.peers:
            variants[peer] = lambda peer=peer: self.step(
                lambda: self.of_transformers(peer), list(self.theirs.parameters())
            )
        return variants

    def difference(self) -> float:
        """Ends the run where output or gradients differ."""
        variants = self.variants()
        y, of_x, of_gates, *of_ours = variants.pop("ours")()
        differences = []
        for run in variants.values():
            *common, of_gate_up, of_down = run()
            theirs = [*common]
            for experts, width, learns in self.case.groups():
                if learns:
                    theirs += side_by_side(of_gate_up[experts], of_down[experts], width)
            ours = [y, of_x, of_gates, *of_ours]
            differences += [agreement(a, b) for a, b in zip(ours, theirs, strict=True)]
        return max(differences)

    def products(self) -> Callable[[], None]:
        """The matrix products of all experts, on operands and into results that are ready."""
        work: list[tuple[Tensor, Tensor, Tensor]] = []
        for experts, width, learns in self.case.groups():
            for expert in range(experts.start, experts.stop):
                rows = int((self.indices == expert).sum())
                for d_out, d_in in ((2 * width, self.case.hidden), (self.case.hidden, width)):
                    x, y = self.x.new_ones(rows, d_in), self.x.new_ones(rows, d_out)
                    weight = self.x.new_ones(d_out, d_in)
                    work += [(x, weight.t(), y.clone()), (y, weight, x.clone())]
                    if learns:
                        work.append((y.t(), x, torch.empty_like(weight)))

        def run() -> None:
            for left, right, out in work:
                torch.mm(left, right, out=out)

        return run

    def kept_floats(self, forward: Callable[[], Tensor]) -> float:
        """Hidden-size floats that wait for the backward pass, for each choice of each token."""
        inputs = (self.x, self.weights, *self.theirs.parameters(), *self.parameters())
        there = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        held: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in there:
                held[storage.data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            forward()
        held_bytes = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
        unit = self.indices.numel() * self.case.hidden * self.x.element_size()
        return round(held_bytes / unit, 1)


def run(arguments: argparse.Namespace) -> list[Row]:
    cases = [comparison(case, arguments) for case in CASES]
    return cases + [features(top, arguments) for top in (None, 1)]


def comparison(case: Case, arguments: argparse.Namespace) -> Row:
    torch.manual_seed(arguments.seed)
    if arguments.tiny:
        half = case.second_width and 8
        sizes = {"tokens": 24, "experts": 4, "hidden": 8, "width": 16, "second_width": half}
        case = replace(case, **sizes)
    job = Job.of_case(case)
    difference = job.difference()
    timed = job.variants() | {"products alone": job.products()}
    times = measure(timed, arguments.seconds, arguments.rounds)
    names = ("tokens", "experts", "top", "hidden", "width")
    what = {"what": case.what} | {name: getattr(case, name) for name in names}
    result = row(what, times, "ours", difference)
    fastest = min(case.peers, key=lambda peer: result["over_ours"][peer]["median"])
    result = with_goal(result, fastest, least=case.least)
    forwards = {"ours": job.ours}
    forwards |= {peer: lambda peer=peer: job.of_transformers(peer) for peer in case.peers}
    figures = {f"kept for backward, {name}": job.kept_floats(f) for name, f in forwards.items()}
    return result | {"figures": figures}


def features(top: int | None, arguments: argparse.Namespace) -> Row:
    """The layer with its router; new features weigh nothing, so that both compute the same."""
    torch.manual_seed(arguments.seed)
    tokens, hidden, width = (24, 32, 64) if arguments.tiny else (1024, 256, 1024)
    network = LlamaMLP(LlamaConfig(hidden_size=hidden, intermediate_size=width))
    x = torch.randn(1, tokens, hidden, requires_grad=True)
    toward = torch.randn_like(x)
    context = RoutingContext()
    mask = torch.ones(1, tokens, dtype=torch.long)
    context.tokens = Tokens.from_mask(mask, torch.tensor([tokens // 2]))

    def layer(name: str) -> ExpertFFN:
        router = make_router(hidden, 4, 4, top=top, features=name)
        ffn = copy.deepcopy(network)
        return attach_experts(ffn, PROJECTIONS, "act_fn", router, context, name, mt_start="random")

    def step(ffn: ExpertFFN) -> list[Tensor]:
        y = ffn(x)
        return [y, *torch.autograd.grad(y, (x, *ffn.parameters()), toward)]

    layers = {"ours": layer("fft"), "without features": layer("none")}
    (y, of_x, *_), (expected, of_expected, *_) = (step(ffn) for ffn in layers.values())
    difference = max(agreement(y, expected), agreement(of_x, of_expected))
    timed = {name: lambda ffn=ffn: step(ffn) for name, ffn in layers.items()}
    times = measure(timed, arguments.seconds, arguments.rounds)
    run = "all run" if top is None else f"top {top} of each group"
    what = {"what": f"router features, {run}", "tokens": tokens, "hidden": hidden, "width": width}
    result = row(what, times, "ours", difference)
    return with_goal(result, "without features", least=1 - FEATURES_SHARE)


if __name__ == "__main__":
    main("experts", __doc__, run)
