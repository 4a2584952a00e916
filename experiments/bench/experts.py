"""A layer of SwiGLU experts, forward and backward, against transformers' experts.

    python experiments/bench/experts.py --out experiments/bench/results/experts.json

The same weights and the same routing in every variant; gradients of tokens, gates and weights.
"products alone" are the matrix products that no variant can do without, into memory that is ready:
its time over ours is the share of ours that is arithmetic. Where transformers has no experts of
that kind, it gets the nearest that computes the same:

- two widths: half of the experts are half as wide; theirs are filled up with zeros;
- half frozen: half of the weights take no gradient; theirs are one parameter, which takes one;
- odd sizes, float64: `grouped_mm` refuses them, which leaves `eager`.

"kept for backward" are the floats that wait for the backward pass, as multiples of the hidden size
and for each choice of each token, without what is there anyway: weights, tokens, gates.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness import Row, agreement, main, measure, row, with_goal  # sets the environment

# ruff: isort: split
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from polylect.kernels.dispatch import combine, dispatch
from polylect.kernels.expert_linear import expert_linear, gathered_expert_linear

NOT_SLOWER = 1 / 1.05  # than the fastest of theirs


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

    def groups(self) -> list[tuple[slice, int, bool]]:
        """Experts, width, and whether they learn, of each group."""
        half = self.experts // 2
        if self.second_width is None:
            return [(slice(0, self.experts), self.width, True)]
        first = (slice(0, half), self.width, not self.frozen)
        return [first, (slice(half, self.experts), self.second_width, True)]


CASES = (
    Case(tokens=64, peers=("eager", "batched_mm", "grouped_mm")),
    Case(tokens=512),
    Case(experts=4),
    Case(),
    Case(top=1),
    Case(experts=16),
    Case(experts=32),
    Case(hidden=512, width=1024),
    Case(tokens=4096),
    Case("two widths", second_width=256),
    Case("half frozen", second_width=512, frozen=True),
    Case("odd sizes", hidden=250, width=509, peers=("eager",)),
    Case("float64", dtype=torch.float64, peers=("eager",)),
)


class SwiGLU(torch.autograd.Function):
    """silu(gate) · up, which keeps its input alone."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        gate, up = both.chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (both,) = ctx.saved_tensors
        gate, up = both.chunk(2, dim=-1)
        of_both = torch.empty_like(both)
        of_gate, of_up = of_both.chunk(2, dim=-1)
        torch.mul(grad, functional.silu(gate), out=of_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=of_gate)
        return of_both


