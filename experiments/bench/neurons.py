"""A training step that forms the gradients of chosen neurons alone, against masked gradients.

    python experiments/bench/neurons.py --out experiments/bench/results/neurons.json

Four residual SwiGLU blocks; a step is forward, backward and AdamW. The same neurons (rows of the
gate and up projections, columns of the down projection, drawn for each block) learn in

- ours: slices of them beside the frozen weights, through `neuron_linear`;
- full backward and mask: all weights have gradients, those of other neurons are zeroed.

In "full fine tuning" nothing is masked and every neuron learns. AdamW is fused everywhere.

The forward rows time one feed-forward network with slices (`layers/neuron_ffn.py`; a direction uses
10 % of the neurons, 7 % general and 3 % specific) in a batch of one or of four directions, without
and with a gate per token, against the same network without slices.
"""

import argparse
import copy
from collections.abc import Callable, Sequence

from harness import Row, agreement, main, measure, row, with_goal  # sets the environment

# ruff: isort: split
import torch
from torch import Tensor, nn
from torch.nn import functional

from polylect.kernels.neuron_linear import neuron_linear, neuron_linear_in
from polylect.layers.gates import AwarenessGate
from polylect.layers.neuron_bank import NeuronBank, NeuronSet
from polylect.layers.neuron_ffn import attach_neurons
from polylect.layers.routing import RoutingContext

DIRECTIONS = ("en-de", "en-fr", "en-cs", "en-hi")
BLOCKS, HIDDEN, WIDTH, TOKENS = 4, 512, 2048, 512
TIMES_FASTER = {0.05: 1.5, 0.1: 1.4, 0.3: 1.25}  # by the share of neurons


class Block(nn.Module):
    """y = x + W_down (silu(W_gate x) * W_up x)."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(width, hidden) / hidden**0.5)
        self.up = nn.Parameter(torch.randn(width, hidden) / hidden**0.5)
        self.down = nn.Parameter(torch.randn(hidden, width) / width**0.5)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = (functional.linear(x, weight) for weight in (self.gate, self.up))
        return x + functional.linear(functional.silu(gate) * up, self.down)


class Slice(nn.Module):
    """A block some of whose neurons are parameters of their own."""

    def __init__(self, block: Block, neurons: Tensor) -> None:
        super().__init__()
        self.block = copy.deepcopy(block).requires_grad_(False)
        self.neurons = neurons
        self.gate = nn.Parameter(block.gate.detach()[neurons])
        self.up = nn.Parameter(block.up.detach()[neurons])
        self.down = nn.Parameter(block.down.detach()[:, neurons])

    def forward(self, x: Tensor) -> Tensor:
        gate = neuron_linear(x, self.block.gate, self.neurons, self.gate)
        up = neuron_linear(x, self.block.up, self.neurons, self.up)
        h = functional.silu(gate) * up
        return x + neuron_linear_in(h, self.block.down, self.neurons, self.down)


class Side:
    """A stack of blocks, its optimizer, and its training step."""

    def __init__(self, blocks: Sequence[nn.Module], x: Tensor) -> None:
        self.blocks = nn.Sequential(*blocks)
        self.x = x
        learned = [p for p in self.blocks.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learned, lr=1e-4, weight_decay=0, fused=True)

    def step(self) -> Tensor:
        """The blocks' output before the step."""
        y = self.blocks(self.x)
        self.optimizer.zero_grad()
        y.square().sum().backward()
        self.optimizer.step()
        return y.detach()

    @property
    def optimizer_bytes(self) -> int:
        states = self.optimizer.state.values()
        return sum(tensor.nbytes for state in states for tensor in state.values())


def mask_gradients(block: Block, neurons: Tensor) -> None:
    """Only the gradients of `neurons` reach the optimizer."""
    for weight, dim in ((block.gate, 0), (block.up, 0), (block.down, 1)):
        mask = torch.zeros_like(weight).index_fill_(dim, neurons, 1)
        weight.register_post_accumulate_grad_hook(masking(mask))


def masking(mask: Tensor) -> Callable[[Tensor], None]:
    def zero(weight: Tensor) -> None:
        weight.grad.mul_(mask)

    return zero


