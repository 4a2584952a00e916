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

Watch = Callable[[int, int], bool]
"""Is called with the number of a prompt and its newest token; True ends that prompt's row."""


class OpenRows(StoppingCriteria):
    """Ends each row at an end token, at its own limit, or when its translation is not wanted.

    The layers are told (`RoutingContext.ended`), for what `generate` feeds a row that has ended is
    padding, though the attention mask does not say so. It costs as much as a row that goes on, so
    where enough of them have ended all are stopped, to go on without those.

    Args:
        context: of the layers.
        limits: the length at which each row ends, prompt and padding counted.
        ends: token ids at which a translation stops.
        watch: is told of each row's newest token, but for end tokens.
        indices: the number by which `watch` knows each row.

    Attributes:
        open: which rows have not ended.
        has_paused: whether all were stopped while some of them are open.
    """

    def __init__(
        self,
        context: RoutingContext,
        limits: Int[Tensor, " rows"],
        ends: Sequence[int],
        watch: Watch | None,
        indices: Sequence[int],
    ) -> None:
        self._context, self._limits, self._watch = context, limits, watch
        self._ends, self._indices = torch.tensor(list(ends), device=limits.device), indices
        self.open = torch.ones_like(limits, dtype=torch.bool)
        self.has_paused = False

    def __call__(
        self, input_ids: Int[Tensor, "rows length"], scores: Any, **_: Any
    ) -> Bool[Tensor, " rows"]:
        is_end = torch.isin(input_ids[:, -1], self._ends)
        unwanted = self._tell(input_ids[:, -1], self.open & ~is_end)
        self.open &= ~(is_end | unwanted | (input_ids.shape[1] >= self._limits))
        self._context.ended = ~self.open
        self.has_paused = 0 < int(self.open.sum()) <= KEPT * len(self.open)
        return torch.ones_like(self.open) if self.has_paused else ~self.open

    def _tell(
        self, newest: Int[Tensor, " rows"], rows: Bool[Tensor, " rows"]
    ) -> Bool[Tensor, " rows"]:
        """Tell of the newest tokens of those rows; return which of them are not wanted."""
        unwanted = torch.zeros_like(rows)
        if self._watch is not None:
            for row in rows.nonzero().flatten().tolist():
                unwanted[row] = self._watch(self._indices[row], int(newest[row]))
        return unwanted
