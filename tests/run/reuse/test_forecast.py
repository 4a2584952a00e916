"""The hours of a recipe, by a slice of it with few steps."""

import json
from pathlib import Path

import pytest

from polylect.config.roots import ConfigError
from polylect.run.record import Record
from polylect.run.reuse.forecast import forecast_table
from polylect.run.reuse.stages import Stage

STAGES = {
    "joint": Stage("train", ["model=tiny", "trainer.max_steps=150"]),
    "neurons": Stage("detect", ["model.path={joint}/model"]),
}


def measured(folder: Path, seconds: float = 20.0) -> Path:
    """A recipe whose training made ten steps of half a second each, and whose detection took 60."""
    clocks = {"joint": {"steps": 10, "seconds_per_step": 0.5}, "neurons": {}}
    lines = []
    for stage, took in (("joint", seconds), ("neurons", 60.0)):
        run = folder / stage
        run.mkdir(parents=True)
        Record(stage, {}, metrics=clocks[stage], status="done", seconds=18.0).write(run)
        line = {"stage": stage, "exit": 0, "seconds": took, "folder": str(run)}
        lines.append(json.dumps(line))
    (folder / "ledger.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("took", "minutes"), [(20.0, "1.5"), (26.0, "1.6"), (0.0, "1.5")])
def test_a_stage_takes_what_the_slice_took_and_its_own_steps(
    took: float, minutes: str, tmp_path: Path
) -> None:
    stages = {"joint": STAGES["joint"]}
    table = forecast_table(stages, measured(tmp_path, took))
    # And 140 steps of half a second; a stage that was done before took what its record says.
    assert table.rows == (("joint", "train", "150", minutes),)


def test_hours_are_those_of_all_stages(tmp_path: Path) -> None:
    table = forecast_table({"neurons": STAGES["neurons"]}, measured(tmp_path))
    assert table.rows == (("neurons", "detect", "-", "1.0"),)
    assert table.notes == (f"1 stages, 0.0 hours by what {tmp_path} has taken",)


def test_a_slice_without_a_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no stage joint that has ended well"):
        forecast_table(STAGES, tmp_path)
