"""Which rows of a greedy batch go on, for `generate`, for the layers and for whoever listens."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import StoppingCriteria

from polylect.layers.context import RoutingContext

KEPT = 0.75
"""Rows that ended are dropped when no more than this share of a batch goes on."""

STEPS = 8
"""Others may join a batch after this many steps at the earliest."""

TokenListener = Callable[[int, int], bool]
"""Is told of the newest token of a row, by its number; True ends that row."""


class OpenRows(StoppingCriteria):
    """Ends each row at an end token, at its own limit, or when its translation is not wanted.

    The layers are told (`RoutingContext.ended`), for what `generate` feeds a row that has ended is
    padding, though the attention mask does not say so. It costs as much as a row that goes on, so
    where enough of them have ended all are stopped, to go on without those; and now and then where
    others wait, to go on with them.

    Args:
        context: of the layers.
        limits: the length at which each row ends, prompt and padding counted.
        ends: token ids at which a translation stops.
        listener: is told of each row's newest token, but for end tokens.
        rows: the numbers by which it knows the rows.
        others_wait: whether others are ready to join the batch.

    Attributes:
        open: which rows have not ended.
        has_paused: whether all were stopped while some of them are open.
    """

    def __init__(
        self,
        context: RoutingContext,
        limits: Int[Tensor, " rows"],
        ends: Sequence[int],
        listener: TokenListener | None,
        rows: Sequence[int],
        others_wait: Callable[[], bool],
    ) -> None:
        self._context, self._limits = context, limits
        self._listener, self._rows = listener, rows
        self._others_wait, self._steps = others_wait, 0
        self._ends = torch.tensor(list(ends), device=limits.device)
        self.open = torch.ones_like(limits, dtype=torch.bool)
        self.has_paused = False

    def __call__(
        self, input_ids: Int[Tensor, "rows length"], scores: Any, **_: Any
    ) -> Bool[Tensor, " rows"]:
        is_end = torch.isin(input_ids[:, -1], self._ends)
        unwanted = self._tell(input_ids[:, -1], self.open & ~is_end)
        self.open &= ~(is_end | unwanted | (input_ids.shape[1] >= self._limits))
        self._context.ended = ~self.open
        self._steps += 1
        left = int(self.open.sum())
        is_time = left <= KEPT * len(self.open) or (self._steps >= STEPS and self._others_wait())
        self.has_paused = left > 0 and is_time
        return torch.ones_like(self.open) if self.has_paused else ~self.open

    def _tell(
        self, newest: Int[Tensor, " rows"], going: Bool[Tensor, " rows"]
    ) -> Bool[Tensor, " rows"]:
        """Tell of the newest tokens of those rows; return which of them are not wanted."""
        unwanted = torch.zeros_like(going)
        if self._listener is not None:
            for place, token in enumerate(newest.tolist()):
                if going[place]:
                    unwanted[place] = self._listener(self._rows[place], token)
        return unwanted
