"""Sweeps: every job by itself, a failure shown at once, the others go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest
from helpers.tiny import TRAIN, record

from polylect.cli import run
from polylect.run.sweep.job import _slug, _varied_overrides
from polylect.run.sweep.ledger import Attempt, read_jobs
from polylect.run.sweep.process import RUN_FOLDER

SHORT = [*TRAIN, "trainer.max_steps=1"]
SECONDS = 600  # a job takes 20 when nothing else runs


def jobs_of(runs: Path) -> list[Attempt]:
    (folder,) = runs.glob("sweeps/*/*")
    return read_jobs(folder)


# Stands for `python -m polylect.cli`: a job with rank 0 fails, the others leave a record.
JOB = """#!{python}
import json, os, pathlib, sys
print("overrides", *sys.argv[4:])
if "strategy.rank=0" in sys.argv:
    sys.exit("rank must be at least 1, got 0")
folder = pathlib.Path(os.environ["{variable}"])
folder.mkdir()
(folder / "record.json").write_text(json.dumps({{"metrics": {{"objective": 12.5}}}}))
"""


def test_a_failing_job_is_shown_at_once_and_the_others_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = tmp_path / "job"
    job.write_text(JOB.format(python=sys.executable, variable=RUN_FOLDER))
    job.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(job))
    assert run(["train", "-m", *SHORT, f"runs={tmp_path}", "strategy.rank=0,2"]) == 1
    shown = capfd.readouterr().out.splitlines()
    assert shown[0] == "sweep job 0: strategy.rank=0 …"
    assert shown[1].startswith("sweep job 0 FAILED with exit code 1, log ")
    second = shown.index("sweep job 1: strategy.rank=2 …")
    assert shown[second - 1] == "rank must be at least 1, got 0"
    assert shown[second + 1].startswith("sweep job 1 done: objective 12.5")

    first, second = jobs_of(tmp_path)
    assert (first.overrides, second.overrides) == (["strategy.rank=0"], ["strategy.rank=2"])
    assert (first.exit, second.exit) == (1, 0)
    assert (first.objective, second.objective) == (None, 12.5)
    assert Path(second.folder).name == "001_rank=2"
    log = Path(second.log).read_text(encoding="utf-8")
    assert "~data.train +data.train={" in log  # as it was given
    assert log.split()[-2:] == ["strategy.rank=2", "hydra.mode=RUN"]
    assert RUN_FOLDER not in os.environ


@pytest.mark.slow
def test_jobs_are_runs_with_records_of_their_own(tmp_path: Path) -> None:
    assert run(["train", "-m", *SHORT, f"runs={tmp_path}", "strategy.rank=0,2"]) == 1
    first, second = jobs_of(tmp_path)
    assert (first.exit, second.exit) == (2, 0)
    log = Path(first.log).read_text(encoding="utf-8")
    assert "strategy.rank of adapter en-de must be at least 1, got 0" in log
    assert record(Path(second.folder))["metrics"]["objective"] == second.objective < 0
    assert record(Path(second.folder))["config"]["strategy"]["rank"] == 2


@pytest.mark.slow
def test_a_sweep_file_starts_the_sweep(tmp_path: Path) -> None:
    assert run(["train", "sweep=seeds", *SHORT, f"runs={tmp_path}"]) == 0
    jobs = jobs_of(tmp_path)
    assert [job.overrides for job in jobs] == [["seed=1"], ["seed=2"], ["seed=3"]]
    assert len({job.folder for job in jobs}) == 3
    assert len({job.objective for job in jobs}) == 3
    assert [record(Path(job.folder))["config"]["seed"] for job in jobs] == [1, 2, 3]


@pytest.mark.slow
def test_a_sweep_that_is_stopped_lets_its_job_save(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "polylect.cli", "train", "-m", *TRAIN, f"runs={tmp_path}"]
    sweep = subprocess.Popen([*command, "trainer.max_steps=100000", "seed=1,2"])
    steps = "**/checkpoints/last.ckpt"
    deadline = time.monotonic() + SECONDS
    while not list(tmp_path.glob(steps)) and time.monotonic() < deadline:
        time.sleep(0.2)
    sweep.send_signal(signal.SIGTERM)
    assert sweep.wait(SECONDS) == 143
    (folder,) = {path.parent.parent for path in tmp_path.glob(steps)}
    assert record(folder)["status"] == "interrupted"


# A launcher, its worker, and the worker's job, which says when it is told to stop.
LAUNCHER = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {worker!r}, *sys.argv[1:]])
time.sleep(600)
"""
WORKER = """
import os, sys
from polylect.run.sweep.process import run_subprocess, stop_with
stop_with(os.getppid())
run_subprocess([sys.executable, "-c", {job!r}, *sys.argv[1:]], None, os.environ)
"""
STOPPABLE_JOB = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def stop(*_):
    (folder / "saved").touch()
    sys.exit()
signal.signal(signal.SIGTERM, stop)
(folder / "runs").touch()
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_launcher_that_is_killed_leaves_no_job_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    program = LAUNCHER.format(worker=WORKER.format(job=STOPPABLE_JOB))
    launcher = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    wait_for(tmp_path / "runs")
    launcher.send_signal(number)
    launcher.wait(SECONDS)
    wait_for(tmp_path / "saved")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert path.exists()


def test_what_varies_names_the_job() -> None:
    hydra = SimpleNamespace(
        overrides=SimpleNamespace(
            task=["data.train={kind:a,size:3}", "strategy=lora", "+x.y=2", "seed=4", "name=z"]
        ),
        sweeper=SimpleNamespace(params={"seed": "3,4"}),
    )
    given = ["data.train={kind: a, size: 3}", "strategy=lora,full", "+x.y=range(1,3)", "name=z"]
    varied = _varied_overrides(hydra, given)
    assert varied == ["strategy=lora", "+x.y=2", "seed=4"]
    assert _slug(varied) == "strategy=lora_y=2_seed=4"
    assert _slug(["a.b=[1/2]"]) == "b=-1-2-"
    assert _slug([]) == "default"
    assert len(_slug(["key=" + "x" * 500])) <= 80


def test_a_job_killed_from_outside_counts_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(command: list[str], log: IO[str], environment: dict[str, str]) -> int:
        log.write("the last line")
        return -signal.SIGKILL

    monkeypatch.setattr("polylect.run.sweep.job.run_subprocess", killed)
    assert run(["train", "-m", *SHORT, f"runs={tmp_path}", "seed=1,2"]) == 1
    assert capsys.readouterr().out.count("FAILED with exit code -9") == 2
