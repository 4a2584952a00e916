"""The project that `polylect init` lays: complete, run as its README says, never overwritten."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from polylect.cli import run
from polylect.programs.init import PROJECT

SHORT = [
    "trainer.max_steps=2",
    "trainer.log_every_n_steps=1",
    "trainer.val_check_interval=2",
    "evaluate_base=false",
    "model._target_=polylect.models.backbone.tiny_backbone",
    "+model.hidden=32",
    "generation.ratio=0",
    "generation.extra=4",
    "data.test.stop=2",
]


def laid(folder: Path) -> Path:
    assert run(["init", str(folder)]) == 0
    return folder


def polylect(folder: Path, *arguments: str, stdin: str = "") -> str:
    """A command given in the project's folder, as from a terminal; what it prints."""
    command = [sys.executable, "-P", "-m", "polylect.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, input=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands(readme: str) -> list[list[str]]:
    """The commands of the README, without what stands before a pipe."""
    lines = re.findall(r"^    (?:echo .* \| )?(polylect .*)$", readme, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the second command of its README has been given."""
    folder = laid(tmp_path_factory.mktemp("work") / "my project")
    _, train, *_ = commands((folder / "README.md").read_text(encoding="utf-8"))
    polylect(folder, *train, *SHORT)
    return folder


@pytest.mark.slow
def test_the_project_runs_as_its_readme_says(project: Path) -> None:
    (run_folder,) = (project / "runs" / "mine").iterdir()
    config = json.loads((run_folder / "record.json").read_text(encoding="utf-8"))["config"]
    assert config["strategy"]["_target_"] == "own.MyStrategy"
    assert config["strategy"]["rank"] == 8 and config["packages"] == ["own"]
    logged = (run_folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert "train/aux/weights" in logged[0]
    assert sorted(p.name for p in (run_folder / "adapters").iterdir()) == ["en-de", "en-fr"]

    _, _, evaluate, translate = commands((project / "README.md").read_text(encoding="utf-8"))
    evaluate, translate = (
        [argument.replace("TIME", run_folder.name) for argument in command]
        for command in (evaluate, translate)
    )
    assert "en-fr" in polylect(project, *evaluate, "limit=2")
    printed = polylect(project, *translate, stdin="The child sleeps.\n")
    assert printed.count("\n") == 1


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = laid(tmp_path / "mine")
    (folder / "own.py").write_text("mine")
    (folder / "README.md").unlink()
    capsys.readouterr()
    assert run(["init", str(folder)]) == 2
    stderr = capsys.readouterr().err
    assert "nothing is overwritten" in stderr and stderr.count("\n") == 1
    assert (folder / "own.py").read_text() == "mine" and not (folder / "README.md").exists()


def test_every_file_of_the_project_is_laid(tmp_path: Path) -> None:
    folder = laid(tmp_path / "mine")
    names = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
    assert len(names) == 8
    assert all((folder / n).read_bytes() == (PROJECT / n).read_bytes() for n in names)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert all(str(name) in readme for name in names - {Path("README.md")})
