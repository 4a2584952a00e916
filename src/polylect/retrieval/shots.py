"""Fixed examples from training text before every source: the few-shot baseline of a base model."""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from polylect.data.filters import normalise
from polylect.retrieval.memory import Match

_LOOKED_AT = 50
"""Training sentences, for each example that is wanted, of which those are taken that will do."""


class Shots:
    """The same examples for all sources of a direction, in place of a memory's matches.

    It has what `polylect.retrieval.prompting` asks of a `Memory`.

    Args:
        pairs: by direction, the sentences with their translations; the last ones go first where a
            prompt has no room for all.
        seed: with which they were drawn, for the report.
        untrained: whether a model is shown them that was trained without any.

    Attributes:
        counts: by direction: sentences, matches (shown or dropped), dropped (for lack of room).
    """

    def __init__(
        self,
        pairs: Mapping[str, Sequence[tuple[str, str]]],
        seed: int = 0,
        untrained: bool = False,
    ) -> None:
        self.pairs = {direction: list(own) for direction, own in pairs.items()}
        self.seed, self.untrained = seed, untrained
        self.max_length = math.inf  # what the model takes is limit enough
        self.counts: dict[str, Counter[str]] = {}

    def find(self, source: str, direction: str) -> list[Match]:
        """Return the examples of the direction, whatever the source."""
        matches = [Match(*pair, 1.0) for pair in self.pairs[direction]]
        self.count(direction, {"sentences": 1, "matches": len(matches)})
        return matches

    def count(self, direction: str, counted: Mapping[str, int]) -> None:
        """Add to the counts of a direction."""
        self.counts.setdefault(direction, Counter()).update(counted)

    def report(self) -> dict[str, Any]:
        """Return the examples and the counts, for a record."""
        counts = {direction: dict(counter) for direction, counter in self.counts.items()}
        return {"seed": self.seed, "pairs": self.pairs, "counts": counts}

    def summary(self) -> str:
        """Return the counts of all directions in a line."""
        total = sum(self.counts.values(), Counter())
        dropped = f", {total['dropped']} dropped for lack of room" if total["dropped"] else ""
        return f"fixed examples: {total['matches']} before {total['sentences']} sentences{dropped}"


def draw_shots(data: Any, count: int, *, split: str, seed: int, untrained: bool = False) -> Shots:
    """Draws examples for each direction of a split from its training text, which is read.

    Sentences of the split itself are not taken: one would measure copying.

    Args:
        data: a `TranslationData`; `split` has been read.

    Raises:
        FileNotFoundError, ValueError: the training text cannot be read, or is too short.
    """
    data.setup("fit")
    pairs = {
        direction: _draw(data, direction, count, split, seed)
        for direction in data.directions_of(split)
        if "-" in direction
    }
    return Shots(pairs, seed, untrained)


def _draw(data: Any, direction: str, count: int, split: str, seed: int) -> list[tuple[str, str]]:
    if direction not in data.directions_of("train"):
        raise ValueError(
            f"shots={count} are drawn from training text, and {direction} has none: give "
            "data.train=…, or leave out shots."
        )
    store, held_out = data.pairs(direction, "train"), data.pairs(direction, split)
    excluded = {normalise(held_out[i].source) for i in range(len(held_out))}
    shots: list[tuple[str, str]] = []
    looked_at = min(len(store), _LOOKED_AT * count)
    for index in random.Random(f"{seed} {direction}").sample(range(len(store)), looked_at):
        pair = store[index]
        if len(shots) < count and normalise(pair.source) not in excluded:
            excluded.add(normalise(pair.source))
            shots.append((pair.source, pair.target))
    if len(shots) < count:
        raise ValueError(
            f"shots={count}: only {len(shots)} of the training sentences of {direction} differ "
            f"from each other and from the {split} set: give more in data.train, or fewer shots."
        )
    return shots
