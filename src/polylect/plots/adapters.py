"""Pictures of the adapters that a router chose, along a sentence and on the whole."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.files import read_json
from polylect.layers.tokens import SIDES
from polylect.library import AdapterLibrary
from polylect.library.adapter import LowRank
from polylect.plots.curves import LINES
from polylect.plots.figures import Figure, heat_map, heat_map_size, new_figure, token_axis

Traced = Mapping[tuple[str, str], tuple[Sequence[str], Int[Tensor, "rows length"]]]
"""What `LAG.trace` returns."""

_MEASURES = {
    "update": ("cosine of the updates", {"vmin": -1, "vmax": 1, "cmap": "PuOr"}),
    "arrow": ("|cosine| of the arrows", {"vmin": 0, "vmax": 1}),
    "subspace": ("overlap of the input spaces", {"vmin": 0, "vmax": 1}),
}


def similarity(path: str | Path) -> Figure:
    """Draw heat maps of adapters by adapters from the file of `polylect library action=compare`.

    One for each measure, over all of its range. The diagonal, on which all are alike, is left away.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: polylect library action=compare out=FILE.")
    comparison = read_json(path, "what is to be drawn")
    if not isinstance(comparison, dict) or not {"adapters", *_MEASURES} <= comparison.keys():
        raise ValueError(f"{path} is not what polylect library action=compare out=FILE writes.")
    names = comparison["adapters"]
    width, height = heat_map_size(len(names), len(names))
    picture = new_figure(len(_MEASURES) * width, height)
    panels = picture.subplots(1, len(_MEASURES), sharey=True)
    for axes, (measure, (title, options)) in zip(panels, _MEASURES.items(), strict=True):
        values = [[float("nan") if v is None else v for v in row] for row in comparison[measure]]
        matrix = torch.tensor(values)
        matrix.fill_diagonal_(torch.nan)
        unit = "mean over layers (by chance near 0)"
        heat_map(axes, matrix, names, names, title, unit, text="{:.2f}", **options)
        axes.set_xlabel("adapter")
    panels[0].set_ylabel("adapter")
    return picture


