"""Translation memory: sentences like the one to be translated, with their translations."""

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any
from zlib import crc32

from rapidfuzz.distance import Levenshtein

from polylect.data.corpora.corpus import corpora
from polylect.data.corpora.read_pairs import read_pairs
from polylect.data.filters import HashSet, PairFilter, normalise
from polylect.data.store import PairStore
from polylect.data.text import one_line
from polylect.retrieval.documents import BM25
from polylect.retrieval.terms import tokens_of_text


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
        corpus: a corpus spec (see `polylect.data.corpora.corpus`) for all directions, or a mapping
            from direction or "*" to specs. Empty and repeated pairs are left out.
        root: folder that relative paths start from.
        matches: most that are shown for a sentence.
        threshold: least score of a match.
        exact: whether the sentence itself, case and punctuation aside, may be shown. If not, it is
            left out and counted: on sentences whose translations are shown one would measure the
            memory, not the model.
        candidates: pairs with the highest BM25 scores, of which the matches are taken.
        max_length: most tokens of a prompt; beyond them the weakest matches are dropped.
        share: of the sentences, how many are shown matches at all; the same ones each time. Below 1
            in training, so that prompts without examples stay known.
        untrained: whether a model is shown matches that was trained without any.
        check_sides: refuse pairs that are clearly swapped; see `polylect.data.corpora.sides`.

    Attributes:
        counts: by direction: sentences (of the share), matched (sentences with a match), matches
            (found), dropped (of these, for lack of room), same (sentences that are in the memory
            themselves).

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
        share: float | int = 1.0,
        untrained: bool = False,
        check_sides: bool = True,
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
        if not 0 < share <= 1:
            raise ValueError(f"memory.share must be above 0 and at most 1, got {share}.")
        if corpus is None:
            raise ValueError("memory.corpus names no corpus: give pairs to remember.")
        self.corpus, self.root = corpus, root
        self.matches, self.threshold, self.exact = matches, threshold, exact
        self.candidates, self.max_length = candidates, max_length
        self.share, self.untrained = share, untrained
        self._lock = Lock()  # training prompts are made by several threads
        self.check_sides = check_sides
        self.counts: dict[str, Counter[str]] = {}
        self._pairs: dict[str, _Pairs] = {}

    def find(self, source: str, direction: str) -> list[Match]:
        """Return the most similar pairs, the most similar first,
        of equal ones the first in the corpus.

        Raises:
            FileNotFoundError, ValueError: the corpus cannot be read, see `corpora`.
        """
        source = one_line(source)
        if crc32(f"{direction} {source}".encode()) >= self.share * 2**32:
            return []
        with self._lock:
            if direction not in self._pairs:
                self._pairs[direction] = self._read(direction)
        pairs, key = self._pairs[direction], normalise(source)
        matches, same = [], False
        for match in pairs.similar_pairs(source, self.candidates, self.threshold):
            is_same = normalise(match.source) == key
            same |= is_same
            if self.exact or not is_same:
                matches.append(match)
        matches = sorted(matches, key=lambda match: -match.score)[: self.matches]
        flags = {"matched": int(bool(matches)), "same": int(same)}
        self.count(direction, {"sentences": 1, "matches": len(matches), **flags})
        return matches

    def count(self, direction: str, counted: Mapping[str, int]) -> None:
        """Add to the counts of a direction."""
        with self._lock:
            self.counts.setdefault(direction, Counter()).update(counted)

    def report(self) -> dict[str, Any]:
        """Return the settings and the counts, for a record."""
        settings = (
            *("corpus", "root", "matches", "threshold", "exact", "candidates", "max_length"),
            *("share", "untrained"),
        )
        counts = {direction: dict(counter) for direction, counter in self.counts.items()}
        return {name: getattr(self, name) for name in settings} | {"counts": counts}

    def summary(self) -> str:
        """Return the counts of all directions in a line."""
        total = sum(self.counts.values(), Counter())
        return (
            f"memory: {total['matched']} of {total['sentences']} sentences with a match, "
            f"{total['matches'] - total['dropped']} matches shown, {total['dropped']} dropped for "
            "lack of room, "
            f"{total['same']} in the memory themselves" + ("" if self.exact else ", not shown")
        )

    def _read(self, direction: str) -> "_Pairs":
        parts = corpora("memory", self.corpus, [direction], self.root, self.check_sides)
        if direction not in parts:
            raise ValueError(f"memory.corpus has nothing for direction {direction!r}: add it.")
        keep = PairFilter({"empty": True, "duplicate": True}, direction, HashSet())
        return _Pairs(read_pairs(parts[direction], keep)[0])


class _Pairs:
    """The pairs of a direction, with the tokens of their sources as numbers of 4 bytes."""

    def __init__(self, store: PairStore) -> None:
        self._store = store
        self._numbers: dict[str, int] = {}
        self._tokens, self._ends = array("i"), array("q", [0])
        for source in self._sources():
            numbers = (
                self._numbers.setdefault(t, len(self._numbers)) for t in tokens_of_text(source)
            )
            self._tokens.extend(numbers)
            self._ends.append(len(self._tokens))
        self._ranking = BM25(self._sources())

    def similar_pairs(self, source: str, candidates: int, threshold: float | int) -> list[Match]:
        """Return those of the candidates that reach the threshold, in the order of the corpus."""
        ours = [self._numbers.get(token, -1) for token in tokens_of_text(source)]
        matches = []
        for index in sorted(index for index, _ in self._ranking.best(source, candidates)):
            theirs = self._tokens[self._ends[index] : self._ends[index + 1]].tolist()
            score = Levenshtein.normalized_similarity(ours, theirs)
            if score >= threshold:
                pair = self._store[index]
                matches.append(Match(str(pair.source), pair.target, score))
        return matches

    def _sources(self) -> Iterator[str]:
        return (str(self._store[i].source) for i in range(len(self._store)))
