"""Figures without pyplot, heat maps, and PNG files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from polylect.files import whole_file

FOLDER = "plots"  # of a run folder
DOTS_PER_INCH = 150
MOST_ANNOTATED = 16  # rows or columns of a heat map; numbers in more of them cannot be read
NOTHING = "#dddddd"  # cells without a value

Figure = Any
"""A matplotlib.figure.Figure; only functions that make one import matplotlib."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure in whose texts any script can be read; sizes in inches."""
    from polylect.plots.fonts import ReadableFigure

    return ReadableFigure((width, height), layout="constrained")


def heat_map_size(rows: int, columns: int) -> tuple[float, float]:
    """Return the inches of a heat map with its labels and its colour bar."""
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
    chance: float | None = None,
    **options: Any,
) -> Any:
    """Draw a heat map; returns its colour bar.

    Args:
        axes: to draw into.
        values: one per cell; NaN for none.
        rows: their names.
        columns: directions.
        title: what the values are.
        unit: of the values.
        text: format of the numbers in the cells, where they are few.
        cmap: colours that any colour vision tells apart.
        chance: the value that chance gives, for a line in the colour bar.
        options: of `imshow`.
    """
    from matplotlib import colormaps

    colours = colormaps[cmap].with_extremes(bad=NOTHING)
    image = axes.imshow(values.double().numpy(), cmap=colours, aspect="auto", **options)
    bar = axes.figure.colorbar(image, ax=axes, label=unit)
    if chance is not None:
        bar.ax.axhline(chance, color="red", linewidth=1.5)
        bar.set_label(f"{unit} (red: by chance, {text.format(chance)})")
    axes.set_title(title, fontsize="medium")
    axes.set_xticks(range(len(columns)), columns, rotation=90 if len(columns) > 4 else 0)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xlabel("direction")
    if max(len(rows), len(columns)) > MOST_ANNOTATED:
        return bar
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            if value == value:  # not NaN
                color = "white" if sum(image.to_rgba(value)[:3]) < 1.5 else "black"
                axes.text(j, i, text.format(value), ha="center", va="center", color=color)
    return bar


def token_axis(axes: Any, tokens: Sequence[str]) -> None:
    """Label the columns with the texts of tokens, read upwards; white space has signs."""
    texts = [token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") for token in tokens]
    axes.set_xticks(range(len(texts)), texts, rotation=90)
    for label in axes.get_xticklabels():
        label.set_parse_math(False)  # a token may be "$x$"


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with whole_file(Path(path)) as partial:
        figure.savefig(partial, format="png", dpi=DOTS_PER_INCH)


def save_all(folder: Path, *makers: Callable[[], Mapping[str, Figure]]) -> dict[str, Path]:
    """Save figures under `folder/plots`. What cannot be drawn or saved is a warning, no error.

    Args:
        folder: of the run.
        makers: each returns figures by name.

    Returns:
        The files by name.
    """
    files = {}
    for make in makers:
        try:
            for name, figure in make().items():
                path = folder / FOLDER / f"{name}.png"
                save(figure, path)
                files[name] = path
        except Exception as error:  # hours of training must not end as failed for a picture
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"warning: pictures are missing in {folder / FOLDER} ({reason}).", flush=True)
    return files
