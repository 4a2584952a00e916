"""Pictures of the openness of gates, by layer and direction, from what a run has logged."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from polylect.plots.curves import Points, direction_legend, draw_directions, read_metrics
from polylect.plots.figures import NOTHING, Figure, heat_map, heat_map_size, new_figure


def openness(folder: str | Path) -> dict[int, dict[str, Points]]:
    """Return what a run has logged of its gates:
    layer to direction to (optimizer step, mean openness).

    Raises:
        FileNotFoundError: the run folder has no metrics.csv.
        ValueError: no gate is in it.
    """
    layers: dict[int, dict[str, Points]] = {}
    for name, points in read_metrics(folder).items():
        if match := re.fullmatch(r"routing/layer_(\d+)/openness/(.+)", name):
            layers.setdefault(int(match[1]), {})[match[2]] = points
    if not layers:
        raise ValueError(
            f"{folder}/metrics.csv tells of no gate: train strategy=landermt with strategy.gate."
        )
    return {layer: dict(sorted(layers[layer].items())) for layer in sorted(layers)}


def of_gates(folder: str | Path) -> dict[str, Figure]:
    """Return all pictures of the gates of a run, by name."""
    return {"gates": gates(folder), "gates_over_steps": gates_over_steps(folder)}


def gates(folder: str | Path) -> Figure:
    """Draw a heat map of layers by directions: how far gates were open when last logged.

    1 lets general neurons through alone, 0 specific ones. Training adds noise to the gates.
    """
    layers = openness(folder)
    directions = _directions(layers)
    last = [[_last(lines.get(d, [])) for d in directions] for lines in layers.values()]
    picture = new_figure(*heat_map_size(len(layers), len(directions)))
    axes = picture.subplots()
    heat_map(
        axes,
        torch.tensor(last),
        list(layers),
        directions,
        "openness of gates when last logged\n(0 specific, 1 general neurons)",
        "mean over tokens",
        text="{:.2f}",
        cmap="PuOr",
        origin="lower",
        vmin=0,
        vmax=1,
    )
    axes.set_ylabel("layer")
    return picture


def gates_over_steps(folder: str | Path) -> Figure:
    """Draw how far gates were open over the training: a panel per layer, a line per direction."""
    layers = openness(folder)
    directions = _directions(layers)
    columns = min(len(layers), 4)
    rows = -(-len(layers) // columns)
    picture = new_figure(2.4 * columns + 1.4, 2.2 * rows + 0.6)
    panels = picture.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for axes, (layer, lines) in zip(panels, layers.items(), strict=False):
        draw_directions(axes, lines, directions)
        axes.set(title=f"layer {layer}", xlabel="optimizer step", ylim=(-0.02, 1.02))
        axes.axhline(0.5, color=NOTHING, linewidth=0.8, zorder=0)  # where learnt gates begin
    for axes in panels[len(layers) :]:
        axes.remove()
    for axes in panels[: len(layers) : columns]:
        axes.set_ylabel("mean openness\n(0 specific, 1 general)")
    direction_legend(picture, panels[: len(layers)], directions)
    return picture


def _directions(layers: Mapping[int, Mapping[str, Any]]) -> list[str]:
    return sorted({direction for lines in layers.values() for direction in lines})


def _last(line: Sequence[tuple[int, float]]) -> float:
    return line[-1][1] if line else float("nan")
