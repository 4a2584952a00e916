"""Tables of scores for a terminal and for Markdown, in which only comparable values share a column.

Two values compare only if their signatures are equal. Tokenizer and number of references differ
between directions for good reasons, and then get a column (and a mean) each; any other difference,
such as another version of sacreBLEU, is an error.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOBase
from typing import Any

from polylect.eval.diagnosis import Diagnosis
from polylect.eval.inference.verdict import Verdict
from polylect.eval.metrics import TITLES, Score
from polylect.eval.significance import Comparison

Results = Sequence[Score] | Mapping[str, Any]
"""The scores of one direction: as they are, or as ``scores.json`` holds them, where an entry
``"bleu": {"value": 31.2, "signature": "nrefs:1|..."}`` is a score and others are passed over."""

_VARIES_BY_DIRECTION = ("nrefs", "tok", "norm", "asian")
_MISSING = "-"


@dataclass(frozen=True)
class Table:
    """Cells as text, the first column naming the row; notes stand below."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Return the rows as a Markdown table, the notes below it."""
        rule = ("---", *("---:" for _ in self.header[1:]))
        rows = (self.header, rule, *self.rows)
        lines = [f"| {' | '.join(c.replace('|', chr(92) + '|') for c in row)} |" for row in rows]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([*lines, *notes]) + "\n"

    def tsv(self) -> str:
        """Return tab-separated rows; the notes are lines that begin with #."""
        rows = ["\t".join(cell.strip() for cell in row) for row in (self.header, *self.rows)]
        return "\n".join([*rows, *(f"# {note}" for note in self.notes)]) + "\n"

    def text(self) -> str:
        """Return aligned columns in plain characters."""
        table = (self.header, *self.rows)
        first, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
        lines = [
            "  ".join([name.ljust(first), *map(str.rjust, cells, widths)]) for name, *cells in table
        ]
        return "\n".join([*lines, *self.notes]) + "\n"


def show(table: Table, stream: TextIOBase | None = None) -> None:
    """Prints a table: through rich on a terminal, as plain text into anything else."""
    stream = stream or sys.stdout
    if not stream.isatty():
        stream.write(table.text())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    rich_table = RichTable(box=box.SIMPLE_HEAD)
    for i, name in enumerate(table.header):
        rich_table.add_column(name, justify="right" if i else "left")
    for row in table.rows:
        rich_table.add_row(*row)
    console = Console(file=stream, highlight=False, markup=False)
    console.print(rich_table)
    for note in table.notes:
        console.print(note, style="dim")


def scores_table(results: Mapping[str, Results]) -> Table:
    """Return directions by metrics, with the mean of each column below.

    Where a metric has several signatures, each gets its own column, named by what differs
    ("BLEU tok:13a", "BLEU tok:intl"), so that no mean is taken over both. A mean over fewer than
    all directions says over how many.

    Args:
        results: the scores of each direction.

    Raises:
        ValueError: no scores, or signatures that differ in more than a direction may need.
    """
    columns: dict[tuple[str, str], dict[str, float]] = {}
    for direction, row in results.items():
        for s in row_scores(row):
            columns.setdefault((s.name, s.signature), {})[direction] = s.value
    if not columns:
        raise ValueError("there are no scores to make a table of")
    names = list(dict.fromkeys(name for name, _ in columns))
    keys = sorted(columns, key=lambda key: names.index(key[0]))
    titles = [_title(name, signature, columns) for name, signature in keys]
    rows = [(d, *(_number(columns[key].get(d)) for key in keys)) for d in results]
    if len(results) > 1:
        rows.append(("mean", *(_mean(columns[key], len(results)) for key in keys)))
    notes = (f"{title}: {signature}" for title, (_, signature) in zip(titles, keys, strict=True))
    return Table(("direction", *titles), tuple(rows), tuple(notes))


