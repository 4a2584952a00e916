"""Recipes: stages in their order, each a run of its own, and what happens when one fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tiny import DATA, LENGTH, MODEL, record

from polylect import recipe
from polylect.config import ConfigError


def configured(runs: Path, stages: dict, **changes: object):
    values = {"name": "two", "runs": str(runs), "seed": 1, "resume": None, "common": []}
    return OmegaConf.create(values | {"extra": {}, "stages": stages} | changes)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Path]]:
    """The commands of the stages, which here only make their folders; "fail" among them fails."""
    found: list[tuple[list[str], Path]] = []

    def run(command: list[str], log: None, environment: dict[str, str]) -> int:
        folder = Path(environment[recipe.RUN_FOLDER])
        found.append((command[3:], folder))
        folder.mkdir()
        if "fail=1" in command:
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / "last.ckpt").touch()
            return 1
        (folder / "record.json").write_text(json.dumps({"metrics": {"objective": 7.0}}))
        return 0

    monkeypatch.setattr(recipe, "finished", run)
    return found


TWO = {
    "first": {"program": "pretrain", "overrides": ["a=1"]},
    "second": {"program": "train", "overrides": ["model.path={first}/model"]},
}


def test_a_stage_gets_the_folder_of_an_earlier_one(tmp_path: Path, calls: list) -> None:
    recipe.main(configured(tmp_path, TWO, common=["c=3"], extra={"second": ["b=2"]}, seed=5))
    (first, first_folder), (second, second_folder) = calls
    assert first == ["pretrain", "a=1", "c=3", "seed=5", f"out={first_folder}"]
    assert second == ["train", f"model.path={first_folder}/model", "c=3", "b=2", "seed=5"]
    assert first_folder.parent == second_folder.parent
    found = record(first_folder.parent)
    assert (found["status"], found["metrics"]["objective"]) == ("done", 7.0)


def test_a_failed_stage_ends_it_and_it_goes_on_from_there(tmp_path: Path, calls: list) -> None:
    with pytest.raises(ConfigError, match="stage second failed with exit code 1; when that is"):
        recipe.main(configured(tmp_path, TWO, extra={"second": ["fail=1"]}))
    folder = calls[0][1].parent
    assert record(folder)["status"] == "failed"
    recipe.main(configured(tmp_path, TWO, resume=str(folder)))
    assert [command[0] for command, _ in calls] == ["pretrain", "train", "train"]
    command, again = calls[2]
    assert command[-1] == f"resume={calls[1][1]}"  # it had a checkpoint
    assert again == folder / "second_2"
    assert record(folder)["status"] == "done"


def test_a_stage_that_goes_on_does_not_begin_from_the_one_before(
    tmp_path: Path, calls: list
) -> None:
    second = {"program": "train", "overrides": ["init_from={first}"]}
    stages = TWO | {"second": second}
    with pytest.raises(ConfigError):
        recipe.main(configured(tmp_path, stages, extra={"second": ["fail=1"]}))
    (_, first), (command, half) = calls
    assert command[1] == f"init_from={first}"
    recipe.main(configured(tmp_path, stages, resume=str(first.parent)))
    assert calls[2][0] == ["train", "seed=1", f"resume={half}"]


@pytest.mark.parametrize(
    ("stages", "changes", "message"),
    [
        ({}, {}, "stages is empty"),
        ({"a": {"program": "trian"}}, {}, r"stages\.a\.program=trian does not exist; did you mean"),
        ({"a": {"program": "train", "step": 1}}, {}, r"stages\.a\.step: a stage has a program"),
        (TWO, {"extra": {"secnd": []}}, r"extra\.secnd: no stage has this name; did you mean"),
        (TWO, {"resume": "nowhere"}, "resume=nowhere is no folder of a recipe"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, stages: dict, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe.main(configured(tmp_path, stages, **changes))
    assert not list(tmp_path.iterdir())


def listed(*overrides: str) -> str:
    return "[" + ",".join(f'"{override}"' for override in overrides) + "]"


def run(name: str, runs: Path, *settings: str) -> Path:
    """The folder of a recipe, run by its command."""
    command = [sys.executable, "-m", "polylect.cli", "recipe", f"recipe={name}", f"runs={runs}"]
    done = subprocess.run([*command, *settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder,) = runs.glob(f"{name}/*")
    assert record(folder)["status"] == "done"
    return folder


SMALL = [o for o in DATA if "data.train" not in o]
SHORT = [*LENGTH, "trainer.max_steps=2", "evaluate=false", "evaluate_base=false"]


@pytest.mark.slow
def test_mix_moe_runs_from_one_command(tmp_path: Path) -> None:
    common = listed(*MODEL, *SHORT, "data.val.size=6")
    folder = run("mix_moe", tmp_path, f"common={common}")
    assert (folder / "stage2" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_landermt_runs_from_one_command(tmp_path: Path) -> None:
    folder = run(
        "landermt",
        tmp_path,
        f"extra.joint={listed(*MODEL, *SMALL, *SHORT)}",
        f"extra.detect={listed(*SMALL, 'layers.k=1')}",
        f"extra.train={listed(*SMALL, *SHORT)}",
    )
    assert (folder / "detect" / "neurons.safetensors").is_file()
    assert list((folder / "train" / "rows").glob("en-*.safetensors"))
