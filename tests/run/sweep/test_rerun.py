"""A sweep given again: done jobs are kept, interrupted ones go on, failed ones begin anew."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from helpers import fake_jobs
from helpers.tiny import TRAIN
from hydra.errors import ConfigCompositionException

from polylect.cli import run
from polylect.config.errors import _sentence
from polylect.run.sweep.ledger import Attempt, append, read_attempts, read_jobs


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fake_jobs.install(tmp_path, monkeypatch)


def sweep(control: Path, *settings: str, program: str = "train") -> int:
    given = TRAIN if program == "train" else []
    return run([program, "-m", *given, f"runs={control / 'runs'}", *settings])


def calls(control: Path) -> list[dict[str, Any]]:
    """The settings of the jobs that ran since the last time."""
    file = control / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return [json.loads(line) for line in lines]


def folder_of(control: Path) -> Path:
    (folder,) = (control / "runs").glob("sweeps/*/*")
    return folder


@pytest.mark.slow
def test_a_rerun_does_only_what_is_not_done(
    control: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for what in ("fail_2", "kill_3", "diverge_4"):
        (control / what).touch()
    assert sweep(control, "seed=1,2,3,4") == 1
    assert [call["seed"] for call in calls(control)] == ["1", "2", "3", "4"]
    jobs = read_jobs(folder_of(control))
    assert [job.status for job in jobs] == ["done", "failed", "interrupted", "diverged"]
    assert [job.objective for job in jobs] == [10.0, None, None, None]
    shown, listed = capfd.readouterr().out.split("\n3 of 4 jobs are not done; the same command")
    assert shown.index("the reason") < shown.index("sweep job 2: seed=3")  # at once
    assert "the reason" in listed and "seed=1" not in listed and f"{jobs[3].log}" in listed

    (control / "fail_2").unlink()
    (control / "kill_3").unlink()
    assert sweep(control, "seed=1,2,3,4") == 1
    second, third, fourth = calls(control)
    assert "resume" not in second and second["seed"] == "2"
    assert third["resume"] == jobs[2].folder
    assert "resume" not in fourth
    again = read_jobs(folder_of(control))  # the same
    assert [job.status for job in again] == ["done", "done", "done", "diverged"]
    assert again[2].folder == f"{jobs[2].folder}_2"
    (control / "diverge_4").unlink()
    assert sweep(control, "seed=1,2,3,4") == 0
    assert [call["seed"] for call in calls(control)] == ["4"]
    capfd.readouterr()
    assert sweep(control, "seed=1,2,3,4") == 0
    assert calls(control) == []
    assert capfd.readouterr().out.count("done before") == 4


@pytest.mark.slow
def test_other_settings_or_a_changed_file_are_another_job(control: Path) -> None:
    own = control / "own" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# @package _global_\nmetrics: [bleu]\n")
    given = ["--config-dir", str(control / "own"), "experiment=mine", "seed=1,2"]
    assert sweep(control, *given) == 0
    (own / "mine.yaml").write_text("# @package _global_\nmetrics: [ter]\n")
    assert sweep(control, *given) == 0
    assert len(calls(control)) == 4
    assert len({job.folder for job in read_jobs(folder_of(control))}) == 4
    assert sweep(control, *given, "evaluate_base=true") == 0  # another sweep
    assert len(calls(control)) == 2
    assert len(list((control / "runs").glob("sweeps/*/*"))) == 2


@pytest.mark.slow
def test_a_sweep_of_a_given_folder_may_grow(control: Path) -> None:
    given = f"hydra.sweep.dir={control / 'grid'}"
    assert sweep(control, "seed=1,2", given) == 0
    assert sweep(control, "seed=1,2,3", given) == 0
    assert [call["seed"] for call in calls(control)] == ["1", "2", "3"]
    assert not (control / "runs").exists()
    assert len(read_jobs(control / "grid")) == 3


@pytest.mark.slow
def test_a_job_that_still_runs_is_left_alone(
    control: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert sweep(control, "seed=1,2") == 0
    folder = folder_of(control)
    first = read_attempts(folder)[0]
    append(folder, first)  # as of a process that began it again
    with Path(first.log).open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert read_jobs(folder)[0].status == "running"
        calls(control)
        assert sweep(control, "seed=1,2") == 0
        assert calls(control) == []
        assert "seed=1 runs elsewhere, left alone" in capfd.readouterr().out
    assert read_jobs(folder)[0].status == "interrupted"  # a process that was killed
    assert sweep(control, "seed=1,2") == 0
    assert [call["seed"] for call in calls(control)] == ["1"]


def test_a_recipe_that_failed_goes_on_in_its_folder(control: Path) -> None:
    (control / "diverge_2").touch()
    assert sweep(control, "seed=1,2", program="recipe") == 1
    failed = read_jobs(folder_of(control))[1]
    (control / "diverge_2").unlink()
    calls(control)
    sweep(control, "seed=1,2", program="recipe")
    (call,) = calls(control)
    assert call["resume"] == failed.folder
    assert read_jobs(folder_of(control))[1].folder == failed.folder


def test_status_tells_how_far_a_sweep_has_come(
    control: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (control / "fail_2").touch()
    sweep(control, "seed=1,2")
    capsys.readouterr()
    assert run(["sweep", "status", str(folder_of(control))]) == 0
    first, second, counts = capsys.readouterr().out.splitlines()
    assert first.split()[:4] == ["0", "done", "10.00", "seed=1"]
    assert second.split()[:3] == ["1", "failed", "seed=2"]
    assert counts == "2 jobs: 1 done, 1 failed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "write polylect sweep status FOLDER"),
        (["stats", "."], "write polylect sweep status FOLDER"),
        (["status", "nowhere"], "nowhere is no folder of a sweep that has begun"),
    ],
)
def test_mistakes_in_asking_are_named(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sweep", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_ledger_keeps_every_attempt(tmp_path: Path) -> None:
    line = Attempt(3, ["a=ü"], "done", "0f", "runs/x", "runs/x.log", "now", 0, 1.5, 2.5)
    for _ in range(2):
        append(tmp_path, line)
    assert read_attempts(tmp_path) == [line, line]
    assert read_jobs(tmp_path) == [line]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hydra/launcher=joblb", "hydra/launcher=joblb does not exist; did you mean joblib"),
        ("hydra/sweeper=optna", "hydra/sweeper=optna does not exist; did you mean optuna"),
    ],
)
def test_a_launcher_that_does_not_exist_is_named(
    given: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "-m", "seed=1,2", given]) == 2
    assert message in capsys.readouterr().err


def test_a_plugin_that_is_missing_is_named() -> None:
    error = ConfigCompositionException("In 'hydra/config': Could not find 'hydra/launcher/joblib'")
    wanted = "hydra/launcher=joblib is not installed: pip install hydra-joblib-launcher."
    assert _sentence(error) == wanted