def run(arguments: argparse.Namespace) -> list[Row]:
    hidden, width, tokens = (32, 64, 16) if arguments.tiny else (HIDDEN, WIDTH, TOKENS)
    blocks = [Block(hidden, width) for _ in range(BLOCKS)]
    x = torch.randn(tokens, hidden)
    rows = [training(arguments, blocks, x, share) for share in TIMES_FASTER]
    for gate in ("none", "token"):
        for directions in (1, 4):
            rows.append(forward(arguments, hidden, width, directions, gate))
    return rows


def training(
    arguments: argparse.Namespace, blocks: Sequence[Block], x: Tensor, share: float
) -> Row:
    width = blocks[0].up.shape[0]
    chosen = [torch.randperm(width)[: round(share * width)].sort().values for _ in blocks]
    masked, full = copy.deepcopy(blocks), copy.deepcopy(blocks)
    for block, neurons in zip(masked, chosen, strict=True):
        mask_gradients(block, neurons)
    sides = {
        "ours": Side([Slice(*both) for both in zip(blocks, chosen, strict=True)], x),
        "full_backward_and_mask": Side(masked, x),
        "full_fine_tuning": Side(full, x),
    }
    difference = check(sides["ours"], sides["full_backward_and_mask"])
    times = measure(
        {name: side.step for name, side in sides.items()}, arguments.seconds, arguments.rounds
    )
    what = {"what": "training step", "neurons": f"{share:.0%}", "tokens": x.shape[0]}
    result = row(what, times, "ours", difference)
    result = with_goal(result, "full_backward_and_mask", least=TIMES_FASTER[share])
    result = with_goal(result, "full_fine_tuning", least=1.0)
    ours, whole = (sides[name].optimizer_bytes for name in ("ours", "full_fine_tuning"))
    figures = {
        "optimizer bytes, ours and full": [ours, whole],
        "share": round(ours / whole, 4),
    }
    return result | {"figures": figures}


class Plain(nn.Module):
    """A gated feed-forward network as models have it."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden, width, bias=False)
        self.up = nn.Linear(hidden, width, bias=False)
        self.down = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


def with_slices(plain: Plain, gate: str) -> tuple[Plain, RoutingContext]:
    """A copy whose neurons 7 % are general, and 3 % each direction's own."""
    ffn, context = copy.deepcopy(plain).requires_grad_(False), RoutingContext()
    hidden, width = ffn.gate.in_features, ffn.gate.out_features
    order = torch.randperm(width)
    general, own = round(0.07 * width), round(0.03 * width)
    sets = [NeuronSet(DIRECTIONS, True, order[:general].sort().values)]
    for position, direction in enumerate(DIRECTIONS):
        start = general + position * own
        sets.append(NeuronSet((direction,), False, order[start : start + own].sort().values))
    gates = {d: AwarenessGate(hidden, 128, 1, soft=True) for d in DIRECTIONS}
    bank = NeuronBank(
        sets, width, gates if gate == "token" else {}, False, context, "ffn", torch.device("cpu")
    )
    attach_neurons(ffn, {"gate": ffn.gate, "up": ffn.up}, ffn.down, bank)
    return ffn.eval(), context


def forward(
    arguments: argparse.Namespace, hidden: int, width: int, directions: int, gate: str
) -> Row:
    plain = Plain(hidden, width).requires_grad_(False)
    ffn, context = with_slices(plain, gate)
    x = torch.randn(16, 1 if arguments.tiny else TOKENS // 16, hidden)
    names = [DIRECTIONS[row % directions] for row in range(len(x))]

    @torch.no_grad()
    def ours() -> Tensor:
        with context.route(names):
            return ffn(x)

    difference = agreement(ours(), plain(x))  # slices start as the base's neurons
    times = measure({"ours": ours, "plain": lambda: plain(x)}, arguments.seconds, arguments.rounds)
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
    for slices, block in zip(ours.blocks, masked.blocks, strict=True):
        for name, dim in (("gate", 0), ("up", 0), ("down", 1)):
            dense = getattr(block, name).grad
            kept = dense.index_select(dim, slices.neurons)
            if dense.count_nonzero() > kept.numel():
                raise SystemExit("the mask lets gradients through: no times from a wrong result")
            differences.append(agreement(getattr(slices, name).grad, kept))
    return max(differences)


if __name__ == "__main__":
    main("neurons", __doc__, run)
