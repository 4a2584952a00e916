"""The arena: systems of equal size, and a rate that is chosen on development text."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny import config

from polylect.programs.recipe import stages_of
from polylect.run.budget.accounting import trained_parameters
from polylect.run.build import build_strategy, load_backbone_into

CHOOSE = Path(__file__).parents[2] / "experiments" / "arena" / "choose.py"
BUDGET = 188_416
SIZES = ("strategy=", "strategy.", "+strategy.")


@pytest.mark.parametrize("system", ["lora", "lora_switch", "mix_moe", "mix_moe_random"])
@pytest.mark.parametrize("rate", ["low", "high"])
def test_systems_train_equally_many_parameters(system: str, rate: str) -> None:
    stage = stages_of(config("recipe", "recipe=arena"))[f"{system}_{rate}"]
    cfg = config("train", *(o for o in stage.overrides if o.startswith(SIZES)))
    module = build_strategy(cfg)
    load_backbone_into(module, None, cfg)
    assert trained_parameters(module) == pytest.approx(BUDGET, rel=0.01)


def test_every_system_has_two_trials_that_see_no_test_set() -> None:
    stages = stages_of(config("recipe", "recipe=arena"))
    trials = [name for name in stages if name.endswith(("_low", "_high"))]
    assert {n.removesuffix("_low") for n in trials if n.endswith("_low")} == {
        n.removesuffix("_high") for n in trials if n.endswith("_high")
    }
    assert len(trials) == 18
    assert all("evaluate=false" in stages[name].overrides for name in trials)


def choose(*folders: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHOOSE), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_rate_with_the_lower_mean_loss_is_chosen(tmp_path: Path) -> None:
    losses = {"a_low": (1.0, 3.0), "a_high": (1.5, 2.0), "b_low": (1.0, 1.0), "b_high": (0.5, 1.7)}
    for name, by_seed in losses.items():
        for seed, loss in enumerate(by_seed):
            run = tmp_path / str(seed) / name
            run.mkdir(parents=True)
            record = json.dumps({"metrics": {"objective": -loss}})
            (run / "record.json").write_text(record, encoding="utf-8")
    seeds = [tmp_path / "0", tmp_path / "1"]
    assert choose(*seeds).stdout == "a high\nb low\n"
    (seeds[1] / "b_high" / "record.json").unlink()
    assert "has no record.json" in choose(*seeds).stderr
