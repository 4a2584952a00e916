"""A training step that forms the gradients of chosen neurons alone, against masked gradients.

    python experiments/bench/neurons.py --out experiments/bench/results/neurons.json

Four residual SwiGLU blocks; a step is forward, backward and AdamW. The same neurons (rows of the
gate and up projections, columns of the down projection, drawn for each block) learn in

- ours: as slices, half of them general and half one direction's, in a network that `attach_neurons`
  has changed, without a gate, in batches of that direction;
- full backward and mask: all weights have gradients, those of other neurons are zeroed.

In "full fine tuning" nothing is masked and every neuron learns. AdamW is fused everywhere.

The forward rows time one feed-forward network with slices (`layers/neuron_ffn.py`; a direction uses
10 % of the neurons, 7 % general and 3 % specific) in a batch of one or of four directions, without
and with a gate per token, against the same network without slices.
"""

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from harness import Row, agreement, main, measure, row, with_goal  # sets the environment

# ruff: isort: split
import torch
from torch import Tensor, nn
from torch.nn import functional

from polylect.layers.context import RoutingContext
from polylect.layers.neurons.bank import NeuronBank, NeuronSet
from polylect.layers.neurons.ffn import attach_neurons
from polylect.layers.neurons.gates import AwarenessGate

DIRECTIONS = ("en-de", "en-fr", "en-cs", "en-hi")
BLOCKS, HIDDEN, WIDTH, ROWS, LENGTH = 4, 512, 2048, 16, 32
TIMES_FASTER = {0.05: 1.5, 0.1: 1.4, 0.3: 1.25}  # by the share of neurons


