"""What each row needs in beam search to come out as if it were alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor
from transformers import StoppingCriteria

from polylect.layers.context import RoutingContext


class AtOwnLimit(StoppingCriteria):
    """Ends the beams of each row at its own limit, while its neighbours go on.

    Every hypothesis that is open there counts as finished, as at `max_new_tokens` if the row were
    alone, and what is left of the row's beams falls to a score of -1e9: below all that are
    finished, at the same length, so no length penalty ever brings them back.

    Args:
        limits: the length at which each row ends, prompt and padding counted.
    """

    def __init__(self, limits: Int[Tensor, " rows"]) -> None:
        self._limits = limits

    def __call__(
        self, input_ids: Int[Tensor, "rows_and_beams length"], scores: Any, **_: Any
    ) -> Bool[Tensor, " rows_and_beams"]:
        own = self._limits.repeat_interleave(len(input_ids) // len(self._limits))
        return input_ids.shape[1] >= own


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
