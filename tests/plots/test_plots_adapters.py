"""Pictures of routed adapters show what was counted, traced and compared."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_plots_neurons import cells, labels, maps

from polylect import plots
from polylect.library import Adapter, AdapterLibrary, LowRank

LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.10.mlp.up_proj")


def row(direction: str, side: str, tokens: int, shares: dict[str, float], **more: Any) -> dict:
    own = shares.get(direction, 0.0) if direction != "en-ta" else None
    row = {"library": "library", "layer": LAYERS[0], "direction": direction, "side": side}
    return {**row, "tokens": tokens, "shares": shares, "agreement": own, **more}


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Three directions, one without an adapter; en-fr has no translated tokens."""
    return [
        row("en-de", "source", 4, {"en-de": 0.25, "en-fr": 0.75}),
        row("en-de", "source", 12, {"en-de": 1.0}, layer=LAYERS[1]),
        row("en-de", "target", 5, {"en-de": 0.4, "en-fr": 0.6}),
        row("en-fr", "source", 3, {"en-de": 1.0}),
        row("en-ta", "source", 2, {"en-fr": 1.0}),
    ]


def test_chosen_adapters_are_shares_of_the_tokens_of_all_layers(rows: list[dict]) -> None:
    source, target = maps(plots.adapter_shares(rows))
    np.testing.assert_allclose(cells(source), [[81.25, 18.75], [100, 0], [0, 100]], rtol=1e-6)
    nothing = [math.nan, math.nan]
    np.testing.assert_allclose(cells(target), [[40, 60], nothing, nothing], rtol=1e-6)
    assert labels(source.yaxis) == ["en-de", "en-fr", "en-ta"]
    assert labels(target.xaxis) == ["en-de", "en-fr"]


def test_right_adapters_are_by_layer_and_known_where_one_serves(rows: list[dict]) -> None:
    source, target = maps(plots.routing_accuracy(rows))
    none = math.nan
    np.testing.assert_allclose(cells(source), [[25, 0, none], [100, none, none]], rtol=1e-6)
    np.testing.assert_allclose(cells(target), [[40, none, none], [none] * 3], rtol=1e-6)
    assert labels(source.yaxis) == ["0 q_proj", "10 up_proj"]


def test_each_library_has_its_pictures(rows: list[dict]) -> None:
    assert set(plots.of_routing(rows)) == {"adapter_shares", "routing_accuracy"}
    assert set(plots.of_routing(rows[-1:])) == {"adapter_shares"}, "nobody knows what is right"
    assert plots.of_routing([]) == {}
    others = [{**one, "library": "knowledge"} for one in rows]
    pictures = plots.of_routing([*rows, *others])
    assert set(pictures) == {
        f"{name}_{library}"
        for name in ("adapter_shares", "routing_accuracy")
        for library in ("library", "knowledge")
    }


@pytest.fixture
def traced() -> dict:
    """Two rows, the first with padding on the left; the layers have different adapters."""
    first = torch.tensor([[-1, 0, 1, 1], [0, 0, 0, 0]])
    second = torch.tensor([[-1, 0, 0, 1], [1, 1, 1, 1]])
    return {
        ("task", LAYERS[0]): (("en-de", "en-ta"), first),
        ("task", LAYERS[1]): (("en-fr", "en-ta"), second),
        ("knowledge", LAYERS[1]): (("facts",), torch.zeros(2, 4, dtype=torch.long)),
    }


def test_choices_are_one_colour_for_each_adapter(traced: dict) -> None:
    picture = plots.token_choices(traced, ["a", "b", "c"], 2, library="task", title="A sentence")
    (axes,) = maps(picture)
    np.testing.assert_array_equal(cells(axes), [[0, 2, 2], [1, 1, 2]])
    assert labels(axes.xaxis) == ["a", "b", "c"] and labels(axes.yaxis) == [
        "0 q_proj",
        "10 up_proj",
    ]
    assert [text.get_text() for text in picture.legends[0].get_texts()] == [
        "en-de",
        "en-fr",
        "en-ta",
    ]
    assert axes.lines[0].get_xdata()[0] == 1.5, "the translation begins behind the second token"
    (axes,) = maps(plots.token_choices(traced, list("abcd"), 2, row=1, library="task"))
    np.testing.assert_array_equal(cells(axes), [[0] * 4, [2] * 4])