class Plain(nn.Module):
    """A gated feed-forward network as models have it: W_down (silu(W_gate x) * W_up x)."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, width, bias=False)
        self.up = nn.Linear(hidden, width, bias=False)
        self.down = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


def with_slices(
    plain: Plain,
    sets: Sequence[NeuronSet],
    context: RoutingContext,
    gates: Mapping[str, nn.Module] | None = None,
) -> Plain:
    """A frozen copy with slices of these neurons."""
    ffn = copy.deepcopy(plain).requires_grad_(False)
    width, device = ffn.gate.out_features, torch.device("cpu")
    bank = NeuronBank(sets, width, gates or {}, False, context, "ffn", device)
    attach_neurons(ffn, {"gate": ffn.gate, "up": ffn.up}, ffn.down, bank)
    return ffn


class Side:
    """A stack of residual networks, its optimizer, and its training step.

    Args:
        x: (rows, length, hidden), all rows of one direction.
        context: where the networks have slices.
    """

    def __init__(
        self, ffns: Sequence[nn.Module], x: Tensor, context: RoutingContext | None = None
    ) -> None:
        self.ffns, self.x, self.context = ffns, x, context
        trainable = [p for ffn in ffns for p in ffn.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, lr=1e-4, weight_decay=0, fused=True)

    def step(self) -> Tensor:
        """The output before the step."""
        y = self.x
        with self.context.route(DIRECTIONS[:1] * len(y)) if self.context else nullcontext():
            for ffn in self.ffns:
                y = y + ffn(y)
        self.optimizer.zero_grad()
        y.square().sum().backward()
        self.optimizer.step()
        return y.detach()

    @property
    def optimizer_bytes(self) -> int:
        states = self.optimizer.state.values()
        return sum(tensor.nbytes for state in states for tensor in state.values())


def mask_gradients(ffn: Plain, neurons: Tensor) -> None:
    """Only the gradients of `neurons` reach the optimizer."""
    for layer, dim in ((ffn.gate, 0), (ffn.up, 0), (ffn.down, 1)):
        mask = torch.zeros_like(layer.weight).index_fill_(dim, neurons, 1)
        layer.weight.register_post_accumulate_grad_hook(masking(mask))


def masking(mask: Tensor) -> Callable[[Tensor], None]:
    def zero(weight: Tensor) -> None:
        weight.grad.mul_(mask)

    return zero


def run(arguments: argparse.Namespace) -> list[Row]:
    hidden, width, length = (32, 64, 1) if arguments.tiny else (HIDDEN, WIDTH, LENGTH)
    ffns = [Plain(hidden, width) for _ in range(BLOCKS)]
    x = torch.randn(ROWS, length, hidden)
    rows = [training(arguments, ffns, x, share) for share in TIMES_FASTER]
    for gate in ("none", "token"):
        for directions in (1, 4):
            rows.append(forward(arguments, ffns[0], x, directions, gate))
    return rows


def training(arguments: argparse.Namespace, ffns: Sequence[Plain], x: Tensor, share: float) -> Row:
    width, context = ffns[0].up.out_features, RoutingContext()
    ours, masked, full = [], copy.deepcopy(ffns), copy.deepcopy(ffns)
    for ffn, with_mask in zip(ffns, masked, strict=True):
        neurons = torch.randperm(width)[: round(share * width)]
        general, own = (half.sort().values for half in neurons.chunk(2))
        sets = [NeuronSet(DIRECTIONS, True, general), NeuronSet(DIRECTIONS[:1], False, own)]
        ours.append(with_slices(ffn, sets, context))
        mask_gradients(with_mask, neurons)
    sides = {
        "ours": Side(ours, x, context),
        "full_backward_and_mask": Side(masked, x),
        "full_fine_tuning": Side(full, x),
    }
    difference = check(sides["ours"], sides["full_backward_and_mask"])
    times = measure(
        {name: side.step for name, side in sides.items()}, arguments.seconds, arguments.rounds
    )
    tokens = x.shape[0] * x.shape[1]
    what = {"what": "training step", "neurons": f"{share:.0%}", "tokens": tokens}
    result = row(what, times, "ours", difference)
    result = with_goal(result, "full_backward_and_mask", least=TIMES_FASTER[share])
    result = with_goal(result, "full_fine_tuning", least=1.0)
    ours, whole = (sides[name].optimizer_bytes for name in ("ours", "full_fine_tuning"))
    figures = {
        "optimizer bytes, ours and full": [ours, whole],
        "share": round(ours / whole, 4),
    }
    return result | {"figures": figures}


def forward(
    arguments: argparse.Namespace, plain: Plain, x: Tensor, directions: int, gate: str
) -> Row:
    hidden, width = plain.up.in_features, plain.up.out_features
    order = torch.randperm(width)
    general, own = round(0.07 * width), round(0.03 * width)
    sets = [NeuronSet(DIRECTIONS, True, order[:general].sort().values)]
    for position, direction in enumerate(DIRECTIONS):
        start = general + position * own
        sets.append(NeuronSet((direction,), False, order[start : start + own].sort().values))
    gates = {d: AwarenessGate(hidden, 128, 1, soft=True) for d in DIRECTIONS}
    context = RoutingContext()
    ffn = with_slices(plain, sets, context, gates if gate == "token" else None).eval()
    names = [DIRECTIONS[row % directions] for row in range(len(x))]

    @torch.no_grad()
    def ours() -> Tensor:
        with context.route(names):
            return ffn(x)

    @torch.no_grad()
    def base() -> Tensor:
        return plain(x)

    difference = agreement(ours(), base())  # slices start as the base's neurons
    times = measure({"ours": ours, "plain": base}, arguments.seconds, arguments.rounds)
    what = {
        "what": "forward",
        "directions": directions,
        "gate": gate,
        "tokens": x.shape[0] * x.shape[1],
    }
    return with_goal(row(what, times, "ours", difference), "plain", least=round(1 / 1.15, 3))


def check(ours: Side, masked: Side) -> float:
    """Same outputs, and the same gradients in a step.

    Not the weights after it: AdamW takes a first step as wide for a gradient near zero, whose sign
    may differ.
    """
    differences = [agreement(ours.step(), masked.step())]
    for ffn, dense in zip(ours.ffns, masked.ffns, strict=True):
        for name in ("gate", "up", "down"):
            layer, whole = getattr(ffn, name), getattr(dense, name).weight.grad
            if whole.count_nonzero() > sum(v.numel() for v in layer.neuron_values.values()):
                raise SystemExit("the mask lets gradients through: no times from a wrong result")
            for key, value in layer.neuron_values.items():
                expected = whole.index_select(layer.axis, layer.bank.index(key))
                differences.append(agreement(value.grad, expected))
    return max(differences)


if __name__ == "__main__":
    main("neurons", __doc__, run)
