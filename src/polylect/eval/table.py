"""Tables of scores for a terminal and for Markdown, in which only comparable values share a column.

Two values compare only if their signatures are equal. Tokenizer and number of references differ
between directions for good reasons, and then get a column (and a mean) each; any other difference,
such as another version of sacreBLEU, is an error.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from polylect.eval.diagnosis import Diagnosis, Rate
from polylect.eval.metrics import TITLES, Score
from polylect.eval.significance import Comparison

_VARIES_BY_DIRECTION = ("nrefs", "tok", "norm", "asian")
_MISSING = "-"


@dataclass(frozen=True)
class Table:
    """Cells as text, the first column naming the row; notes stand below."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        rule = ("---", *("---:" for _ in self.header[1:]))
        rows = (self.header, rule, *self.rows)
        lines = [f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |" for row in rows]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([*lines, *notes]) + "\n"

    def text(self) -> str:
        """Aligned columns in plain characters."""
        table = (self.header, *self.rows)
        first, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
        lines = [
            "  ".join([name.ljust(first), *map(str.rjust, cells, widths)]) for name, *cells in table
        ]
        return "\n".join([*lines, *self.notes]) + "\n"

    def show(self, stream: TextIO | None = None) -> None:
        """Prints the table: through rich on a terminal, as plain text into anything else."""
        stream = stream or sys.stdout
        if not stream.isatty():
            stream.write(self.text())
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(box=box.SIMPLE_HEAD)
        for i, name in enumerate(self.header):
            table.add_column(name, justify="right" if i else "left")
        for row in self.rows:
            table.add_row(*row)
        console = Console(file=stream, highlight=False, markup=False)
        console.print(table)
        for note in self.notes:
            console.print(note, style="dim")


def score_table(scores: Mapping[str, Sequence[Score]]) -> Table:
    """Rows are directions, columns metrics, with the mean of each column below.

    Where a metric has several signatures, each gets its own column, named by what differs
    ("BLEU tok:13a", "BLEU tok:intl"), so that no mean is taken over both. A mean over fewer than
    all directions says over how many.

    Args:
        scores: the scores of each direction.

    Raises:
        ValueError: no scores, or signatures that differ in more than a direction may need.
    """
    columns: dict[tuple[str, str], dict[str, float]] = {}
    for direction, row in scores.items():
        for s in row:
            columns.setdefault((s.name, s.signature), {})[direction] = s.value
    if not columns:
        raise ValueError("there are no scores to make a table of")
    names = list(dict.fromkeys(name for name, _ in columns))
    keys = sorted(columns, key=lambda key: names.index(key[0]))
    titles = [_title(name, signature, columns) for name, signature in keys]
    rows = [(d, *(_number(columns[key].get(d)) for key in keys)) for d in scores]
    if len(scores) > 1:
        rows.append(("mean", *(_mean(columns[key], len(scores)) for key in keys)))
    notes = (f"{title}: {signature}" for title, (_, signature) in zip(titles, keys, strict=True))
    return Table(("direction", *titles), tuple(rows), tuple(notes))


def matrix_table(scores: Mapping[str, Mapping[str, Score]]) -> Table:
    """One metric for every adapter (or system, or run) in every direction.

    Args:
        scores: for each adapter its score in each direction; some may be missing.

    Raises:
        ValueError: no scores, several metrics, or several signatures in one column.
    """
    columns: dict[str, Score] = {}
    for name, row in scores.items():
        for direction, s in row.items():
            first = columns.setdefault(direction, s)
            if (first.name, first.signature) != (s.name, s.signature):
                raise ValueError(
                    f"column {direction!r} cannot hold both {first.name} {first.signature} and, in "
                    f"row {name!r}, {s.name} {s.signature}; score all rows in the same way"
                )
    if not columns:
        raise ValueError("there are no scores to make a matrix of")
    if len(metrics := {s.name for s in columns.values()}) > 1:
        raise ValueError(f"a matrix shows one metric and got {', '.join(sorted(metrics))}")
    rows = tuple(
        (name, *(_number(row[d].value if d in row else None) for d in columns))
        for name, row in scores.items()
    )
    signatures: dict[str, list[str]] = {}
    for direction, s in columns.items():
        signatures.setdefault(s.signature, []).append(direction)
    title = TITLES.get(*metrics, *metrics)
    notes = (f"{title}, {' '.join(where)}: {text}" for text, where in signatures.items())
    return Table(("adapter", *columns), rows, tuple(notes))


def diagnosis_table(diagnoses: Mapping[str, Diagnosis]) -> Table:
    """Rows are directions, columns what can be wrong, as count out of what could be judged."""
    names = list(dict.fromkeys(name for d in diagnoses.values() for name in d.rates()))
    rows = tuple(
        (direction, *(_fraction(d.rates().get(n)) for n in names), _number(d.length_ratio, 2))
        for direction, d in diagnoses.items()
    )
    return Table(("direction", *(n.replace("_", " ") for n in names), "length ratio"), rows)


def comparison_table(comparisons: Sequence[Comparison], *, level: float = 0.05) -> Table:
    """Rows are directions; a star marks a difference that is significant after Holm's correction.

    Raises:
        ValueError: several metrics.
    """
    if len(metrics := {c.metric for c in comparisons}) > 1:
        raise ValueError(f"a comparison shows one metric and got {', '.join(sorted(metrics))}")
    rows = tuple(
        (
            c.direction,
            _number(c.baseline),
            _number(c.system),
            f"{c.difference:+.1f}{'*' if c.p_holm < level else ' '}",
            f"{c.p:.4f}",
            f"{c.p_holm:.4f}",
        )
        for c in comparisons
    )
    notes = (f"{c.direction}, {TITLES.get(c.metric, c.metric)}: {c.signature}" for c in comparisons)
    header = ("direction", "baseline", "system", "difference", "p", "p (Holm)")
    return Table(header, rows, (f"* p (Holm) < {level}", *notes))


def _title(name: str, signature: str, columns: Iterable[tuple[str, str]]) -> str:
    """The metric's name, and what sets this signature of it apart from the others, if any."""
    title = TITLES.get(name, name)
    own = _fields(signature)
    differ: dict[str, None] = {}
    for other in (other for metric, other in columns if metric == name):
        fields = _fields(other)
        unlike = [key for key in own | fields if own.get(key) != fields.get(key)]
        if beyond := [key for key in unlike if key not in _VARIES_BY_DIRECTION]:
            raise ValueError(
                f"{title} scores with the signatures {signature} and {other} differ in "
                f"{', '.join(beyond)} and do not compare; score all directions in the same way"
            )
        differ |= dict.fromkeys(unlike)
    return " ".join([title, *(f"{key}:{own.get(key)}" for key in own if key in differ)])


def _fields(signature: str) -> dict[str, str]:
    return dict(part.partition(":")[::2] for part in signature.split("|"))


def _mean(values: Mapping[str, float], directions: int) -> str:
    mean = _number(sum(values.values()) / len(values))
    return mean if len(values) == directions else f"{mean} (of {len(values)})"


def _number(value: float | None, digits: int = 1) -> str:
    return _MISSING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _fraction(rate: Rate | None) -> str:
    return _MISSING if rate is None or not rate.of else f"{rate.count}/{rate.of}"
