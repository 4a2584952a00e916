"""Checks that each side of a corpus is in its language, to detect swapped files and columns.

The first rows are read ahead, and their texts told by script and py3langid to be in the language of
one side, of the other, or in neither; short texts are told together with the next ones. Nothing
follows from what cannot be told: related varieties, languages that py3langid does not know,
synthetic ones, too few letters. A side reads as a language if nearly all does that can be told.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from polylect.data.corpora.rows import Row
from polylect.data.languages import language
from polylect.eval.language import OTHER, UNDECIDED, detect, letter_count

SAMPLE_ROWS = 200
SAMPLE_CHARACTERS = 2**20
_TOLD_CHARACTERS = 1000
"""Of a text; the rest of a long one says nothing new."""

_LETTERS = 20
"""Texts with fewer are told together with the next ones."""

_CLEAR = 0.8
"""Share of what can be told that makes a side clear."""

_VARIETIES = ({"bs", "hr", "sr"}, {"nb", "nn", "no"})
"""Too near to each other for a few sentences to tell them apart."""

_OPPOSITE = {"source": "target", "target": "source"}


@dataclass(frozen=True)
class Column:
    """Texts of a side, or of a column that may be one.

    Attributes:
        codes: by side the language expected there.
    """

    texts: Sequence[str]
    codes: Mapping[str, str] = field(hash=False)

    @cached_property
    def language_counts(self) -> Counter[str]:
        """How many texts are in the language of "source", of "target", and in "other"."""
        if _are_varieties(*self.codes.values()) and not self._scripts_tell:
            return Counter()
        detected = Counter(detect(list(self._long_enough()), list(self._scripts), self._scripts))
        detected.pop(UNDECIDED, None)
        sides = {code: side for side, code in self.codes.items()}
        return Counter({sides.get(code, OTHER): count for code, count in detected.items()})

    @cached_property
    def _scripts(self) -> dict[str, tuple[str, ...]]:
        return {code: language(code).scripts for code in self.codes.values()}

    @cached_property
    def _scripts_tell(self) -> bool:
        """Say whether each language has scripts, and none that the other one has, too."""
        names = [name for scripts in self._scripts.values() for name in scripts]
        return all(self._scripts.values()) and len(set(names)) == len(names)

    @cached_property
    def _least(self) -> int:
        """Return how many texts have to be identified: by scripts one is enough."""
        return 1 if self._scripts_tell else 2

    def _long_enough(self) -> Iterator[str]:
        joined = ""
        for text in self.texts:
            joined = f"{joined} {text[:_TOLD_CHARACTERS]}"
            if letter_count(joined) >= _LETTERS:
                yield joined
                joined = ""
        yield joined

    def reads_as(self, side: str) -> bool:
        """Return whether nearly all that can be told is in the language of the side."""
        return self.language_counts[side] >= max(self._least, _CLEAR * self.language_counts.total())

    @cached_property
    def holds_identifiers(self) -> bool:
        """Return whether nearly all are single words with digits in them, or addresses."""
        words = [text for text in self.texts if text.isascii() and len(text.split()) == 1]
        coded = sum("://" in word or any(map(str.isdigit, word)) for word in words)
        return coded > 0 and coded >= _CLEAR * len(self.texts)

    def wrong_for(self, side: str) -> str:
        """Return what these texts of a side are instead of texts in its language.

        It is empty if they are in it.
        """
        total = self.language_counts.total()
        if self.holds_identifiers:
            return "holds identifiers"
        if total >= self._least and self.language_counts[side] < total / 2:
            counts = [
                f"as {self._name(label)} in {n}" for label, n in self.language_counts.most_common()
            ]
            return f"reads {', '.join(counts)} of {total} texts"
        is_constant = len(self.texts) > 2 and len(set(self.texts)) == 1
        return "holds the same text in every row" if is_constant and not total else ""

    def _name(self, side: str) -> str:
        if side == OTHER:
            return "a language of another script"
        return f"{language(self.codes[side]).name} ({self.codes[side]})"


def _are_varieties(code: str, other: str = "") -> bool:
    bases = {code.partition("_")[0], other.partition("_")[0]}
    return len(bases) == 1 or any(bases <= near for near in _VARIETIES)


def read_ahead(rows: Iterator[Row]) -> list[Row]:
    """Read as many of the first rows as tell enough, within a bound on their length."""
    ahead: list[Row] = []
    length = 0
    while len(ahead) < SAMPLE_ROWS and length < SAMPLE_CHARACTERS:
        row = next(rows, None)
        if row is None:
            break
        ahead.append(row)
        length += len(row.source or "") + len(row.target)
    return ahead


def are_swapped(columns: Mapping[str, Column]) -> bool:
    """Return whether each side clearly reads as the language of the other one."""
    return len(columns) == 2 and all(c.reads_as(_OPPOSITE[side]) for side, c in columns.items())


def likely_columns(rows: Iterable[Sequence[str]], codes: Mapping[str, str]) -> dict[str, int]:
    """Return by side the column that reads most as its language; empty unless all have one."""
    columns = [Column(texts, codes) for texts in zip(*rows, strict=False)]
    likely = {}
    for side in codes:
        fitting = [i for i, c in enumerate(columns) if c.reads_as(side) and not c.holds_identifiers]
        if not fitting:
            return {}
        likely[side] = max(fitting, key=lambda i: columns[i].language_counts[side])
    return likely