def of_routing(rows: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Return all pictures of what `LAG.routing_rows` returns, by name; none if nothing was counted.

    With several libraries the names end in theirs.
    """
    figures = {}
    libraries = list(dict.fromkeys(row["library"] for row in rows))
    for library in libraries:
        ending = f"_{library}" if len(libraries) > 1 else ""
        own = [row for row in rows if row["library"] == library]
        figures[f"adapter_shares{ending}"] = adapter_shares(own)
        if any(row["agreement"] is not None for row in own):
            figures[f"routing_accuracy{ending}"] = routing_accuracy(own)
    return figures


def adapter_shares(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw heat maps of directions by adapters: shares of the tokens, over all layers."""
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    adapters = sorted({name for row in rows for name in row["shares"]})
    values = [
        [_shares([r for r in of_side if r["direction"] == d], adapters) for d in directions]
        for of_side in _sides(rows)
    ]
    chance = 100 / len(adapters)
    title = "tokens of each adapter"
    return _source_and_target(torch.tensor(values), directions, adapters, title, chance, "adapter")


def routing_accuracy(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw heat maps of layers by directions: how many tokens got the adapter that serves them."""
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    values = torch.full((len(SIDES), len(layers), len(directions)), torch.nan)
    for side, of_side in zip(values, _sides(rows), strict=True):
        for row in of_side:
            if row["agreement"] is not None:
                place = layers.index(row["layer"]), directions.index(row["direction"])
                side[place] = row["agreement"]
    chance = 100 / len({name for row in rows for name in row["shares"]})
    title = "tokens with the right adapter"
    return _source_and_target(values, short_names(layers), directions, title, chance)


def token_choices(
    traced: Traced,
    tokens: Sequence[str],
    prompt: int,
    *,
    row: int = 0,
    library: str | None = None,
    title: str = "",
) -> Figure:
    """Return the adapter of each token in each layer, along one sentence.

    Args:
        traced: from `LAG.trace`.
        tokens: the texts of the row's tokens, without padding.
        prompt: how many of them are the source's.
        row: of the batch.
        library: whose adapters; None where there is one.
        title: of the picture.

    Raises:
        ValueError: another number of tokens, or no such library.
    """
    layers = {path: choice for (name, path), choice in traced.items() if library in (None, name)}
    if not layers:
        raise ValueError(f"the trace has no library {library!r}: give one of strategy.library.")
    names = sorted({name for adapters, _ in layers.values() for name in adapters})
    values = torch.stack(
        [
            _positions_among(adapters, strongest[row], names)
            for adapters, strongest in layers.values()
        ]
    )  # (layers, length)
    if values.shape[1] != len(tokens):
        raise ValueError(
            f"row {row} of the trace has {values.shape[1]} tokens, {len(tokens)} texts were given."
        )
    return _coloured(values, short_names(layers), tokens, names, prompt, title)


def short_names(layers: Iterable[str]) -> list[str]:
    """Return "3 q_proj" for "model.layers.3.self_attn.q_proj"."""
    parts = [layer.split(".") for layer in layers]
    return [" ".join([*(p for p in path if p.isdigit()), path[-1]]) for path in parts]


def _positions_among(
    adapter_names: Sequence[str], positions: Tensor, names: Sequence[str]
) -> Tensor:
    """Return the selected adapters' positions among all names, without padding."""
    places = torch.tensor([names.index(name) for name in adapter_names])
    return places[positions[positions >= 0].cpu()]


def _coloured(
    values: Tensor,
    layers: Sequence[str],
    tokens: Sequence[str],
    names: Sequence[str],
    prompt: int,
    title: str,
) -> Figure:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    picture = new_figure(3 + 0.3 * len(tokens), 1.6 + 0.16 * len(layers))
    axes = picture.subplots()
    colours = _colours(len(names))
    axes.imshow(
        values.numpy(),
        cmap=ListedColormap(colours),
        aspect="auto",
        interpolation="nearest",
        vmin=-0.5,
        vmax=len(names) - 0.5,
    )
    axes.axvline(prompt - 0.5, color="black", linewidth=2)  # here the translation begins
    token_axis(axes, tokens)
    axes.set_yticks(range(len(layers)), layers, fontsize=6)
    axes.set(xlabel="source | translation", ylabel="layer", title=title)
    patches = [Patch(color=c, label=n) for c, n in zip(colours, names, strict=True)]
    picture.legend(handles=patches, loc="outside right upper", frameon=False)
    return picture


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    if count <= len(LINES):
        return list(LINES[:count])
    many = colormaps["tab20"].colors
    return [many[i % len(many)] for i in range(count)]


def _sides(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    return [[row for row in rows if row["side"] == side] for side in SIDES]


def _shares(rows: Sequence[Mapping[str, Any]], adapters: Sequence[str]) -> list[float]:
    """Return the share of each adapter in the tokens of all layers; NaN without tokens."""
    tokens = sum(row["tokens"] for row in rows)
    return [
        sum(row["tokens"] * row["shares"].get(name, 0.0) for row in rows) / tokens
        if tokens
        else float("nan")
        for name in adapters
    ]


def _source_and_target(
    values: Float[Tensor, "sides rows columns"],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    chance: float,
    across: str = "direction",
) -> Figure:
    """Return a heat map for the source and one for the translation, in percent."""
    width, height = heat_map_size(len(rows), len(columns))
    picture = new_figure(2 * width, height)
    panels = picture.subplots(1, 2, sharey=True)
    for axes, side, of_side in zip(panels, SIDES, 100 * values, strict=True):
        options = {"text": "{:.0f}", "chance": chance, "vmin": 0, "vmax": 100}
        heat_map(axes, of_side, rows, columns, f"{title}: {side}", "%", **options)
        axes.set_xlabel(across)
    return picture


def transfer(measured: Mapping[str, Any]) -> Figure:
    """Return a heat map of adapters by directions: what an adapter does to the loss of a direction.

    0 is the base alone; below it an adapter helps, above it harms. On the diagonal of adapters that
    serve one direction each stands what they have learnt, elsewhere what comes of it for others.

    Args:
        measured: what `LoRASwitch.transfer` returns.
    """
    losses, base = torch.tensor(measured["loss"]), torch.tensor(measured["base"])
    change = losses - base
    most = max(change.abs().max().item(), 1e-3)
    names, directions = measured["adapters"], measured["directions"]
    picture = new_figure(*heat_map_size(len(names), len(directions)))
    axes = picture.subplots()
    title = "validation loss with an adapter,\nminus that of the base alone"
    unit = "nats per target token\n(below 0: it helps)"
    options = {"text": "{:+.2f}", "cmap": "PuOr_r", "vmin": -most, "vmax": most}
    heat_map(axes, change, names, directions, title, unit, **options)
    axes.set_ylabel("adapter")
    return picture


def update_overlap(library: AdapterLibrary) -> Figure:
    """Draw a heat map of adapters by adapters: cosine of their updates, mean over common layers.

    0 is what unrelated updates have. The diagonal, always 1, is left away.
    """
    names = library.names
    adapters = [library.load(name).modules for name in names]
    values = torch.full((len(names), len(names)), torch.nan)
    for i, one in enumerate(adapters):
        for j, other in enumerate(adapters[:i]):
            paths = one.keys() & other.keys()
            if paths:
                cosines = [_update_cosine(one[path], other[path]) for path in sorted(paths)]
                values[i, j] = values[j, i] = sum(cosines) / len(cosines)
    picture = new_figure(*heat_map_size(len(names), len(names)))
    axes = picture.subplots()
    unit = "mean over layers\n(unrelated: 0)"
    options = {"text": "{:.2f}", "cmap": "PuOr", "vmin": -1, "vmax": 1}
    heat_map(axes, values, names, names, "cosine of the updates", unit, **options)
    axes.set(xlabel="adapter", ylabel="adapter")
    return picture


def _update_cosine(one: LowRank, other: LowRank) -> float:
    """Return the cosine of two updates B A, computed from the factors; 0 for an update of zero."""
    norms = _inner(one, one) * _inner(other, other)
    return _inner(one, other) / math.sqrt(norms) if norms > 0 else 0.0


def _inner(one: LowRank, other: LowRank) -> float:
    a = one.a.double() @ other.a.double().T
    b = one.b.double().T @ other.b.double()
    return (a * b).sum().item()
