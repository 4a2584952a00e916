"""Sweeps through Hydra's launchers and Optuna's sweeper: jobs elsewhere, told by files alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import fake_jobs
from helpers.tiny import TRAIN

from polylect.run.sweep.ledger import read_jobs

PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit": "hydra_plugins.hydra_submitit_launcher",
    "optuna": "hydra_plugins.hydra_optuna_sweeper",
}


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return fake_jobs.install(tmp_path, monkeypatch)


def sweep(control: Path, plugin: str, *settings: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip(PLUGINS[plugin], reason=f"Hydra's plugin for {plugin} is not installed")
    return launched("train", control, *TRAIN, *settings)


def launched(program: str, control: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polylect.cli", program, "-m", f"runs={control}"]
    return subprocess.run([*command, *settings], capture_output=True, text=True, timeout=300)


def calls(control: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (control / "calls").read_text().splitlines()]


LAUNCHERS = [
    ("joblib", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
    ("submitit", ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]),
]


@pytest.mark.parametrize(("plugin", "launcher"), LAUNCHERS)
def test_a_launcher_reruns_what_is_not_done(
    plugin: str, launcher: list[str], control: Path
) -> None:
    for what in ("fail_2", "kill_3"):
        (control / what).touch()
    first = sweep(control, plugin, "seed=1,2,3", *launcher)
    assert first.returncode == 1, first.stderr
    at_once, listed = first.stdout.split("2 of 3 jobs are not done")
    assert "sweep job 1 FAILED with exit code 2" in at_once and "the reason" in at_once
    assert "the reason" in listed
    (folder,) = control.glob("sweeps/*/*")
    jobs = read_jobs(folder)
    assert [job.status for job in jobs] == ["done", "failed", "interrupted"]
    assert len(calls(control)) == 3

    for what in ("fail_2", "kill_3"):
        (control / what).unlink()
    again = sweep(control, plugin, "seed=1,2,3", *launcher)
    assert again.returncode == 0, again.stderr
    again_run = sorted(calls(control)[3:], key=lambda call: call["seed"])
    assert [call["seed"] for call in again_run] == ["2", "3"]
    assert again_run[1]["resume"] == jobs[2].folder
    assert [job.objective for job in read_jobs(folder)] == [10.0, 20.0, 30.0]


def test_slurm_is_asked_for_what_the_launcher_is_given(
    control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an `sbatch` that keeps the file it is given, and has no room."""
    tools = control / "tools"
    tools.mkdir()
    for name in ("srun", "sbatch"):
        (tools / name).write_text(f'#!/bin/sh\ncp "$1" {control}/submitted\nexit 1\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    asked = {"partition": "gpu", "gpus_per_node": 1, "cpus_per_task": 4, "timeout_min": 90}
    settings = [f"hydra.launcher.{key}={value}" for key, value in asked.items()]
    done = sweep(control, "submitit", "seed=1,2,3", "hydra/launcher=submitit_slurm", *settings)
    assert done.returncode != 0  # which no job has caused
    lines = (control / "submitted").read_text().splitlines()
    wanted = ["partition=gpu", "gpus-per-node=1", "cpus-per-task=4", "time=90", "array=0-2%3"]
    assert {f"#SBATCH --{what}" for what in wanted} <= set(lines)
    (folder,) = control.glob("sweeps/*/*")
    assert f"#SBATCH --output={folder}/.submitit/%A_%a/%A_%a_0_log.out" in lines


def test_jobs_that_run_in_parallel_divide_the_cores(control: Path) -> None:
    _, launcher = LAUNCHERS[0]
    assert sweep(control, "joblib", "seed=1,2", *launcher).returncode == 0
    cores = len(os.sched_getaffinity(0))
    assert [call["threads"] for call in calls(control)] == [str(max(1, cores // 2))] * 2


def test_recipes_go_to_the_launcher(control: Path) -> None:
    _, launcher = LAUNCHERS[0]
    pytest.importorskip(PLUGINS["joblib"], reason="Hydra's plugin for joblib is not installed")
    assert launched("recipe", control, "recipe=landermt", "seed=1,2", *launcher).returncode == 0
    assert {call["seed"] for call in calls(control)} == {"1", "2"}
    assert not any(key.startswith("hydra.launcher") for call in calls(control) for key in call)


TRIALS = ["sweep=optuna", "hydra.sweeper.n_trials=5", "seed=range(1,9)"]


def test_optuna_keeps_what_failed_and_goes_on(control: Path) -> None:
    for seed in (1, 2, 3, 4, 5):
        (control / f"fail_{seed}").touch()
    first = sweep(control, "optuna", *TRIALS)
    (folder,) = control.glob("sweeps/*/*")
    jobs = read_jobs(folder)
    statuses = {job.status for job in jobs}
    assert first.returncode == 1, first.stderr
    assert statuses == {"done", "failed"}
    best = max(job.objective for job in jobs if job.objective is not None)
    results = (folder / "optimization_results.yaml").read_text()
    assert f"best_value: {best}" in results
    before = len(calls(control))
    again = sweep(control, "optuna", *TRIALS)
    assert again.returncode == 1, again.stderr
    retried = {call["seed"] for call in calls(control)[before:]}
    assert retried <= {"1", "2", "3", "4", "5"}  # the others are known


def test_optuna_of_which_all_trials_fail_ends_with_the_list(control: Path) -> None:
    (control / "fail_1").touch()
    done = sweep(control, "optuna", "sweep=optuna", "hydra.sweeper.n_trials=2", "seed=1")
    assert done.returncode == 1
    assert "2 of 2 jobs are not done" in done.stdout and "Traceback" not in done.stderr