def matrix_table(
    results: Mapping[str, Mapping[str, Results]],
    metric: str = "chrf++",
    *,
    title: str = "adapter",
    mean: bool = False,
    digits: int = 1,
) -> Table:
    """Return one metric for every adapter (or system, or run) in every direction.

    Args:
        results: for each adapter the scores of each direction; some may be missing.
        title: of the column of names.
        mean: whether a last column has the means of rows that are whole; there is none where
            directions have different signatures.
        digits: behind the point.

    Raises:
        ValueError: no such scores, or several signatures in one column.
    """
    columns: dict[str, str] = {}
    cells: dict[str, dict[str, float]] = {name: {} for name in results}
    # the fullest first: its directions stand in their order
    for name, directions in sorted(results.items(), key=lambda item: -len(item[1])):
        for direction, row in directions.items():
            for s in (s for s in row_scores(row) if s.name == metric):
                if (first := columns.setdefault(direction, s.signature)) != s.signature:
                    raise ValueError(
                        f"column {direction!r} of {TITLES.get(metric, metric)} cannot hold both "
                        f"{first} and, in row {name!r}, {s.signature}; score all rows in one way"
                    )
                cells[name][direction] = s.value
    if not columns:
        raise ValueError(f"there are no {metric!r} scores to make a matrix of")
    rows = [(name, *(_number(row.get(d), digits) for d in columns)) for name, row in cells.items()]
    header = (title, *columns)
    if mean and len(set(columns.values())) == 1:
        whole = [row if len(row) == len(columns) else {} for row in cells.values()]
        means = [sum(row.values()) / len(row) if row else None for row in whole]
        rows = [(*row, _number(value, digits)) for row, value in zip(rows, means, strict=True)]
        header = (*header, "mean")
    notes = tuple(
        f"{TITLES.get(metric, metric)}, {' '.join(d for d in columns if columns[d] == s)}: {s}"
        for s in dict.fromkeys(columns.values())
    )
    return Table(header, tuple(rows), notes)


def diagnosis_table(diagnoses: Mapping[str, Diagnosis | Mapping[str, Any]]) -> Table:
    """Return directions by what can be wrong, as count out of what could be judged."""
    rows = {
        direction: d.to_dict() if isinstance(d, Diagnosis) else d
        for direction, d in diagnoses.items()
    }
    names = [n for n in Diagnosis.__annotations__ if any(_is_rate(r.get(n)) for r in rows.values())]
    cells = tuple(
        (direction, *(_fraction(row.get(n)) for n in names), _number(row["length_ratio"], 2))
        for direction, row in rows.items()
    )
    return Table(("direction", *(n.replace("_", " ") for n in names), "length ratio"), cells)


def comparison_table(
    comparisons: Sequence[Comparison], verdicts: Sequence[Verdict], *, note: str = ""
) -> Table:
    """Return systems in directions, with what each comparison proves.

    A note, such as which system the baseline is, stands below.

    Raises:
        ValueError: several metrics.
    """
    if len(metrics := {c.metric for c in comparisons}) > 1:
        raise ValueError(f"a comparison shows one metric and got {', '.join(sorted(metrics))}")
    rows = tuple(
        (
            f"{c.direction} {c.name}",
            _number(c.baseline),
            _number(c.system),
            f"{c.difference:+.1f}",
            "{:+.1f} to {:+.1f}".format(*c.interval),
            f"{c.p:.4f}",
            f"{c.p_holm:.4f}",
            verdict.text(),
        )
        for c, verdict in zip(comparisons, verdicts, strict=True)
    )
    directions: dict[str, dict[str, None]] = {}
    for c in comparisons:
        directions.setdefault(c.signature, {})[c.direction] = None
    title = TITLES.get(comparisons[0].metric, comparisons[0].metric) if comparisons else ""
    notes = (f"{' '.join(own)}, {title}: {signature}" for signature, own in directions.items())
    header = ("direction, run", "baseline", "system", "difference", "95 %", "p", "p (Holm)")
    tests = f"p (Holm) over {len(comparisons)} tests"
    return Table((*header, "verdict"), rows, tuple(filter(None, (note, tests, *notes))))


def row_scores(row: Results) -> list[Score]:
    """Return the scores of a direction, of a row that holds other results as well."""
    if not isinstance(row, Mapping):
        return list(row)
    values = {name: v for name, v in row.items() if isinstance(v, Mapping) and "signature" in v}
    return [Score(name, float(v["value"]), v["signature"]) for name, v in values.items()]


def _title(name: str, signature: str, columns: Iterable[tuple[str, str]]) -> str:
    """Return the metric's name, and what tells this signature of it from the others, if any."""
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


def _is_rate(value: object) -> bool:
    return isinstance(value, Mapping) and "of" in value


def _fraction(rate: Mapping[str, Any] | None) -> str:
    return f"{rate['count']}/{rate['of']}" if rate and rate["of"] else _MISSING
