"""Pictures of the experts that worked on which tokens, from what a run has counted."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polylect.files import read_json
from polylect.plots.figures import Figure, heat_map, heat_map_size, new_figure, token_axis

EXPERTS = "experts.json"
"""Of a run folder: what its experts did with validation text."""

Rows = Sequence[Mapping[str, Any]]
"""What `polylect.layers.experts.metrics.RoutingTally.rows` returns."""

_GROUPS = ("lm", "mt")


def expert_metrics(folder: str | Path) -> dict[str, Any]:
    """Return what a run of Mix-MoE has counted: `rows`, and `sentences` with the gate along each.

    Raises:
        FileNotFoundError: it has counted nothing.
    """
    path = Path(folder) / EXPERTS
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: train strategy=mix_moe with data.val.")
    return read_json(path, "what is to be drawn")


def of_experts(folder: str | Path) -> dict[str, Figure]:
    """Return all pictures of the experts of a run, by name."""
    report = expert_metrics(folder)
    figures = {
        "experts": expert_shares(report["rows"]),
        "expert_entropy": expert_entropy(report["rows"]),
    }
    if report["sentences"]:
        figures["expert_gate"] = gate_along(report["sentences"])
    return figures


def by_language(rows: Rows, key: str) -> dict[str, dict[str, Float[Tensor, "*shape"]]]:
    """Return the means of a number by layer and by language and side: "en source", "de target".

    Directions with the same source, or target, are taken together, each with the weight of its
    tokens. Monolingual text has one side, the text: "de alone".

    Args:
        key: of the rows, such as "lm", "entropy/lm" or "gate"; rows that lack it are left out.
    """
    sums: dict[str, dict[str, list[Any]]] = {}
    for row in rows:
        name = _language(row["direction"], row["side"])
        if name is not None and key in row:
            total = sums.setdefault(row["layer"], {}).setdefault(name, [0.0, 0])
            total[0] = total[0] + row["tokens"] * torch.tensor(row[key])
            total[1] += row["tokens"]
    return {
        layer: {name: total / tokens for name, (total, tokens) in by_name.items()}
        for layer, by_name in sums.items()
    }


def expert_shares(rows: Rows) -> Figure:
    """Draw heat maps of layers by languages for every expert: its share of its group's tokens.

    White is a fair share: 1 / the number of experts in the group.
    """
    panels = list(_experts(rows))
    across = max(len(series) for series in panels)
    layers, names = _labels(rows)
    width, height = heat_map_size(len(layers), len(names))
    picture = new_figure(across * width, len(panels) * height)
    grid = picture.subplots(len(panels), across, squeeze=False)
    for line, series in zip(grid, panels, strict=True):
        for axes, (title, values) in zip(line, series.items(), strict=False):
            fair = 1 / len(series)
            options = {"vmin": 0, "vmax": min(1, 2 * fair), "cmap": "PuOr"}
            _panel(axes, values, layers, names, title, "share of the group's tokens", **options)
        for axes in line[len(series) :]:
            axes.remove()
    return picture


def expert_entropy(rows: Rows) -> Figure:
    """Draw heat maps of layers by languages: how undecided the routers are.

    Entropy of a group's softmax, in nats: 0 where one expert gets all, log(experts) where all get
    the same.
    """
    layers, names = _labels(rows)
    groups = [group for group in _GROUPS if any(group in row for row in rows)]
    width, height = heat_map_size(len(layers), len(names))
    picture = new_figure(len(groups) * width, height)
    for axes, group in zip(picture.subplots(1, len(groups), squeeze=False)[0], groups, strict=True):
        experts = max(len(row[group]) for row in rows if group in row)
        options = {"vmin": 0, "vmax": max(math.log(experts), 1e-3)}
        values = _table(by_language(rows, f"entropy/{group}"), names)
        title = f"routing entropy, {group.upper()} experts"
        _panel(axes, values, layers, names, title, f"nats (all alike: ln {experts})", **options)
    return picture


def gate_along(sentences: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw heat maps of layers by tokens, one for each sentence: the weight of the MT experts.

    0 shuts them off, 1 lets them through; where a gate has learnt nothing, it is 0.5. Behind the
    line begins the translation.

    Args:
        sentences: with `direction`, `tokens`, `prompt` (how many of these are the source's) and
            `gate` (by layer, one value per token).
    """
    most = max(len(sentence["tokens"]) for sentence in sentences)
    heights = [2.0 + 0.2 * len(sentence["gate"]) for sentence in sentences]
    picture = new_figure(2.5 + 0.25 * most, sum(heights))
    panels = picture.subplots(len(sentences), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, sentence in zip(panels, sentences, strict=True):
        layers = [_short(layer) for layer in sentence["gate"]]
        heat_map(
            axes,
            torch.tensor(list(sentence["gate"].values())),
            layers,
            sentence["tokens"],
            f"gate to the MT experts, {sentence['direction']}",
            "weight",
            text="{:.2f}",
            cmap="PuOr",
            origin="lower",
            vmin=0,
            vmax=1,
        )
        axes.axvline(sentence["prompt"] - 0.5, color="black", linewidth=2)
        axes.set(xlabel="source | translation", ylabel="layer")
        token_axis(axes, sentence["tokens"])
    return picture


def _language(direction: str, side: str) -> str | None:
    """Return the label of one side of a direction; None for the source of monolingual text."""
    source, _, target = direction.rpartition("-")
    if not source:
        return f"{target} alone" if side == "target" else None  # no more than the begin token
    return f"{source if side == 'source' else target} {side}"


def _labels(rows: Rows) -> tuple[list[str], list[str]]:
    """Return the labels of layers and of languages, those that are read before those written."""
    names = {_language(row["direction"], row["side"]) for row in rows} - {None}
    layers = dict.fromkeys(_short(row["layer"]) for row in rows)
    return list(layers), sorted(names, key=lambda name: name.split()[::-1])


def _experts(rows: Rows) -> Iterator[dict[str, Float[Tensor, "layers languages"]]]:
    """Yield for each group of experts the shares of each expert, by the panel's title."""
    _, names = _labels(rows)
    for group in _GROUPS:
        means = by_language(rows, group)
        experts = max((len(row[group]) for row in rows if group in row), default=0)
        if experts:
            yield {
                f"{group.upper()} expert {e}": _table(means, names)[..., e] for e in range(experts)
            }


def _table(
    values: Mapping[str, Mapping[str, Tensor]], names: Sequence[str]
) -> Float[Tensor, "layers languages *shape"]:
    """Return the values as a tensor, NaN for languages that a layer has no value of."""
    example = next(iter(next(iter(values.values())).values()))
    nothing = torch.full_like(example, torch.nan)
    return torch.stack(
        [torch.stack([by_name.get(n, nothing) for n in names]) for by_name in values.values()]
    )


def _panel(
    axes: Any,
    values: Float[Tensor, "layers languages"],
    layers: Sequence[str],
    names: Sequence[str],
    title: str,
    unit: str,
    **options: Any,
) -> None:
    heat_map(axes, values, layers, names, title, unit, text="{:.2f}", origin="lower", **options)
    axes.set(xlabel="language", ylabel="layer")
    axes.tick_params(axis="x", rotation=90)


def _short(layer: str) -> str:
    return layer.removeprefix("layer_")
