"""Tables of systems that route: by domain, against the Oracle, by side and layer, of answers."""

from pathlib import Path
from typing import Any

import pytest
import tables
from synthetic import BLEU, put, run_record, scores


def routed_record(bleu: float, right: float, tests: int = 3) -> dict[str, Any]:
    names = ("news_en-de", "news_en-hi", "talks_en-de")[:tests]
    scores_by_name = {name: scores(bleu + i, 50.0) for i, name in enumerate(names)}
    if "news_en-hi" in scores_by_name:
        scores_by_name["news_en-hi"]["bleu"]["signature"] = BLEU.replace("13a", "intl")
    shares = {"adapter": right, "direction": 2 * right, "domain": 3 * right}
    sides = {"source": shares, "target": shares}
    layers = {f"model.layers.{i}.mlp.{kind}": sides for i in (0, 1) for kind in ("up", "down")}
    routing = {"all": sides, "layers": layers}
    return run_record(0.0, metrics={"test": scores_by_name, "routing": routing})


@pytest.fixture
def routed(tmp_path: Path) -> Path:
    put(tmp_path, "lag/results/lag_oracle", routed_record(10.0, 0.3))
    put(tmp_path, "lag/results/lag_half", routed_record(5.0, 0.15))
    put(tmp_path, "lag/results/lag_part", routed_record(5.0, 0.15, tests=1))
    return tmp_path / "experiments"


def test_domains_are_means_over_directions_of_one_signature(routed: Path) -> None:
    text = tables.table(routed, "lag/domains/bleu")
    assert "| BLEU | news tok:13a | news tok:intl | talks tok:13a | all tok:13a |" in text
    assert "| oracle | 10.0 | 11.0 | 12.0 | 11.0 | 11.0 |" in text
    assert "| part | 5.0 | - | - | - | - |" in text, "a mean over other sets compares nothing"


def test_shares_of_the_oracle_are_means_over_test_sets(routed: Path) -> None:
    text = tables.table(routed, "lag/oracle/bleu")
    assert "| % of the Oracle's BLEU | news | talks | all |" in text
    assert "| oracle | 100.0 | 100.0 | 100.0 |" in text
    assert "| half | 52.3 | 58.3 | 54.3 |" in text
    (routed / "lag/results/lag_oracle.json").unlink()
    with pytest.raises(ValueError, match="no run oracle"):
        tables.table(routed, "lag/oracle/bleu")


def test_routing_is_by_side_and_by_layer(routed: Path) -> None:
    text = tables.table(routed, "lag/routing")
    assert "| half | 15.0 | 30.0 | 45.0 | 15.0 | 30.0 | 45.0 |" in text
    text = tables.table(routed, "lag/layers/half")
    assert "| right adapter, % | up | down |" in text
    assert "| 1 | 15 / 15 | 15 / 15 |" in text
    with pytest.raises(ValueError, match="no run 'nothing'"):
        tables.table(routed, "lag/layers/nothing")


def test_answers_have_scores_by_task_and_the_right_adapters(tmp_path: Path) -> None:
    sides = {"source": 1.0, "target": 0.5}
    oracle = {"tasks": {"slot_filling": 50.0}, "routing": {"agreement": {"task": sides}}}
    for name, metrics in (
        ("oracle", oracle),
        ("base", {"tasks": {"slot_filling": 5.0}, "share": {"average": 10.0}}),
    ):
        put(tmp_path, f"quiz/results/{name}", run_record(0.0) | {"metrics": metrics})
    text = tables.table(tmp_path / "experiments", "quiz/answers")
    assert "slot filling | % of the Oracle | right task, source | right task, target |" in text
    assert "| oracle | 50.0 | - | 100.0 | 50.0 |" in text
    assert "| base | 5.0 | 10 | - | - |" in text


def test_routers_over_one_library_are_columns_and_its_seeds_one_row(tmp_path: Path) -> None:
    for seed in (1, 2):
        sides = {"source": 10.0 * seed, "target": 20.0 * seed}
        routers = {"oracle": {"chrf++": 50.0}, "spectr": {"chrf++": 20.0 * seed} | sides}
        forced = ("arrow", "lag", "spectr", "lag_center", "spectr_center", "spectr_center_prompt")
        metrics = {"forced": dict.fromkeys(forced, sides), "routers": routers}
        put(tmp_path, f"r/results/tongues/a_seed{seed}", run_record(0.0) | {"metrics": metrics})
    metrics = {"forced": dict.fromkeys(forced, sides), "routers": {}}
    put(tmp_path, "r/results/tongues/begin_seed1", run_record(0.0) | {"metrics": metrics})
    made = {k: tables.table(tmp_path / "experiments", f"r/tongues/{k}") for k in TABLES}
    assert "| a | 15.0 ± 7.1 | 15.0 ± 7.1 | 30.0 ± 14.1 |" in made["found"]
    assert "| begin | 20.0 | 20.0 | 40.0 |" in made["found"]
    assert "| % of target tokens | spectr |" in made["chosen"]
    assert "| a | 30.0 ± 14.1 |" in made["chosen"] and "begin" not in made["chosen"]
    assert "| % of the Oracle's chrF++ | Oracle, chrF++ | spectr |" in made["shares"]
    assert "| a | 50.0 ± 0.0 | 60.0 ± 28.3 |" in made["shares"]


def test_without_an_oracle_routers_have_their_own_scores(tmp_path: Path) -> None:
    routers = {"base": {"chrf++": 5.0}, "arrow": {"chrf++": 10.0}}
    metrics = {"routers": routers}
    put(tmp_path, "r/results/left_out/a", run_record(0.0) | {"metrics": metrics})
    text = tables.table(tmp_path / "experiments", "r/left_out/written")
    assert "| chrF++ | base | arrow |" in text
    assert "| a | 5.0 | 10.0 |" in text


TABLES = ("found", "chosen", "shares")
