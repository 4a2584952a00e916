"""The awareness of the output rows of modules of a direction, added up over a corpus.

The awareness of row i is the mean over tokens of |y dL/dy|, where y is the module's output at i:
what the loss would change by, to first order, without the row. Norms count by element; a norm of
heads (its output has heads between tokens and elements) adds up its heads.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polylect.layers.tokens import SIDES

_KEY = "rows."


class RowMeter:
    """Adds up gradients and outputs of modules, in float64, in the passes of `AwarenessMeter`.

    Args:
        modules: by kind, the module of every layer, in order.
        directions: how many are told apart.
        heads_first: whether heads stand before tokens in what norms of heads put out, see `Family`.

    Attributes:
        sums: for `AwarenessMeter`, by name.
    """

    def __init__(
        self,
        modules: Mapping[str, Sequence[nn.Module]],
        directions: int,
        heads_first: bool = False,
    ) -> None:
        self.heads_first = heads_first
        self.modules = {kind: tuple(layers) for kind, layers in modules.items()}
        self.sums: dict[str, Tensor] = {}
        for kind, layers in self.modules.items():
            shape = (directions, len(SIDES), len(layers), len(layers[0].weight))
            zeros = torch.zeros(shape, dtype=torch.float64, device=layers[0].weight.device)
            self.sums[_KEY + kind] = zeros

    @contextmanager
    def watch(self, direction: int, batch: "Positions", beginnings: list[Tensor]) -> Iterator[None]:
        """Within it, what the modules put out is added to the sums.

        Raises RuntimeError in the end where a module did not run once.
        """
        handles: list[RemovableHandle] = []
        runs: list[int] = []
        try:
            for kind, layers in self.modules.items():
                for layer, module in enumerate(layers):
                    total = self.sums[_KEY + kind][direction, :, layer]
                    begin = beginnings if layer == 0 else None
                    hook = _hook(total, batch, begin, runs, self.heads_first)
                    handles.append(module.register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()
        if len(runs) != len(handles):
            raise RuntimeError(
                f"the model ran {len(runs)} of {len(handles)} modules in one pass: their rows "
                "cannot be watched."
            )

    def awareness(
        self, kind: str, tokens: Float[Tensor, "directions sides"]
    ) -> dict[str, Float[Tensor, "directions layers rows"]]:
        """Return the sums of |y dL/dy| in nats, divided by so many tokens of each side, by side."""
        means = self.sums[_KEY + kind] / tokens[..., None, None]
        return {side: means[:, i] for i, side in enumerate(SIDES)}


def _hook(
    total: Tensor,
    batch: "Positions",
    beginnings: list[Tensor] | None,
    runs: list[int],
    heads_first: bool,
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
        y = y if beginnings is None else begin_graph(y, beginnings)
        output = y.detach()  # a hook that held y itself would keep it alive

        def gradient(grad: Tensor) -> None:
            product = (_by_token(output, heads_first) * _by_token(grad, heads_first)).abs_()
            by_row = product.flatten(1, -2).sum(1) if product.dim() > 2 else product
            total.add_(weighted_sum(batch.sides, by_row))

        y.register_hook(gradient)
        runs.append(1)
        return y

    return hook


def begin_graph(watched: Tensor, beginnings: list[Tensor]) -> Tensor:
    """Note a watched tensor of the first layer, below which no gradient is wanted.

    Returns it as part of a graph that begins with it, unless it depends on one noted before.
    """
    if not (beginnings and watched.requires_grad):
        watched = watched.detach().requires_grad_()
    beginnings.append(watched)
    return watched


def _by_token(values: Tensor, heads_first: bool) -> Tensor:
    if heads_first and values.dim() == 4:
        values = values.transpose(1, 2)
    return values.flatten(0, 1).to(torch.promote_types(values.dtype, torch.float32))


@dataclass(frozen=True)
class Positions:
    """Weights of the positions of a batch, all positions in one row."""

    sides: Tensor  # (2, rows x length): of the tokens of the source, of the target
    counts: Tensor  # (2): tokens of the source, of the target
    tokens: Tensor  # (rows x length): 1 where either stands
    means: Tensor  # (rows x length): summed up with it, values become sums of sentence means
    sentences: Tensor  # how many rows have tokens

    @classmethod
    def from_masks(
        cls,
        source: Bool[Tensor, "rows length"],
        target: Bool[Tensor, "rows length"],
        by_sentence: bool = False,
    ) -> "Positions":
        """Weigh the positions by the masks of source and target.

        Args:
            by_sentence: sides are weighted so that sums are of sentence means; else by 1.
        """
        sides = torch.stack([source, target]).float()
        tokens = sides.sum(0)
        lengths = tokens.sum(1, keepdim=True)
        means = tokens / lengths.clamp(min=1)
        weights = sides * means if by_sentence else sides
        return cls(
            weights.flatten(1),
            sides.sum((1, 2)),
            tokens.flatten(),
            means.flatten(),
            (lengths > 0).sum(),
        )


def weighted_sum(weights: Tensor, values: Tensor) -> Tensor:
    """Sums over positions with these weights."""
    return weights.to(values.dtype) @ values


def flat(values: Tensor) -> Tensor:
    """Return all positions in one dimension, in float32 or better: half would lose small values."""
    return values.flatten(0, -2).to(torch.promote_types(values.dtype, torch.float32))
