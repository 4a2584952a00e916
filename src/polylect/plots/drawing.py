"""Figures without pyplot, heat maps, and PNG files."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

FOLDER = "plots"  # of a run folder
DOTS_PER_INCH = 150
MOST_ANNOTATED = 12  # rows or columns of a heat map; numbers in more of them cannot be read
NOTHING = "#dddddd"  # cells without a value

Figure = Any
"""A matplotlib.figure.Figure; only functions that make one import matplotlib."""


class MissingMatplotlib(ValueError):
    """A picture was asked for, and matplotlib is not installed."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingMatplotlib(
            "pictures need matplotlib: pip install 'polylect[plots]'."
        ) from error
    return Figure((width, height), layout="constrained")


def heat_map_size(rows: int, columns: int) -> tuple[float, float]:
    """Inches of a heat map with its labels and its colour bar."""
    width = 0.6 if columns <= MOST_ANNOTATED else 0.25
    height = 0.45 if rows <= MOST_ANNOTATED else 0.2
    return max(2.0 + width * columns, 3.2), max(1.6 + height * rows, 2.4)


def heat_map(
    axes: Any,
    values: Float[Tensor, "rows columns"],
    rows: Sequence[Any],
    columns: Sequence[str],
    title: str,
    unit: str,
    *,
    text: str,
    cmap: str = "cividis",
    **options: Any,
) -> Any:
    """A heat map; returns its colour bar.

    Args:
        axes: to draw into.
        values: one per cell; NaN for none.
        rows: their names.
        columns: directions.
        title: what the values are.
        unit: of the values.
        text: format of the numbers in the cells, where they are few.
        cmap: colours that any colour vision tells apart.
        options: of `imshow`.
    """
    from matplotlib import colormaps

    colours = colormaps[cmap].with_extremes(bad=NOTHING)
    shown = axes.imshow(values.double().numpy(), cmap=colours, aspect="auto", **options)
    bar = axes.figure.colorbar(shown, ax=axes, label=unit)
    axes.set_title(title, fontsize="medium")
    axes.set_xticks(range(len(columns)), columns, rotation=90 if len(columns) > 4 else 0)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("direction")
    if max(len(rows), len(columns)) > MOST_ANNOTATED:
        return bar
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            if value == value:  # not NaN
                color = "white" if sum(shown.to_rgba(value)[:3]) < 1.5 else "black"
                axes.text(j, i, text.format(value), ha="center", va="center", color=color)
    return bar


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(partial, format="png", dpi=DOTS_PER_INCH)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_all(make: Callable[[], Mapping[str, Figure]], folder: Path) -> dict[str, Path]:
    """Save figures under `folder/plots`; without matplotlib, say how to get it.

    Args:
        make: returns the figures by name.
        folder: of the run.

    Returns:
        The files by name.
    """
    try:
        figures = make()
    except MissingMatplotlib as error:
        print(f"no pictures: {error}")
        return {}
    files = {name: folder / FOLDER / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        save(figure, files[name])
    return files
