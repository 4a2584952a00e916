"""A setting that was varied: what it gives here, beside what others have published of it."""

from collections.abc import Mapping, Sequence

from polylect.plots.curves import LINES
from polylect.plots.figures import Figure, new_figure

Curve = Mapping[float, float]
"""A score by the value of the setting."""


def study(
    published: Mapping[str, Curve],
    measured: Mapping[str, Mapping[float, Sequence[float]]],
    setting: str,
    metric: str,
    chosen: float,
) -> Figure:
    """Draw two panels over one axis: published curves above, ours below with all seeds as points.

    The panels have scales of their own, since bases and test sets differ: what compares is where
    the curves bend, and by how much of their height.

    Args:
        published: curves of others, by name.
        measured: by name, for every value of the setting the scores of the seeds.
        setting: what was varied.
        metric: of both.
        chosen: the value that others chose, for a line.
    """
    picture = new_figure(6.4, 5.4)
    panels = picture.subplots(2, 1, sharex=True)
    for axes, title in zip(panels, ("published", "here"), strict=True):
        axes.axvline(chosen, color="#bbbbbb", linestyle=":", zorder=0)
        axes.set(title=title, ylabel=metric)
    for color, (name, curve) in zip(LINES, published.items(), strict=False):
        places = sorted(curve)
        panels[0].plot(places, [curve[p] for p in places], "o-", color=color, label=name)
    for color, (name, scores) in zip(LINES, measured.items(), strict=False):
        places = sorted(scores)
        means = [sum(scores[p]) / len(scores[p]) for p in places]
        panels[1].plot(places, means, "-", color=color, label=name)
        points = [(p, value) for p in places for value in scores[p]]
        panels[1].plot(*zip(*points, strict=True), "o", color=color, alpha=0.7)
    if not measured:
        panels[1].text(0.5, 0.5, "no runs", ha="center", transform=panels[1].transAxes)
    for axes in panels:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small")
    panels[1].set_xlabel(f"{setting} (dotted: what was chosen there)")
    return picture
