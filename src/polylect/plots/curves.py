"""Reads a run's metrics.csv and draws curves of it over the optimizer steps."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polylect.plots.figures import NOTHING, Figure, new_figure

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe, Ito
DASHES = ("-", "--", ":", "-.")  # when the colours are used up
MOST_LINES = 14  # with a colour and a name each; more of them are told by their extremes

Points = list[tuple[int, float]]
"""(optimizer step, value), in their order."""


def read_metrics(folder: str | Path) -> dict[str, Points]:
    """Return the values of each metric that a run has logged, by its name.

    Raises:
        FileNotFoundError: the run folder has no metrics.csv.
    """
    path = Path(folder) / "metrics.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: train with logger=csv.")
    metrics: dict[str, Points] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name != "step":
                    metrics.setdefault(name, []).append((int(row["step"]), float(value)))
    return metrics


def of_training(folder: str | Path) -> dict[str, Figure]:
    """Return the curves of a training, by name; none of what the run has not logged."""
    metrics = read_metrics(folder)
    figures = {}
    if any(name in metrics for name in ("train/loss", "val/loss", "train/lr")):
        figures["training"] = training(metrics)
    if any(by_direction(metrics, name) for name, *_ in _PANELS):
        figures["directions"] = directions(metrics)
    return figures


def training(metrics: Mapping[str, Points]) -> Figure:
    """Return the loss on training and validation text, and the learning rate, over the steps."""
    picture = new_figure(6.4, 5.2)
    upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _line(upper, metrics.get("train/loss", []), color="#aaaaaa", linewidth=1, label="one step")
    running = _mean_of_steps(by_direction(metrics, "train/running"))
    _line(upper, running, color=LINES[0], label="training, running mean over directions")
    best = metrics.get("val/loss", [])
    _line(upper, best, color=LINES[1], marker="o", label="validation")
    upper.set(ylabel="loss (nats per target token)", title="loss")
    upper.legend(frameon=False)
    _line(lower, metrics.get("train/lr", []), color="black")
    lower.set(xlabel="optimizer step", ylabel="learning rate", ylim=(0, None))
    lower.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    for axes in (upper, lower):
        axes.grid(color=NOTHING, linewidth=0.5)
    return picture


def by_direction(metrics: Mapping[str, Points], name: str) -> dict[str, Points]:
    """Return the values of `name/<direction>` by direction."""
    own = {key.removeprefix(f"{name}/"): key for key in metrics if key.startswith(f"{name}/")}
    return {direction: metrics[key] for direction, key in sorted(own.items())}


_PANELS = (
    ("train/running", "training loss, running mean", "nats per target token"),
    ("val/loss", "validation loss", "nats per target token"),
    ("val/chrf", "validation chrF++", "chrF++ (0 to 100)"),
)


def directions(metrics: Mapping[str, Points]) -> Figure:
    """Return loss and chrF++ of each direction over the steps: a panel for each that was logged."""
    logged = [(by_direction(metrics, name), *texts) for name, *texts in _PANELS]
    logged = [panel for panel in logged if panel[0]]
    return _panels(logged, sorted({direction for lines, *_ in logged for direction in lines}))


def _panels(logged: Sequence[tuple[dict[str, Points], str, str]], names: Sequence[str]) -> Figure:
    """Return a panel for lines by name, title and unit; with one legend where names are few."""
    picture = new_figure(4.2 * len(logged) + 1.4, 3.8)
    panels = picture.subplots(1, len(logged), squeeze=False)[0]
    for axes, (lines, title, unit) in zip(panels, logged, strict=True):
        draw_directions(axes, lines, names)
        axes.set(title=title, xlabel="optimizer step", ylabel=unit)
        axes.grid(color=NOTHING, linewidth=0.5)
    if len(names) <= MOST_LINES:
        direction_legend(picture, panels, names)
    return picture


_OF_RUNS = (
    ("val/loss", "validation loss", "nats per target token"),
    ("train/running", "training loss, mean of directions", "nats per target token"),
    ("val/chrf", "validation chrF++, mean of directions", "chrF++ (0 to 100)"),
)


def training_of_runs(metrics: Mapping[str, Mapping[str, Points]]) -> Figure | None:
    """Return loss and chrF++ of several runs over the steps: a panel for each that any logged.

    Args:
        metrics: of each run, by its name, what `read_metrics` returns.

    Returns:
        None where no run has logged any of it.
    """
    logged = [
        ({run: p for run, own in metrics.items() if (p := _of_run(own, name))}, *texts)
        for name, *texts in _OF_RUNS
    ]
    logged = [panel for panel in logged if panel[0]]
    return _panels(logged, list(metrics)) if logged else None


def _of_run(metrics: Mapping[str, Points], name: str) -> Points:
    """Return a metric of a whole run: as it was logged, or the mean over its directions."""
    return metrics.get(name) or _mean_of_steps(by_direction(metrics, name))


def draw_directions(axes: Any, lines: Mapping[str, Points], names: Sequence[str]) -> None:
    """Draw a line per direction; those of the same name are alike in all panels.

    Where they are more than can be told apart, all are grey but the three that end lowest and the
    three that end highest, which are named at their ends.
    """
    many = len(names) > MOST_LINES
    ends = sorted((points[-1][1], name) for name, points in lines.items()) if many else []
    named = [name for _, name in (*ends[:3], *ends[-3:])]
    for index, name in enumerate(names):
        style = line_style(index)
        if many:
            i = named.index(name) if name in named else None
            style = {"color": NOTHING, "linewidth": 0.8} if i is None else line_style(i)
        points = lines.get(name, [])
        _line(axes, points, label=name, marker="." if len(points) < 20 else "", **style)
        if many and name in named:
            axes.annotate(name, points[-1], xytext=(4, 0), textcoords="offset points", va="center")


def line_style(index: int) -> dict[str, str]:
    """Return colour and dashes of the line with that number."""
    return {
        "color": LINES[index % len(LINES)],
        "linestyle": DASHES[index // len(LINES) % len(DASHES)],
    }


def direction_legend(picture: Figure, panels: Iterable[Any], names: Sequence[str]) -> None:
    """Add one legend for all panels, of all directions that any of them shows."""
    handles: dict[str, Any] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    names = [name for name in names if name in handles]
    picture.legend(
        [handles[name] for name in names], names, loc="outside right upper", frameon=False
    )


def _line(axes: Any, points: Points, **options: Any) -> None:
    if points:
        axes.plot(*zip(*points, strict=True), **options)


def _mean_of_steps(lines: Mapping[str, Points]) -> Points:
    """Return the mean over the directions at each step."""
    steps: dict[int, list[float]] = {}
    for points in lines.values():
        for step, value in points:
            steps.setdefault(step, []).append(value)
    return [(step, sum(values) / len(values)) for step, values in sorted(steps.items())]
