"""Decoding tells the layers which rows have ended while it goes on with their neighbours.

And it tells whoever asks for it of each token as it is decoded.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import StoppingCriteria

from polylect.layers.context import RoutingContext


class FinishedSequencesReporter(StoppingCriteria):
    """Stops nothing: tells the layers which rows have ended while `generate` goes on with others.

    What `generate` feeds such rows is padding, though the attention mask does not say so.
    """

    def __init__(
        self,
        context: RoutingContext,
        width: int,
        ends: Sequence[int],
        limits: Int[Tensor, " rows"],
    ) -> None:
        self._context, self._width, self._limits = context, width, limits
        self._ends = torch.tensor(list(ends), device=limits.device)

    def __call__(
        self, input_ids: Int[Tensor, "rows length"], scores: Any, **_: Any
    ) -> Bool[Tensor, " rows"]:
        ended = torch.isin(input_ids[:, self._width :], self._ends).any(1)
        self._context.ended = ended | (input_ids.shape[1] >= self._limits)
        return torch.zeros_like(ended)


Watch = Callable[[int, int], bool]
"""Is called with the number of a prompt and its newest token; True ends that prompt's row."""


class TokenReporter(StoppingCriteria):
    """Tells of each row's newest token, but for end tokens, and ends rows that are not wanted.

    Args:
        watch: is called for every open row after every step.
        indices: the number by which `watch` knows each row.
        ends: token ids at which a translation stops.
        limits: the length at which each row ends, prompt and padding counted, (rows,).
    """

    def __init__(
        self,
        watch: Watch,
        indices: Sequence[int],
        ends: Sequence[int],
        limits: Int[Tensor, " rows"],
    ) -> None:
        self._watch, self._indices, self._ends = watch, indices, frozenset(ends)
        self._open = dict(enumerate(limits.tolist()))

    def __call__(
        self, input_ids: Int[Tensor, "rows length"], scores: Any, **_: Any
    ) -> Bool[Tensor, " rows"]:
        unwanted = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        newest = input_ids[:, -1].tolist()
        for row, limit in list(self._open.items()):
            is_end = newest[row] in self._ends
            if not is_end and self._watch(self._indices[row], newest[row]):
                unwanted[row] = True
            if is_end or unwanted[row] or input_ids.shape[1] >= limit:
                del self._open[row]
        return unwanted


@contextmanager
def report_finished_beams(backbone: Any, context: RoutingContext, beams: int) -> Iterator[None]:
    """Let beam search tell the layers which sentences have ended.

    A sentence has ended when none of its beams can improve on what is finished, which only
    transformers' own loop knows; its beams then go on without effect until its neighbours end.
    """
    check = backbone._check_early_stop_heuristic

    def check_and_tell(**state: Any) -> Bool[Tensor, "rows 1"]:
        is_open = check(**state)
        context.ended = ~is_open.squeeze(1).repeat_interleave(beams)
        return is_open

    backbone._check_early_stop_heuristic = check_and_tell
    try:
        yield
    finally:
        del backbone._check_early_stop_heuristic
