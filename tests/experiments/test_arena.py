"""The arena: systems of equal size, with equally many trials, chosen on development text."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny import config

from polylect.programs.recipe import stages_of
from polylect.run.budget.accounting import trained_parameters
from polylect.run.build import build_strategy, load_backbone_into

ARENA = Path(__file__).parents[2] / "experiments" / "arena"
BUDGET = 188_416
SIZES = ("strategy=", "strategy.", "+strategy.", "data.directions=")
ALONE = ("alone_de", "alone_fr", "alone_hi", "alone_ta")
TRIALS = ("trial1", "trial2", "trial3", "trial4")


@pytest.mark.parametrize(
    "runs", [("lora",), ("lora_switch",), ALONE, ("mix_moe",), ("mix_moe_mlp",)], ids=" ".join
)
def test_systems_train_equally_many_parameters(runs: tuple[str, ...]) -> None:
    stages = stages_of(config("recipe", "recipe=arena"))
    total = 0
    for run in runs:
        overrides = stages[f"{run}_trial1"].overrides
        cfg = config("train", *(o for o in overrides if o.startswith(SIZES)))
        module = build_strategy(cfg)
        load_backbone_into(module, None, cfg)
        total += trained_parameters(module)
    assert total == pytest.approx(BUDGET, rel=0.01)


def test_every_system_has_as_many_trials_that_see_no_test_set() -> None:
    stages = stages_of(config("recipe", "recipe=arena"))
    trials = {name: stage for name, stage in stages.items() if "_trial" in name}
    assert len(trials) == 4 * 14
    by_system: dict[str, set[tuple[str, ...]]] = {}
    for name, stage in trials.items():
        assert "evaluate=false" in stage.overrides and "trainer.max_steps=150" in stage.overrides
        what = [o for o in stage.overrides if "lr=" in o or "temperature=" in o]
        by_system.setdefault(name.rpartition("_")[0], set()).add(tuple(what))
    assert {len(settings) for settings in by_system.values()} == {4}
    sampled = {system for system, own in by_system.items() if len(next(iter(own))) == 2}
    assert sampled == by_system.keys() - set(ALONE)


def choose(*folders: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ARENA / "choose.py"), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True)


def recipe(folder: Path, seed: int, losses: dict[str, list[float]]) -> Path:
    """The folder of a recipe whose trials, 1, 2 …, of each stage ended with these losses."""
    stages = {"joint": str(folder / "joint")}
    for stage, of_trials in losses.items():
        for number, loss in enumerate(of_trials, 1):
            run = folder / f"{stage}_trial{number}"
            put(run, {"metrics": {"objective": -loss}})
            stages[run.name] = str(run)
    put(folder, {"config": {"seed": seed}, "metrics": {"stages": stages}})
    return folder


def put(folder: Path, record: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")


def test_the_trial_with_the_lowest_mean_loss_is_chosen_for_all_seeds(tmp_path: Path) -> None:
    one = {"full": [1.0, 1.5], "mix_moe_mlp": [1.0, 0.5], "alone_de": [1, 3], "alone_fr": [3, 2]}
    two = {"full": [3.0, 2.0], "mix_moe_mlp": [1.0, 1.7], "alone_de": [1, 3], "alone_fr": [3, 2]}
    first, second = recipe(tmp_path / "a", 1, one), recipe(tmp_path / "b", 7, two)
    expected = [
        [seed, system, folder / "joint" / "model", *(folder / run for run in runs)]
        for seed, folder in ((1, first), (7, second))
        for system, runs in (
            ("full", ["full_trial2"]),
            ("mix_moe_mlp", ["mix_moe_mlp_trial1"]),
            ("alone", ["alone_de_trial1", "alone_fr_trial1"]),
        )
    ]
    lines = ["\t".join(map(str, line)) for line in expected]
    assert choose(first, second).stdout.splitlines() == lines
    (second / "full_trial2" / "record.json").unlink()
    assert "has no record.json" in choose(first, second).stderr


def test_a_system_with_fewer_trials_is_refused(tmp_path: Path) -> None:
    folder = recipe(tmp_path / "a", 1, {"full": [1.0, 1.5], "lora": [1.0]})
    assert "lora has no trial2, which others have" in choose(folder).stderr


def test_what_is_chosen_is_scored_and_tested_in_families() -> None:
    """Every system of the recipe has a place among the verdicts of run.sh."""
    stages = stages_of(config("recipe", "recipe=arena"))
    systems = {name.rpartition("_")[0] for name in stages if name.endswith("_trial1")}
    systems = systems - set(ALONE) | {"alone", "frozen", "shots", "memory", "lag", "lag_uniform"}
    script = (ARENA / "run.sh").read_text(encoding="utf-8").splitlines()
    families = [line.split()[2:] for line in script if line.startswith("verdicts ")]
    assert {system for family in families for system in family} == systems
