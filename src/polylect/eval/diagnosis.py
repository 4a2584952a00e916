"""Diagnosis of a translated corpus beyond its score, counted line by line."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from polylect.eval.fidelity import loops, numbers_expected, numbers_lost, placeholders_lost, words
from polylect.eval.language import UNDECIDED, detect

if TYPE_CHECKING:
    from sacrebleu.metrics import CHRF

ECHO_CHRF = 90.0
"""chrF to the source from which an output is an echo, unless the references are as close."""
ECHO_MARGIN = 20.0
"""How much closer to the source than every reference an echo must be, in chrF: names, numbers and
closely related languages make a true translation look like its source."""

_LISTED_LINES = 20


@dataclass(frozen=True)
class Rate:
    """Some lines out of those that could be judged.

    Attributes:
        lines: 0-based positions of the lines it is about.
        of: how many lines could be judged.
    """

    lines: tuple[int, ...]
    of: int

    @property
    def count(self) -> int:
        """Number of the lines."""
        return len(self.lines)

    @property
    def rate(self) -> float:
        """Share of the judged lines; nan if none could be judged."""
        return self.count / self.of if self.of else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return count, rate and the first line numbers from 1, for JSON."""
        lines = [line + 1 for line in self.lines[:_LISTED_LINES]]
        return {"count": self.count, "of": self.of, "rate": _finite(self.rate), "lines": lines}


@dataclass(frozen=True)
class Diagnosis:
    """Rates for one direction; what each is a share of stands in brackets.

    Attributes:
        segments: number of lines.
        off_target: in another language than the target [lines whose language was decided].
        undecided: language not decided: too short, or not distinguishable [non-empty lines].
        echo: the source again, or nearly, where no reference does so [lines with a source].
        empty: nothing but white space [lines with a source].
        repetition: stuck in a loop that neither source nor references have [non-empty lines].
        length_cap: generation was cut off at its length limit [all lines]; None if not told.
        too_long: the source left no room in the model's context, and nothing was generated [all
            lines]; None if not told.
        numbers_lost: a number is missing [lines with a number that the references keep].
        placeholders_lost: likewise for format fields and tags.
        length_ratio: characters of the hypotheses over those of the first references; nan
            without references.
        languages: number of lines per language found, UNDECIDED included, empty lines not.
    """

    segments: int
    off_target: Rate
    undecided: Rate
    echo: Rate
    empty: Rate
    repetition: Rate
    length_cap: Rate | None
    too_long: Rate | None
    numbers_lost: Rate
    placeholders_lost: Rate
    length_ratio: float
    languages: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values, rates that were not measured left out.

        A rate becomes ``{"count": 2, "of": 998, "rate": 0.002, "lines": [17, 340]}`` with the
        first line numbers, counted from 1; a rate or ratio of nothing is null.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        rates = {name: value.to_dict() for name, value in values.items() if isinstance(value, Rate)}
        plain = {"segments": self.segments, "languages": self.languages}
        return {**plain, "length_ratio": _finite(self.length_ratio), **rates}


def diagnose(
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    source_lang: str,
    target_lang: str,
    candidates: Sequence[str] = (),
    scripts: Mapping[str, Sequence[str]] | None = None,
    lengths_hit: Sequence[bool] | None = None,
    too_long: Sequence[bool] | None = None,
) -> Diagnosis:
    """Counts what went wrong in the translations of one direction.

    Args:
        references: for each line its references, as many as there are (none is allowed).
        candidates: languages the output could be in besides the source and the target language:
            the other targets of the run.
        scripts: per language code the Unicode names of its scripts (see `detect`).
        lengths_hit: for each line whether generation stopped at its length limit.
        too_long: for each line whether its source was too long for the model.

    Raises:
        ValueError: the lists differ in length.
    """
    lists = {"sources": sources, "references": references}
    flags = {"lengths_hit": lengths_hit, "too_long": too_long}
    for name, values in (lists | flags).items():
        if values is not None and len(values) != len(hypotheses):
            raise ValueError(f"there are {len(hypotheses)} hypotheses but {len(values)} {name}")

    rows = list(zip(sources, hypotheses, references, strict=True))
    with_source = [i for i, source in enumerate(sources) if source.strip()]
    nonempty = [i for i, hypothesis in enumerate(hypotheses) if hypothesis.strip()]
    # Target first: where two codes cannot be told apart, it is given the benefit of the doubt.
    among = tuple(dict.fromkeys([target_lang, source_lang, *candidates]))
    identified = dict(
        zip(nonempty, detect([hypotheses[i] for i in nonempty], among, scripts), strict=True)
    )
    decided = [i for i in nonempty if identified[i] != UNDECIDED]
    return Diagnosis(
        segments=len(rows),
        off_target=_rate(decided, (i for i in decided if identified[i] != target_lang)),
        undecided=_rate(nonempty, (i for i in nonempty if identified[i] == UNDECIDED)),
        echo=_rate(with_source, (i for i in with_source if _is_echo(*rows[i]))),
        empty=_rate(with_source, (i for i in with_source if not hypotheses[i].strip())),
        repetition=_rate(nonempty, (i for i in nonempty if _is_stuck(*rows[i]))),
        length_cap=None if lengths_hit is None else _rate(rows, _positions(lengths_hit)),
        too_long=None if too_long is None else _rate(rows, _positions(too_long)),
        numbers_lost=_rate(
            [row for row in rows if numbers_expected(row[0], row[2])],
            _positions(numbers_lost(*row) for row in rows),
        ),
        placeholders_lost=_rate(
            [row for row in rows if placeholders_lost(row[0], "", row[2])],
            _positions(placeholders_lost(*row) for row in rows),
        ),
        length_ratio=_length_ratio(hypotheses, references),
        languages=dict(Counter(identified.values()).most_common()),
    )


def _rate(population: Sequence[object], lines: Iterable[int]) -> Rate:
    return Rate(tuple(lines), len(population))


def _positions(flags: Iterable[object]) -> list[int]:
    return [i for i, flag in enumerate(flags) if flag]


def _is_echo(source: str, hypothesis: str, references: Sequence[str]) -> bool:
    own = _closeness(hypothesis, source)
    if own < ECHO_CHRF:
        return False
    return all(_closeness(reference, source) <= own - ECHO_MARGIN for reference in references)


def _closeness(text: str, source: str) -> float:
    """Return chrF of the text to the source, ignoring case and punctuation; 0 without words."""
    text, source = words(text), words(source)
    if not text or not source:
        return 0.0
    if text == source:
        return 100.0
    if not 0.5 < len(text) / len(source) < 2:
        return 0.0  # far below any threshold here, and chrF is the slow part
    return float(_chrf().sentence_score(text, [source]).score)


@cache
def _chrf() -> "CHRF":
    from sacrebleu.metrics import CHRF

    return CHRF()


def _is_stuck(source: str, hypothesis: str, references: Sequence[str]) -> bool:
    return loops(hypothesis) and not any(loops(text) for text in (source, *references))


def _length_ratio(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    pairs = [(h, refs[0]) for h, refs in zip(hypotheses, references, strict=True) if refs]
    total = sum(len(reference) for _, reference in pairs)
    return sum(len(hypothesis) for hypothesis, _ in pairs) / total if total else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
