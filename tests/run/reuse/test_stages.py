"""A stage of a recipe whose inputs did not change is not run again, in whichever recipe it is."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest
from helpers.tiny import LENGTH, MODEL
from omegaconf import OmegaConf

from polylect import cli
from polylect.config.roots import ConfigError
from polylect.programs import recipe
from polylect.run.reuse.stages import done_before, note_done, one_at_a_time, stage_identity

BASE = {"program": "train", "overrides": ["model=tiny", "optim=small"]}
RECORD = {"run": "", "config": {}, "metrics": {"objective": 7.0}}
STAGES = {
    "base": BASE,
    "left": {"program": "train", "overrides": ["model=local", "model.path={base}/model"]},
    "right": {"program": "train", "overrides": ["model=local", "model.path={left}/model"]},
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the stages that are run, which here only make their folders."""
    names: list[str] = []

    def run(command: list[str], log: IO[str] | None, environment: dict[str, str]) -> int:
        folder = Path(environment[recipe.RUN_FOLDER])
        names.append(folder.name)
        folder.mkdir()
        (folder / "record.json").write_text(json.dumps(RECORD))
        return int("seed=666" in command)

    monkeypatch.setattr(recipe, "run_subprocess", run)
    return names


def run(runs: Path, **changes: object) -> None:
    values = {"name": "three", "runs": str(runs), "seed": 1, "resume": None, "reuse": True}
    empty = {"common": [], "extra": {}, "shared": {}, "dry_run": False}
    recipe.main(OmegaConf.create(values | empty | {"stages": STAGES} | changes))


def newest(runs: Path) -> Path:
    return max(runs.glob("three/*"), key=lambda folder: folder.stat().st_ctime_ns)


def test_only_stages_with_other_inputs_run_again(
    tmp_path: Path, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path)
    assert calls == ["base", "left", "right"]
    run(tmp_path)
    assert calls == ["base", "left", "right"]
    assert capsys.readouterr().out.count("done before with the same inputs") == 3
    record = json.loads((newest(tmp_path) / "record.json").read_text())
    assert record["status"] == "done" and record["metrics"]["objective"] == 7.0
    run(tmp_path, extra={"right": ["trainer.max_steps=9"]})
    assert calls[3:] == ["right"]
    run(tmp_path, extra={"left": ["trainer.max_steps=9"]})
    assert calls[4:] == ["left", "right"]  # what follows is made from something else
    run(tmp_path, seed=2)
    assert calls[6:] == ["base", "left", "right"]
    run(tmp_path, reuse=False)
    assert calls[9:] == ["base", "left", "right"]


def test_a_stage_that_failed_or_is_gone_runs_again(tmp_path: Path, calls: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match="stage left failed"):
            run(tmp_path, extra={"left": ["seed=666"]})
    assert calls == ["base", "left", "left"]
    (base,) = tmp_path.glob("three/*/base")
    base.rename(tmp_path / "elsewhere")
    run(tmp_path)
    assert calls[3:] == ["base", "left", "right"]


def test_a_recipe_goes_on_with_a_stage_of_another_one(tmp_path: Path, calls: list[str]) -> None:
    run(tmp_path)
    with pytest.raises(ConfigError, match="stage right failed"):
        run(tmp_path, extra={"right": ["seed=666"]})
    run(tmp_path, resume=str(newest(tmp_path)))
    assert calls == ["base", "left", "right", "right"]  # with its seed the first recipe has it


def test_files_that_settings_name_are_inputs(tmp_path: Path) -> None:
    for language in ("en", "de"):
        (tmp_path / f"train.{language}").write_text("a\nb\n")
    settings = ["data=files", "data.directions=[en-de]", "model=tiny"]
    settings += [f"data.{split}={tmp_path}/train.{{lang}}" for split in ("train", "val", "test")]
    before = stage_identity("train", settings)
    assert stage_identity("train", settings) == before
    assert stage_identity("train", [*settings, "name=x", "runs=y"]) == before
    assert stage_identity("train", [*settings, "seed=2"]) != before
    (tmp_path / "train.de").write_text("a\nb\nc\n")
    assert stage_identity("train", settings) != before


def test_the_source_of_packages_is_an_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    own = tmp_path / "own_stage_package" / "__init__.py"
    own.parent.mkdir()
    own.write_text("A = 1\n")
    settings = ["model=tiny", "packages=[own_stage_package]"]
    before = stage_identity("train", settings)
    assert stage_identity("train", settings) == before
    own.write_text("A = 2\n")
    assert stage_identity("train", settings) != before


def test_recipes_side_by_side_run_a_stage_once(tmp_path: Path) -> None:
    """As jobs of a sweep do that a launcher runs in parallel: the second waits for the first."""
    runs: list[Path] = []

    def stage(name: str) -> None:
        with one_at_a_time(tmp_path, "stage-0f"):
            if done_before(tmp_path, "stage-0f") is None:
                time.sleep(0.3)
                (tmp_path / name).mkdir()
                runs.append(tmp_path / name)
                note_done(tmp_path, "stage-0f", tmp_path / name)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(stage, ["left", "right"]))
    assert len(runs) == 1 and done_before(tmp_path, "stage-0f") == runs[0]


@pytest.mark.slow
def test_a_sweep_over_a_setting_of_the_last_stage_trains_the_first_once(tmp_path: Path) -> None:
    small = listed(*MODEL, *LENGTH, *SHORT, "data.val.size=6")
    given = ["recipe=mix_moe", f"common={small}", f"runs={tmp_path}", "name=swept"]
    swept = "extra.stage2=[trainer.max_steps=2],[trainer.max_steps=3]"
    assert cli.run(["recipe", "-m", *given, swept]) == 0
    assert len(list(tmp_path.glob("sweeps/swept/*/*/stage1"))) == 1
    second = list(tmp_path.glob("sweeps/swept/*/*/stage2/record.json"))
    assert len(second) == 2
    assert {json.loads(file.read_text())["metrics"]["steps"] for file in second} == {2, 3}


SHORT = ["trainer.max_steps=2", "evaluate=false", "evaluate_base=false"]


def listed(*overrides: str) -> str:
    return "[" + ",".join(f'"{override}"' for override in overrides) + "]"
