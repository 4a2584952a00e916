"""Real trainings of a sweep killed by SIGKILL: the same command goes on to the same weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.tiny import TRAIN

from polylect.run.sweep.ledger import read_jobs

SECONDS = 600  # a job takes 20 when nothing else runs


def command(runs: Path) -> list[str]:
    settings = [*TRAIN, "trainer.max_steps=40", f"runs={runs}", "seed=1,2", "strategy=lora"]
    return [sys.executable, "-m", "polylect.cli", "train", "-m", *settings]


def last_weights(folder: str) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(Path(folder) / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 40
    return checkpoint["state_dict"]


@pytest.mark.slow
def test_jobs_killed_on_the_way_go_on_to_the_same_weights(tmp_path: Path) -> None:
    sweep = subprocess.Popen(command(tmp_path / "killed"), start_new_session=True)
    deadline = time.monotonic() + SECONDS
    checkpoint = "sweeps/*/*/*/checkpoints/last.ckpt"
    while not list((tmp_path / "killed").glob(checkpoint)) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    (folder,) = (tmp_path / "killed").glob("sweeps/*/*")
    (first,) = read_jobs(folder)
    while first.status == "running" and time.monotonic() < deadline:  # its process is still dying
        time.sleep(0.05)
        (first,) = read_jobs(folder)
    assert first.status == "interrupted"
    assert subprocess.run(command(tmp_path / "killed")).returncode == 0
    subprocess.run(command(tmp_path / "whole"), check=True)
    (whole,) = (tmp_path / "whole").glob("sweeps/*/*")
    jobs, others = read_jobs(folder), read_jobs(whole)
    assert [job.status for job in jobs] == ["done", "done"]
    assert jobs[0].resumed == first.folder and jobs[1].resumed is None
    for job, other in zip(jobs, others, strict=True):
        assert job.objective == other.objective
        mine, theirs = last_weights(job.folder), last_weights(other.folder)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
