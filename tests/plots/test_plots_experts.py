"""Pictures of experts show what a mixture's routers did, by language, side, layer and token."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import train
from test_plots_neurons import cells, drawn, labels, maps

from polylect import plots
from polylect.layers.experts.metrics import RoutingTally
from polylect.layers.experts.routers import Routing

pytestmark = pytest.mark.pictures

GROUPS = {"lm": range(2), "mt": range(2, 5)}


def routing(logits: torch.Tensor, gate: torch.Tensor | None = None) -> Routing:
    """Of a group router without `top`."""
    weights = [logits[:, g.start : g.stop].softmax(1) for g in GROUPS.values()]
    every = torch.arange(5).expand(len(logits), -1)
    return Routing(every, torch.cat(weights, 1), logits, gate)


def row(direction: str, side: str, tokens: int, first: float, **more: Any) -> dict[str, Any]:
    """Two LM experts, of which the first has this share."""
    row = {"layer": "layer_0", "direction": direction, "side": side, "tokens": tokens}
    return row | {"lm": [first, 1 - first], "entropy/lm": first / 2} | more


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Two directions from English and text in German; layer 3 has seen one direction only."""
    mt = {"mt": [0.2, 0.3, 0.5], "entropy/mt": 1.0, "gate": 0.25}
    return [
        row("en-de", "source", 3, 0.5),
        row("en-fr", "source", 1, 0.9),
        row("en-de", "target", 4, 0.25),
        row("de", "source", 2, 0.0),
        row("de", "target", 8, 1.0),
        row("en-de", "target", 4, 0.75, layer="layer_3", **mt),
    ]


SENTENCE = {
    "direction": "en-hi",
    "tokens": ["<s>", "The", "$x$", " ", "<2hi>", "लड़का"],
    "prompt": 5,
    "gate": {"layer_1": [0.5] * 6, "layer_4": [0.0, 0.25, 0.5, 0.75, 1.0, 0.125]},
}


def test_a_tally_has_the_means_over_all_tokens_of_all_batches() -> None:
    """Against means over the same tokens taken one by one."""
    tally = RoutingTally(["en-de", "en-fr", "de"], GROUPS)
    series: dict[tuple[str, str], list[list[float]]] = {}
    for directions, prompts in ((["en-de", "en-fr"], [2, 3]), (["en-de", "en-de"], [1, 4])):
        logits, gate = torch.randn(2 * 6, 5), torch.randn(2 * 6)
        real = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]]).bool()
        logits[5] = torch.nan  # padding may hold anything
        tally.add("layer_0", routing(logits, gate), real, torch.tensor(prompts), directions)
        for place, token in enumerate(logits.double()):
            line, position = divmod(place, 6)
            if real[line, position]:
                side = "source" if position < prompts[line] else "target"
                parts = [token[g.start : g.stop].softmax(0) for g in GROUPS.values()]
                values = [value for p in parts for value in (*p, -(p * p.log()).sum())]
                values.append(gate[place].double().sigmoid())
                series.setdefault((directions[line], side), []).append([float(v) for v in values])
    rows = {(r["direction"], r["side"]): r for r in tally.rows()}
    assert rows.keys() == series.keys()
    for key, values in series.items():
        entry = rows[key]
        shown = [
            *entry["lm"],
            entry["entropy/lm"],
            *entry["mt"],
            entry["entropy/mt"],
            entry["gate"],
        ]
        assert entry["tokens"] == len(values)
        np.testing.assert_allclose(shown, np.mean(values, 0), rtol=1e-4)


def test_a_tally_without_a_gate_or_mt_experts_says_nothing_of_them() -> None:
    tally = RoutingTally(["de"], {"lm": range(2)})
    logits = torch.randn(3, 2)
    routing = Routing(torch.arange(2).expand(3, -1), logits.softmax(1), logits)
    tally.add("layer_0", routing, torch.ones(1, 3).bool(), torch.tensor([1]), ["de"])
    assert {key for routing in tally.rows() for key in routing} == {
        *("layer", "direction", "side", "tokens", "lm", "entropy/lm")
    }


