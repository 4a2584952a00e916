"""Translation memory: sentences like the one to be translated, with their translations."""

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rapidfuzz.distance import Levenshtein

from polylect.data.corpus import corpora
from polylect.data.filters import HashSet, PairFilter, normalised
from polylect.data.reading import read_pairs
from polylect.data.store import PairStore
from polylect.retrieval.documents import BM25
from polylect.retrieval.terms import units


@dataclass(frozen=True)
class Match:
    """A pair of the memory and how much its source is like the sentence: 1 is the same."""

    source: str
    target: str
    score: float


class Memory:
    """Pairs of all directions that are asked for; each direction is read when it first is.

    The score of a match is 1 - d / n, with d the least number of words (letters, in scripts
    without spaces; punctuation counts) to insert, delete or replace, and n the longer's number of
    them. Case does not count.

    Args:
        corpus: a corpus spec (see `polylect.data.corpus`) for all directions, or a mapping from
            direction or "*" to specs. Empty and repeated pairs are left out.
        root: folder that relative paths start from.
        matches: most that are shown for a sentence.
        threshold: least score of a match.
        exact: whether the sentence itself, case and punctuation aside, may be shown. If not, it is
            left out and counted: on sentences whose translations are shown one would measure the
            memory, not the model.
        candidates: pairs with the highest BM25 scores, of which the matches are taken.
        max_length: most tokens of a prompt; beyond them the weakest matches are dropped.

    Attributes:
        counts: by direction: sentences, matched (sentences with a match), matches (found), dropped
            (of these, for lack of room), same (sentences that are in the memory themselves).

    Raises:
        ValueError: a number out of its range; files are opened by `find` only.
    """

    def __init__(
        self,
        *,
        corpus: Any,
        root: str | None = None,
        matches: int = 3,
        threshold: float | int = 0.5,
        exact: bool = False,
        candidates: int = 500,
        max_length: int = 512,
    ) -> None:
        for name, value in (
            ("matches", matches),
            ("candidates", candidates),
            ("max_length", max_length),
        ):
            if value < 1:
                raise ValueError(f"memory.{name} must be at least 1, got {value}.")
        if not 0 <= threshold <= 1:
            raise ValueError(f"memory.threshold must be from 0 to 1, got {threshold}.")
        if corpus is None:
            raise ValueError("memory.corpus names no corpus: give pairs to remember.")
        self.corpus, self.root = corpus, root
        self.matches, self.threshold, self.exact = matches, threshold, exact
        self.candidates, self.max_length = candidates, max_length
        self.counts: dict[str, Counter[str]] = {}
        self._pairs: dict[str, _Pairs] = {}

    def find(self, source: str, direction: str) -> list[Match]:
        """The most similar pairs, the most similar first, of equal ones the first in the corpus.

        Raises:
            FileNotFoundError, ValueError: the corpus cannot be read, see `corpora`.
        """
        if direction not in self._pairs:
            self._pairs[direction] = self._read(direction)
        pairs = self._pairs[direction]
        bare = normalised(source)
        found, same = [], False
        for match in pairs.scored(source, self.candidates, self.threshold):
            is_same = normalised(match.source) == bare
            same |= is_same
            if self.exact or not is_same:
                found.append(match)
        found = sorted(found, key=lambda match: -match.score)[: self.matches]
        counts = self.counts.setdefault(direction, Counter())
        counts.update(sentences=1, matched=bool(found), matches=len(found), same=same)
        return found

    def report(self) -> dict[str, Any]:
        """The settings and the counts, for a record."""
        settings = ("corpus", "root", "matches", "threshold", "exact", "candidates", "max_length")
        counts = {direction: dict(counter) for direction, counter in self.counts.items()}
        return {name: getattr(self, name) for name in settings} | {"counts": counts}

    def summary(self) -> str:
        """The counts of all directions in a line."""
        total = sum(self.counts.values(), Counter())
        return (
            f"memory: {total['matched']} of {total['sentences']} sentences with a match, "
            f"{total['matches'] - total['dropped']} matches shown, {total['dropped']} dropped for "
            "lack of room, "
            f"{total['same']} in the memory themselves" + ("" if self.exact else ", not shown")
        )

    def _read(self, direction: str) -> "_Pairs":
        parts = corpora("memory", self.corpus, [direction], self.root)
        if direction not in parts:
            raise ValueError(f"memory.corpus has nothing for direction {direction!r}: add it.")
        keep = PairFilter({"empty": True, "duplicate": True}, direction, HashSet())
        return _Pairs(read_pairs(parts[direction], keep)[0])


class _Pairs:
    """Pairs of a direction, with the units of their sources as numbers, 4 bytes each."""

    def __init__(self, store: PairStore) -> None:
        self._store = store
        self._numbers: dict[str, int] = {}
        self._units, self._ends = array("i"), array("q", [0])
        for source in self._sources():
            numbers = (self._numbers.setdefault(u, len(self._numbers)) for u in units(source))
            self._units.extend(numbers)
            self._ends.append(len(self._units))
        self._ranking = BM25(self._sources())

    def scored(self, source: str, candidates: int, threshold: float | int) -> list[Match]:
        """Those of the candidates that reach the threshold, in the order of the corpus."""
        ours = [self._numbers.get(unit, -1) for unit in units(source)]
        found = []
        for index in sorted(index for index, _ in self._ranking.best(source, candidates)):
            theirs = self._units[self._ends[index] : self._ends[index + 1]].tolist()
            score = Levenshtein.normalized_similarity(ours, theirs)
            if score >= threshold:
                pair = self._store[index]
                found.append(Match(str(pair.source), pair.target, score))
        return found

    def _sources(self) -> Iterator[str]:
        return (str(self._store[i].source) for i in range(len(self._store)))
