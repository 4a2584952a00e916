"""Scores of the next token that are NaN or infinite are remembered, since nothing else tells."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor


class ScoreWatch(LogitsProcessor):
    """Remembers in which rows scores of the next token were NaN or infinite.

    An argmax over NaN is a token like any other, so nothing else would tell. The largest score
    stands for all: NaN wins every maximum, and minus infinity may be a model's own mask. What
    comes after a row's end, while its neighbours go on, does not count.

    Args:
        limits: the length at which each row ends, prompt and padding counted.
        ends: ids of end tokens and of padding.
    """

    def __init__(self, limits: Int[Tensor, " rows"], ends: Sequence[int]) -> None:
        self._limits, self._ends = limits, torch.tensor(ends, device=limits.device)
        self._broken = torch.zeros_like(limits, dtype=torch.bool)
        self._is_first = True

    def __call__(
        self,
        input_ids: Int[Tensor, "rows_and_beams length"],
        scores: Float[Tensor, "rows_and_beams vocabulary"],
    ) -> Float[Tensor, "rows_and_beams vocabulary"]:
        broken = ~scores.amax(dim=-1).isfinite()
        if not self._is_first:  # before that the last token is the prompt's
            broken &= ~torch.isin(input_ids[:, -1], self._ends)
        self._is_first = False
        is_open = input_ids.shape[1] < self._limits
        self._broken |= broken.view(len(is_open), -1).any(dim=1) & is_open
        return scores

    def broken_rows(self) -> list[int]:
        """Return the numbers of those rows; waits for the device."""
        return self._broken.nonzero().flatten().tolist()