@dataclass
class Group:
    """Experts of one width, with the weights of some of theirs."""

    experts: slice
    of: int
    """how many there are in all groups"""
    gate_up: Tensor
    down: Tensor

    @classmethod
    def like(cls, theirs: MixtralExperts, experts: slice, width: int, learns: bool) -> "Group":
        gate, up = theirs.gate_up_proj.detach()[experts].chunk(2, dim=1)
        gate_up = torch.cat([gate[:, :width], up[:, :width]], 1)
        down = theirs.down_proj.detach()[experts, :, :width].contiguous()
        return cls(
            experts, theirs.num_experts, gate_up.requires_grad_(learns), down.requires_grad_(learns)
        )

    def __call__(self, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        first, end = self.experts.start, self.experts.stop
        if end - first < self.of:
            indices = torch.where((indices >= first) & (indices < end), indices - first, -1)
        found = dispatch(indices, weights, end - first)
        both = gathered_expert_linear(x, self.gate_up.mT, found)
        y = expert_linear(SwiGLU.apply(both), self.down.mT, found.offsets)
        return combine(y, found)


@dataclass
class Job:
    """One case with all its variants."""

    case: Case
    theirs: MixtralExperts
    groups: list[Group]
    x: Tensor
    indices: Tensor
    weights: Tensor
    toward: Tensor

    @classmethod
    def of(cls, case: Case) -> "Job":
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
        groups = [Group.like(theirs, *group) for group in case.groups()]
        toward = torch.randn_like(x)
        return cls(case, theirs, groups, x, indices, weights.requires_grad_(), toward)

    def ours(self) -> Tensor:
        first, *others = (group(self.x, self.indices, self.weights) for group in self.groups)
        return sum(others, start=first)

    def of_transformers(self, implementation: str) -> Tensor:
        self.theirs.config._experts_implementation = implementation
        return self.theirs(self.x, self.indices, self.weights)

    def step(self, forward: Callable[[], Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
        """Output, and gradients of tokens, gates and parameters."""
        y = forward()
        return [y, *torch.autograd.grad(y, (self.x, self.weights, *parameters), self.toward)]

    def variants(self) -> dict[str, Callable[[], list[Tensor]]]:
        learning = [p for g in self.groups for p in (g.gate_up, g.down) if p.requires_grad]
        variants = {"ours": lambda: self.step(self.ours, learning)}
        for peer in self.case.peers:
            variants[peer] = lambda peer=peer: self.step(
                lambda: self.of_transformers(peer), list(self.theirs.parameters())
            )
        return variants

    def difference(self) -> float:
        """Ends the run where output or gradients differ."""
        found = self.variants()
        y, of_x, of_gates, *of_ours = found.pop("ours")()
        differences = []
        for run in found.values():
            *common, of_gate_up, of_down = run()
            theirs = [*common]
            for experts, width, learns in self.case.groups():
                if learns:
                    gate, up = of_gate_up[experts].chunk(2, dim=1)
                    theirs.append(torch.cat([gate[:, :width], up[:, :width]], 1))
                    theirs.append(of_down[experts, :, :width])
            ours = [y, of_x, of_gates, *of_ours]
            differences += [agreement(a, b) for a, b in zip(ours, theirs, strict=True)]
        return max(differences)

    def products(self) -> Callable[[], None]:
        """The matrix products of all experts, on operands and into results that are ready."""
        work: list[tuple[Tensor, Tensor, Tensor]] = []
        for group in self.groups:
            for expert, (gate_up, down) in enumerate(zip(group.gate_up, group.down, strict=True)):
                rows = int((self.indices == group.experts.start + expert).sum())
                for weight in (gate_up.detach(), down.detach()):
                    x, y = (
                        weight.new_ones(rows, weight.shape[1]),
                        weight.new_ones(rows, len(weight)),
                    )
                    work += [(x, weight.t(), y.clone()), (y, weight, x.clone())]
                    if gate_up.requires_grad:
                        work.append((y.t(), x, torch.empty_like(weight)))

        def run() -> None:
            for left, right, out in work:
                torch.mm(left, right, out=out)

        return run

    def kept(self, forward: Callable[[], Tensor]) -> float:
        """Hidden-size floats that wait for the backward pass, for each choice of each token."""
        there = {t.untyped_storage().data_ptr() for t in (self.x, self.weights)}
        parameters = [*self.theirs.parameters()]
        parameters += [p for g in self.groups for p in (g.gate_up, g.down)]
        there |= {p.untyped_storage().data_ptr() for p in parameters}
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
    return [compared(case, arguments) for case in CASES]


def compared(case: Case, arguments: argparse.Namespace) -> Row:
    torch.manual_seed(arguments.seed)
    if arguments.tiny:
        half = case.second_width and 8
        sizes = {"tokens": 24, "hidden": 8, "width": 16, "second_width": half}
        case = Case(case.what, experts=4, frozen=case.frozen, peers=case.peers, **sizes)
    job = Job.of(case)
    difference = job.difference()
    timed = job.variants() | {"products alone": job.products()}
    times = measure(timed, arguments.seconds, arguments.rounds)
    names = ("tokens", "experts", "top", "hidden", "width")
    what = {"what": case.what} | {name: getattr(case, name) for name in names}
    result = row(what, times, "ours", difference)
    fastest = min(case.peers, key=lambda peer: result["over_ours"][peer]["median"])
    result = with_goal(result, fastest, least=round(NOT_SLOWER, 3))
    forwards = {"ours": job.ours}
    forwards |= {peer: lambda peer=peer: job.of_transformers(peer) for peer in case.peers}
    kept = {f"kept for backward, {name}": job.kept(f) for name, f in forwards.items()}
    return result | {"figures": kept}


if __name__ == "__main__":
    main("experts", __doc__, run)
