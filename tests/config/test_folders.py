"""`--config-dir`: choices of one's own in every program, in sweeps and in stages of recipes."""

from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import pytest
import yaml

from polylect import cli
from polylect.config.roots import SCHEMAS, conf_folder
from polylect.programs import recipe
from polylect.run.sweep import job as sweep_job

EXPERIMENT = "# @package _global_\nname: mine\ndefaults:\n  - override /strategy: mine\n"
STRATEGY = "defaults:\n  - lora\n  - _self_\nrank: 3\n"
RECIPE = """# @package _global_
stages:
  first:
    program: train
    overrides: [experiment=mine, trainer.max_steps=1]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with a path that Hydra would take for something else, were it not quoted."""
    files = {
        "experiment/mine.yaml": EXPERIMENT,
        "strategy/mine.yaml": STRATEGY,
        "data/mine.yaml": "defaults:\n  - tongues\n  - _self_\ndirections: [en-hi]\n",
        "model/mine.yaml": "defaults:\n  - tiny\n  - _self_\nhidden: 16\n",
        "recipe/mine.yaml": RECIPE,
        "project/default.yaml": "# @package _global_\npackages: [mine]\n",
    }
    folder = tmp_path / "it's, mine" / "conf"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of the processes that would be started."""
    commands: list[list[str]] = []

    def job(command: list[str], log: IO[str] | None, environment: dict[str, str]) -> int:
        commands.append(command[3:])
        return 0

    monkeypatch.setattr(sweep_job, "run_subprocess", job)
    monkeypatch.setattr(recipe, "run_subprocess", job)
    return commands


def composed(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    assert cli.run([*command, "--cfg", "job"]) == 0, capsys.readouterr().err
    return yaml.safe_load(capsys.readouterr().out)


def test_groups_of_ones_own_are_found(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--config-dir", str(own), "experiment=mine", "strategy.rslora=true", "data=mine"]
    cfg = composed(capsys, "train", *given, "model=mine")
    assert cfg["name"] == "mine" and cfg["strategy"]["rank"] == 3 and cfg["strategy"]["rslora"]
    assert cfg["data"]["directions"] == ["en-hi"] and cfg["model"]["hidden"] == 16
    assert cfg["packages"] == ["mine"]


@pytest.mark.parametrize("program", [n for n in SCHEMAS if n not in ("recipe", "init")])
def test_a_package_is_named_once_for_every_program(
    program: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "packages" in {field.name for field in fields(SCHEMAS[program])}
    assert composed(capsys, program, "--config-dir", str(own))["packages"] == ["mine"]
    given = ["--config-dir", str(own), "packages=[other]"]
    assert composed(capsys, program, *given)["packages"] == ["other"]
    assert composed(capsys, program)["packages"] == []


def test_jobs_of_a_sweep_are_given_the_folder(
    own: Path, tmp_path: Path, jobs: list, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = ["-m", "strategy=mine,lora", "strategy.rslora=true", f"runs={tmp_path}"]
    assert cli.run(["train", "--config-dir", str(own), *swept]) == 0
    assert len(jobs) == 2
    cfg = composed(capsys, *jobs[0])
    assert cfg["strategy"]["rank"] == 3 and cfg["strategy"]["rslora"]


def test_stages_of_a_recipe_are_given_the_folder(
    own: Path, tmp_path: Path, jobs: list, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["recipe=mine", "extra.first=[strategy.rslora=true]", f"runs={tmp_path}"]
    assert cli.run(["recipe", "--config-dir", str(own), *given]) == 0, capsys.readouterr().err
    (job,) = jobs
    capsys.readouterr()
    cfg = composed(capsys, *job)
    assert cfg["name"] == "mine" and cfg["strategy"]["rslora"] and cfg["packages"] == ["mine"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "experiment=mine does not exist; known: "),
        (["--config-dir", "nowhere"], "--config-dir nowhere is no folder"),
        (["--config-dir", "OWN", "strategy=mien"], "strategy=mien does not exist; did you mean mi"),
    ],
)
def test_what_is_not_found_is_a_sentence(
    given: list[str], said: str, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [text.replace("OWN", str(own)) for text in given]
    assert cli.run(["train", *given, "experiment=mine"]) == 2
    stderr = capsys.readouterr().err
    assert said in stderr and stderr.count("\n") == 1
    assert given or "--config-dir FOLDER" in stderr


def test_a_file_that_would_hide_behind_ours_is_refused(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own / "strategy" / "lora.yaml").write_text("rank: 1", encoding="utf-8")
    assert (conf_folder() / "strategy" / "lora.yaml").is_file()
    assert cli.run(["train", "--config-dir", str(own), "strategy=lora"]) == 2
    assert "strategy/lora.yaml: give it another name" in capsys.readouterr().err


def test_resolved_configurations_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train", "--cfg", "job", "--resolve"]) == 0
    assert "dirpath: RUN/checkpoints" in capsys.readouterr().out
    assert cli.run(["train", "-m", "seed=1,2", "--cfg", "job"]) == 2
    stderr = capsys.readouterr().err
    assert "leave -m out" in stderr and stderr.count("\n") == 1