def test_languages_are_means_over_the_tokens_of_their_directions(rows: list[dict]) -> None:
    actual = plots.by_language(rows, "lm")
    assert {name: entry[0].item() for name, entry in actual["layer_0"].items()} == pytest.approx(
        {"en source": (3 * 0.5 + 0.9) / 4, "de target": 0.25, "de alone": 1.0}
    )
    assert plots.by_language(rows, "gate") == {"layer_3": {"de target": torch.tensor(0.25)}}


def test_every_expert_has_a_map_of_layers_by_languages(rows: list[dict]) -> None:
    rows = [row | {"mt": [0.2, 0.3, 0.5]} for row in rows]
    panels = maps(plots.expert_shares(rows))
    assert [axes.get_title() for axes in panels] == [
        *("LM expert 0", "LM expert 1", "MT expert 0", "MT expert 1", "MT expert 2")
    ]
    assert labels(panels[0].xaxis) == ["de alone", "en source", "de target"]
    assert labels(panels[0].yaxis) == ["0", "3"]
    expected = [[1.0, 0.6, 0.25], [math.nan, math.nan, 0.75]]
    np.testing.assert_allclose(cells(panels[0]), expected, rtol=1e-6)
    np.testing.assert_allclose(cells(panels[1]), 1 - np.array(expected), rtol=1e-6)
    assert panels[0].images[0].get_clim() == (0, 1)
    assert panels[2].images[0].get_clim() == pytest.approx((0, 2 / 3))


def test_entropy_has_a_map_for_each_group(rows: list[dict]) -> None:
    lm, mt = maps(plots.expert_entropy([row | {"mt": [1.0], "entropy/mt": 0.0} for row in rows]))
    np.testing.assert_allclose(cells(lm)[0], [0.5, 0.3, 0.125], rtol=1e-6)
    assert lm.images[0].get_clim() == pytest.approx((0, math.log(2)))
    assert (cells(mt)[0] == 0).all()
    assert len(maps(plots.expert_entropy(rows[:5]))) == 1


def test_the_gate_has_a_map_for_each_sentence() -> None:
    other = SENTENCE | {"direction": "en-de", "tokens": ["a", "b"], "prompt": 1}
    other["gate"] = {"layer_1": [0.5, 0.75]}
    first, second = maps(plots.gate_along([SENTENCE, other]))
    np.testing.assert_array_equal(cells(first), list(SENTENCE["gate"].values()))
    assert labels(first.xaxis) == ["<s>", "The", "$x$", "␣", "<2hi>", "लड़का"]
    assert labels(first.yaxis) == ["1", "4"]
    assert first.get_title().endswith("en-hi") and second.get_title().endswith("en-de")
    (line,) = first.lines
    assert line.get_xdata()[0] == 4.5


@pytest.mark.slow
def test_stages_leave_numbers_and_pictures(tmp_path: Path) -> None:
    few = ("strategy=mix_moe", "trainer.max_steps=2", "logger=none")
    one = train(tmp_path, *few, "strategy.stage=monolingual", "data.directions=[de]")
    assert drawn(one) == {"experts", "expert_entropy", "data"}
    message = plots.by_language(plots.expert_metrics(one)["rows"], "lm")
    assert all(set(shares_of_layer) == {"de alone"} for shares_of_layer in message.values())

    two = train(tmp_path, *few)
    assert drawn(two) == {"experts", "expert_entropy", "expert_gate", "data"}
    report = plots.expert_metrics(two)
    assert {shares_of_layer["direction"] for shares_of_layer in report["rows"]} == {
        "en-de",
        "en-fr",
    }
    for sentence in report["sentences"]:
        for gate in sentence["gate"].values():
            assert len(gate) == len(sentence["tokens"]) > sentence["prompt"]
    shares = torch.tensor([shares_of_layer["lm"] for shares_of_layer in report["rows"]])
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)))


def test_a_run_without_experts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"experts\.json does not exist: train strategy="):
        plots.of_experts(tmp_path)
