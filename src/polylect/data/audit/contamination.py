"""How much of val and test texts stands in training text, by runs of words.

A sentence counts as seen if at least 70 % of its runs of eight words stand somewhere in training
text of its language, the rule of Chowdhery et al. 2022 (PaLM, arXiv:2204.02311, section 8); one of
fewer words if it is a training text. What is held in memory are the runs of the val and test sets;
training text is looked at once.
"""

from collections.abc import Iterable
from typing import Any

from polylect.data.corpora.rows import Row
from polylect.data.filters import ngram_hashes, sides
from polylect.data.languages import split_direction

WORDS = 8
SEEN_SHARE = 0.7


class Contamination:
    """Val and test sentences, and which of their runs of words were in training text."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._is_seen = bytearray()
        self._sentences: dict[tuple[str, str, str], list[list[int]]] = {}

    def add_scored(self, split: str, direction: str, rows: Iterable[Row]) -> None:
        """Take the sentences of a val or test set of a direction."""
        names = ("source", "target")[-sum(map(bool, split_direction(direction))) :]
        for row in rows:
            texts = sides(direction, row.source, row.target)
            for name, (code, text) in zip(names, texts, strict=True):
                runs = [self._number(key) for key in ngram_hashes(code, text, WORDS)]
                self._sentences.setdefault((split, direction, name), []).append(runs)

    def see(self, direction: str, source: str | None, target: str) -> None:
        """Look at a training pair."""
        for code, text in sides(direction, source, target):
            for key in ngram_hashes(code, text, WORDS):
                number = self._numbers.get(key)
                if number is not None:
                    self._is_seen[number] = True

    def report(self) -> dict[str, Any]:
        """Return by split and direction the numbers of sentences, and of those seen by side."""
        result: dict[str, Any] = {}
        for (split, direction, side), sentences in self._sentences.items():
            counts = result.setdefault(split, {}).setdefault(direction, {})
            counts["sentences"] = len(sentences)
            counts[side] = sum(self._share(runs) >= SEEN_SHARE for runs in sentences)
        return result

    def _number(self, key: int) -> int:
        number = self._numbers.setdefault(key, len(self._numbers))
        if number == len(self._is_seen):
            self._is_seen.append(False)
        return number

    def _share(self, runs: list[int]) -> float:
        return sum(self._is_seen[number] for number in runs) / len(runs)
