"""Forest plots: measured values with their intervals, each against what it was expected to be."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

from polylect.plots.figures import Figure, new_figure

COLORS = {
    "holds": "#0072b2",
    "better": "#0072b2",
    "equivalent": "#009e73",
    "fails": "#d55e00",
    "worse": "#d55e00",
    "undecided": "#777777",
}
"""By verdict; any colour vision tells them apart."""

EXPECTED = "#e4e4e4"
_LETTERS = 58  # of a label's line
_LINE, _ROW = 0.15, 0.14  # inches


@dataclass(frozen=True)
class Row:
    """A value with its interval.

    Attributes:
        label: what was measured.
        expected: lowest and highest value that was asked for, infinite where there is no bound;
            None where nothing was.
        verdict: key of `COLORS`.
    """

    label: str
    value: float
    low: float
    high: float
    expected: tuple[float, float] | None
    verdict: str


def forest(panels: Mapping[str, Sequence[Row]], expected: str) -> Figure:
    """Draw a panel for each unit, with a row for each value.

    Args:
        panels: rows by the unit of their values.
        expected: what the grey bands are, for the legend.
    """
    labels = {unit: [wrap(row.label, _LETTERS) for row in rows] for unit, rows in panels.items()}
    heights = [sum(_ROW + _LINE * len(label) for label in own) + 0.5 for own in labels.values()]
    figure = new_figure(9.0, sum(heights) + 0.4)
    columns = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (unit, rows) in zip(columns, panels.items(), strict=True):
        left, right = _limits(rows)
        for place, row in enumerate(rows):
            if row.expected is not None:
                low, high = max(row.expected[0], left), min(row.expected[1], right)
                axes.barh(place, high - low, left=low, height=0.8, color=EXPECTED, zorder=0)
            color = COLORS[row.verdict]
            axes.plot([row.low, row.high], [place, place], color=color, linewidth=1.5)
            axes.plot(row.value, place, "o", color=color)
        texts = ["\n".join(label) for label in labels[unit]]
        axes.set_yticks(range(len(rows)), texts, fontsize="small")
        axes.set(xlabel=unit, xlim=(left, right), ylim=(len(rows) - 0.4, -0.6))
        if left < 0 < right:
            axes.axvline(0, color="#999999", linestyle=":", linewidth=1)
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    verdicts = dict.fromkeys(row.verdict for rows in panels.values() for row in rows)
    marks = [Line2D([], [], color=COLORS[v], marker="o", label=v) for v in verdicts]
    if any(row.expected for rows in panels.values() for row in rows):
        marks.append(Patch(color=EXPECTED, label=expected))
    figure.legend(handles=marks, loc="outside upper right", ncols=len(marks), fontsize="small")
    return figure


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the ends of an axis that shows all intervals and the bounds that there are."""
    bounds = [bound for row in rows for bound in row.expected or () if math.isfinite(bound)]
    ends = [*(row.low for row in rows), *(row.high for row in rows), *bounds]
    room = 0.06 * (max(ends) - min(ends)) or 1.0
    return min(ends) - room, max(ends) + room
