"""Lengths of examples in tokens of the base model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polylect.data.stream import make_examples

_CHUNK = 2048
"""Pairs that are tokenised by one call."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of some examples of one direction: int arrays of [examples].

    Attributes:
        prompt: of what is read.
        target: of what is learned after it, the end token included.
    """

    prompt: np.ndarray
    target: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """Tokens of prompt and target."""
        return self.prompt + self.target


def measure(data: Any, direction: str, split: str, rows: Sequence[int]) -> Lengths:
    """Return the lengths of these pairs of a direction, by their numbers in `data.pairs`.

    Matches of a translation memory are not counted: they are shown only as far as they fit.

    Args:
        data: a `TranslationData` with a tokenizer, set up for the split.
    """
    store = data.pairs(direction, split)
    prompts, targets = [], []
    for start in range(0, len(rows), _CHUNK):
        pairs = [store[row] for row in rows[start : start + _CHUNK]]
        directions = [direction] * len(pairs)
        for example in make_examples(pairs, directions, data.tokenizer, data.template):
            prompts.append(len(example.prompt))
            targets.append(len(example.target))
    return Lengths(np.array(prompts, dtype=np.int64), np.array(targets, dtype=np.int64))


def spread(begin: int, end: int, most: int | None) -> list[int]:
    """Return at most so many numbers from `begin` to `end` (excluded), evenly spaced."""
    size = end - begin
    if most is None or size <= most:
        return list(range(begin, end))
    return [begin + size * i // most for i in range(most)]


def join(parts: Sequence[Lengths]) -> Lengths:
    """Return the lengths of several parts of a direction."""
    return Lengths(
        np.concatenate([part.prompt for part in parts]),
        np.concatenate([part.target for part in parts]),
    )
