"""The counts of the data as a page of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from polylect.data.audit.counts import Counts, splits, warnings

_TITLES = {"too_long": "too long", "per_epoch": "per epoch", "other_languages": "other languages"}


def counts_page(data: Any) -> str:
    """Return the table of `data.report` after `complete_report`, and what is to be warned of.

    A direction has a line, and below it one for each of its corpora where there are several.
    """
    reasons = dict.fromkeys(
        reason
        for directions in data.report.values()
        for counts in directions.values()
        for reason in counts["dropped"]
    )
    columns = ["read", *reasons, "too_long", "left", "per_epoch"]
    rows = [["data", *(_TITLES.get(column, column) for column in columns)]]
    is_estimate = False
    for split in splits(data):
        for direction, counts in data.report[split].items():
            rows.append([f"{split} {direction}", *_cells(counts, columns)])
            is_estimate |= 0 < counts["measured"] < counts["kept"]
            if len(counts["corpora"]) > 1:
                rows += [[f"  {p['corpus']}", *_cells(p, columns)] for p in counts["corpora"]]
    lines = [table(rows)]
    if data.tokenizer is None:
        lines.append("? not counted, as there is no tokenizer; what is left may be fewer")
    if is_estimate:
        lines.append("~ estimated from a part of the pairs; what is really left out is counted")
    return "\n".join([*lines, *(f"warning: {warning}" for warning in warnings(data))])


def _cells(counts: Counts, columns: Sequence[str]) -> list[str]:
    flat: Mapping[str, Any] = {**counts["dropped"], **counts}
    exact = counts["measured"] == counts["kept"] or not counts["too_long"]
    cells = []
    for column in columns:
        mark = "" if exact or column not in ("too_long", "left", "per_epoch") else "~"
        if column == "too_long" and not counts["measured"] and counts["kept"]:
            cells.append("?")
            continue
        absent = "" if column == "per_epoch" else "0"
        cells.append(f"{mark}{flat[column]:,}" if column in flat else absent)
    return cells


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as aligned columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )
    return "\n".join(map(str.rstrip, lines))


def percent(share: float) -> str:
    """Return the share in percent, with a decimal where a whole number would hide it."""
    return f"{share:.0%}" if share in (0, 1) else f"{share:.1%}"
