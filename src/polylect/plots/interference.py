"""What directions do to each other: cosines of the ledger's files, and responsibility maps."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from polylect.plots.curves import MOST_LINES, draw_directions
from polylect.plots.figures import NOTHING, Figure, heat_map, heat_map_size, new_figure

LEDGER = Path("ledger") / "cosines.csv"  # of a run folder
ALL = "all"  # layers

Cosines = dict[str, dict[tuple[str, str], list[tuple[int, float]]]]
"""By layer and pair of directions: optimizer step and cosine."""


def read_cosines(folder: str | Path) -> Cosines:
    """Return what a run's ledger has; raises FileNotFoundError where there is none."""
    path = Path(folder) / LEDGER
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: train with callbacks=ledger.")
    cosines: Cosines = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            points = cosines.setdefault(row["layer"], {})
            own = points.setdefault((row["direction"], row["other"]), [])
            if row["cosine"]:
                own.append((int(row["step"]), float(row["cosine"])))
    return cosines


def interference(folder: str | Path) -> Figure:
    """Draw the mean cosine of each pair of directions, that of each layer, and the history.

    Left a matrix of directions over all layers; in the middle the layers, with the mean over the
    pairs, the lowest and the highest pair; right the pairs over the steps.
    """
    cosines = read_cosines(folder)
    pairs = list(cosines[ALL])
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    picture = new_figure(13.0, 4.2)
    left, middle, right = picture.subplots(1, 3)
    options = {"text": "{:.2f}", "cmap": "PuOr", "vmin": -1, "vmax": 1}
    title = "mean over the steps, all layers"
    heat_map(left, _matrix(cosines, names), names, names, title, "cosine", **options)
    _draw_layers(middle, cosines)
    lines = {" / ".join(pair): points for pair, points in cosines[ALL].items() if points}
    draw_directions(right, lines, list(lines))
    right.axhline(0, color="black", linewidth=0.8)
    right.set(title="all layers", xlabel="optimizer step", ylabel="cosine of the gradients")
    if len(lines) <= MOST_LINES:
        right.legend(frameon=False, fontsize="small")
    for axes in (middle, right):
        axes.grid(color=NOTHING, linewidth=0.5)
    return picture


def responsibility(
    changes: Sequence[tuple[str, str, float]], agreement: Mapping[str, float | None]
) -> Figure:
    """Draw what each direction loses without each part, and how far the method's own usage agrees.

    Args:
        changes: part, direction, and change of the loss in nats per target token.
        agreement: rank correlation by direction.
    """
    parts = list(dict.fromkeys(part for part, *_ in changes))
    names = list(dict.fromkeys(direction for _, direction, _ in changes))
    values = torch.full((len(parts), len(names)), torch.nan)
    for part, direction, change in changes:
        values[parts.index(part), names.index(direction)] = change
    most = float(values.abs().nan_to_num().max()) or 1.0
    picture = new_figure(*heat_map_size(len(parts), len(names)))
    axes = picture.subplots()
    unit = "nats per target token lost without it"
    heat_map(
        axes, values, parts, names, "responsibility", unit,
        text="{:.2f}", cmap="PuOr_r", vmin=-most, vmax=most,
    )  # fmt: skip
    told = [f"{d}\n{'-' if agreement[d] is None else f'{agreement[d]:.2f}'}" for d in names]
    axes.set_xticks(range(len(names)), told, rotation=90 if len(names) > 4 else 0)
    axes.set_xlabel("direction, and rank correlation with usage")
    return picture


def _matrix(cosines: Cosines, names: list[str]) -> Float[Tensor, "directions directions"]:
    values = torch.full((len(names), len(names)), torch.nan)
    for (one, other), points in cosines[ALL].items():
        i, j = names.index(one), names.index(other)
        values[i, j] = values[j, i] = _mean(points)
    return values


def _draw_layers(axes: object, cosines: Cosines) -> None:
    layers = [layer for layer in cosines if layer != ALL]
    means = [[_mean(points) for points in cosines[layer].values()] for layer in layers]
    known = [[value for value in own if value == value] for own in means]
    places = [i for i, own in enumerate(known) if own]
    axes.plot([min(known[i]) for i in places], places, ".", color="#D55E00", label="lowest pair")
    axes.plot([sum(known[i]) / len(known[i]) for i in places], places, "ok", label="mean of pairs")
    axes.plot([max(known[i]) for i in places], places, ".", color="#0072B2", label="highest pair")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(layers)), layers, fontsize="small" if len(layers) < 20 else 5)
    axes.invert_yaxis()
    axes.set(title="mean over the steps", xlabel="cosine of the gradients")
    axes.legend(frameon=False, fontsize="small")


def _mean(points: list[tuple[int, float]]) -> float:
    return sum(value for _, value in points) / len(points) if points else float("nan")
