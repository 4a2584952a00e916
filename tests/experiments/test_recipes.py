"""The recipes give the commands that the records in experiments name."""

import json
import re
from pathlib import Path

import pytest
from helpers.tiny import config

from polylect.programs.recipe import stages_of

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
RECORDS = {
    "kilt_small": sorted(EXPERIMENTS.glob("kilt/results/*.json")),
    "landermt_tongues": sorted(EXPERIMENTS.glob("landermt/results/tongues/*.json")),
    "captions_strategies": sorted(EXPERIMENTS.glob("captions/results/*.json")),
}
TIME = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d"


def settings(command: list[str]) -> set[str]:
    """The overrides of a recorded command; a run's folder becomes the name of its stage."""
    text = "\n".join(command[2:])
    text = re.sub(rf"runs/kilt_small/{TIME}/(\w+)", r"{\1}", text)
    text = re.sub(rf"runs/seed\d/(\w+)/{TIME}", r"{\1}", text)
    return {setting for setting in text.split("\n") if not setting.startswith("runs=")}


@pytest.mark.parametrize("recipe", RECORDS)
def test_a_stage_is_the_command_of_its_record(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYLECT_BASE", "base_lm")
    seeds = {1: stages_of(config("recipe", f"recipe={recipe}"))}
    assert len(RECORDS[recipe]) >= 4
    for path in RECORDS[recipe]:
        record = json.loads(path.read_text(encoding="utf-8"))
        seed, name = record["config"]["seed"], record["config"]["name"]
        if seed not in seeds:
            seeds[seed] = stages_of(config("recipe", f"recipe={recipe}", f"seed={seed}"))
        stage = seeds[seed][name.removeprefix("captions_")]
        assert stage.program == record["command"][1]
        assert set(stage.overrides) == settings(record["command"]) | {f"seed={seed}"}, path.name
