"""Pictures of routed adapters show what was counted, traced and compared."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_plots import cells, labels, maps

from polylect import plots

LAYERS = ("model.layers.0.self_attn.q_proj", "model.layers.10.mlp.up_proj")


def row(direction: str, side: str, tokens: int, shares: dict[str, float], **more: Any) -> dict:
    own = shares.get(direction, 0.0) if direction != "en-ta" else None
    found = {"library": "library", "layer": LAYERS[0], "direction": direction, "side": side}
    return {**found, "tokens": tokens, "shares": shares, "agreement": own, **more}


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
    source, target = maps(plots.chosen(rows))
    np.testing.assert_allclose(cells(source), [[81.25, 18.75], [100, 0], [0, 100]], rtol=1e-6)
    nothing = [math.nan, math.nan]
    np.testing.assert_allclose(cells(target), [[40, 60], nothing, nothing], rtol=1e-6)
    assert labels(source.yaxis) == ["en-de", "en-fr", "en-ta"]
    assert labels(target.xaxis) == ["en-de", "en-fr"]


def test_right_adapters_are_by_layer_and_known_where_one_serves(rows: list[dict]) -> None:
    source, target = maps(plots.right(rows))
    none = math.nan
    np.testing.assert_allclose(cells(source), [[25, 0, none], [100, none, none]], rtol=1e-6)
    np.testing.assert_allclose(cells(target), [[40, none, none], [none] * 3], rtol=1e-6)
    assert labels(source.yaxis) == ["0 q_proj", "10 up_proj"]


def test_each_library_has_its_pictures(rows: list[dict]) -> None:
    assert set(plots.of_routing(rows)) == {"chosen", "right"}
    assert set(plots.of_routing(rows[-1:])) == {"chosen"}, "nobody knows what is right"
    assert plots.of_routing([]) == {}
    others = [{**one, "library": "knowledge"} for one in rows]
    pictures = plots.of_routing([*rows, *others])
    assert set(pictures) == {
        f"{n}_{of}" for n in ("chosen", "right") for of in ("library", "knowledge")
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
    picture = plots.choices(traced, ["a", "b", "c"], 2, library="task", title="A sentence")
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
    (axes,) = maps(plots.choices(traced, list("abcd"), 2, row=1, library="task"))
    np.testing.assert_array_equal(cells(axes), [[0] * 4, [2] * 4])


def test_choices_need_the_tokens_of_the_row_and_a_library(traced: dict) -> None:
    with pytest.raises(ValueError, match="row 0 of the trace has 3 tokens, 2 texts were given"):
        plots.choices(traced, ["a", "b"], 1, library="task")
    with pytest.raises(ValueError, match="no library 'tasks'"):
        plots.choices(traced, ["a", "b", "c"], 1, library="tasks")


def test_more_adapters_than_colours_are_drawn_all_the_same() -> None:
    names = [f"a{i:02}" for i in range(25)]
    traced = {("library", LAYERS[0]): (names, torch.arange(25)[None])}
    picture = plots.choices(traced, names, 3)
    assert len(picture.legends[0].get_texts()) == 25


def test_similarity_is_drawn_from_the_file_of_a_comparison(tmp_path: Path) -> None:
    values = [[1.0, 0.5, None], [0.5, 1.0, 0.25], [None, 0.25, 1.0]]
    found = {"adapters": ["a", "b", "c"], **dict.fromkeys(("update", "arrow", "subspace"), values)}
    path = tmp_path / "similarity.json"
    path.write_text(json.dumps(found), encoding="utf-8")
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