def test_choices_need_the_tokens_of_the_row_and_a_library(traced: dict) -> None:
    with pytest.raises(ValueError, match="row 0 of the trace has 3 tokens, 2 texts were given"):
        plots.token_choices(traced, ["a", "b"], 1, library="task")
    with pytest.raises(ValueError, match="no library 'tasks'"):
        plots.token_choices(traced, ["a", "b", "c"], 1, library="tasks")


def test_more_adapters_than_colours_are_drawn_all_the_same() -> None:
    names = [f"a{i:02}" for i in range(25)]
    traced = {("library", LAYERS[0]): (names, torch.arange(25)[None])}
    picture = plots.token_choices(traced, names, 3)
    assert len(picture.legends[0].get_texts()) == 25


def test_similarity_is_drawn_from_the_file_of_a_comparison(tmp_path: Path) -> None:
    values = [[1.0, 0.5, None], [0.5, 1.0, 0.25], [None, 0.25, 1.0]]
    similarity = {
        "adapters": ["a", "b", "c"],
        **dict.fromkeys(("update", "arrow", "subspace"), values),
    }
    path = tmp_path / "similarity.json"
    path.write_text(json.dumps(similarity), encoding="utf-8")
    panels = maps(plots.similarity(path))
    assert len(panels) == 3
    none = math.nan
    expected = [[none, 0.5, none], [0.5, none, 0.25], [none, 0.25, none]]
    np.testing.assert_array_equal(cells(panels[0]), expected)
    assert labels(panels[0].yaxis) == ["a", "b", "c"]
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match="is not what polylect library"):
        plots.similarity(path)
    with pytest.raises(FileNotFoundError, match="action=compare out=FILE"):
        plots.similarity(tmp_path / "nowhere.json")


def test_chance_is_a_line_in_the_colour_bar(rows: list[dict]) -> None:
    picture = plots.adapter_shares(rows)
    bars = [axes for axes in picture.axes if not axes.images and axes.lines]
    assert [bar.lines[0].get_ydata()[0] for bar in bars] == [50, 50]
    assert all("by chance, 50" in bar.get_ylabel() for bar in bars)


def test_transfer_shows_the_change_from_the_base() -> None:
    measured = {
        "adapters": ["en-de", "en-fr"],
        "directions": ["en-de", "en-fr"],
        "loss": [[1.0, 2.5], [4.0, 0.5]],
        "base": [3.0, 2.0],
    }
    (axes,) = maps(plots.transfer(measured))
    np.testing.assert_allclose(cells(axes), [[-2, 0.5], [1, -1.5]])
    assert axes.images[0].get_clim() == (-2, 2), "no effect is the middle of the colours"


def test_overlap_of_updates_is_the_cosine_of_their_products(tmp_path: Path) -> None:
    library = AdapterLibrary(tmp_path)
    torch.manual_seed(0)
    made: dict[str, list[torch.Tensor]] = {}
    for name, rank in (("a", 2), ("b", 3), ("c", 2)):
        modules = {}
        for path in LAYERS:
            update = LowRank(torch.randn(rank, 6), torch.randn(5, rank), 0.5)
            modules[path] = update
            made.setdefault(name, []).append((update.b @ update.a).flatten())
        library.save(name, Adapter(modules))
    (axes,) = maps(plots.update_overlap(library))
    for i, one in enumerate("abc"):
        for j, other in enumerate("abc"):
            pairs = zip(made[one], made[other], strict=True)
            cosines = [torch.cosine_similarity(u, v, dim=0).item() for u, v in pairs]
            expected = math.nan if i == j else np.mean(cosines)
            assert cells(axes)[i, j] == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert axes.images[0].get_clim() == (-1, 1)
