"""Sweeps: every job by itself, a failure shown at once, the others go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import TRAIN, record

from polylect.cli import run
from polylect.sweep import RUN_FOLDER, _slug, _varied

SHORT = [*TRAIN, "trainer.max_steps=1"]


def ledger(runs: Path) -> list[dict[str, Any]]:
    (path,) = runs.glob("sweeps/*/*/ledger.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_failing_job_is_shown_at_once_and_the_others_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "-m", *SHORT, f"runs={tmp_path}", "strategy.rank=0,2"]) == 1
    shown = capfd.readouterr().out.splitlines()
    failed = next(i for i, line in enumerate(shown) if "FAILED with exit code 2" in line)
    begun = next(i for i, line in enumerate(shown) if line.startswith("sweep job 1: "))
    done = next(i for i, line in enumerate(shown) if line.startswith("sweep job 1 done"))
    assert failed < begun < done
    assert "strategy.rank of adapter en-de must be at least 1, got 0" in "\n".join(shown)

    first, second = ledger(tmp_path)
    assert (first["overrides"], second["overrides"]) == (["strategy.rank=0"], ["strategy.rank=2"])
    assert (first["exit"], second["exit"]) == (2, 0)
    assert first["objective"] is None
    assert record(Path(second["folder"]))["metrics"]["objective"] == second["objective"] < 0
    assert record(Path(second["folder"]))["config"]["strategy"]["rank"] == 2
    assert Path(second["folder"]).name == "001_rank=2"
    assert RUN_FOLDER not in os.environ


@pytest.mark.slow
def test_a_sweep_file_starts_the_sweep(tmp_path: Path) -> None:
    assert run(["train", "sweep=seeds", *SHORT, f"runs={tmp_path}"]) == 0
    jobs = ledger(tmp_path)
    assert [job["overrides"] for job in jobs] == [["seed=1"], ["seed=2"], ["seed=3"]]
    assert len({job["folder"] for job in jobs}) == 3
    assert len({job["objective"] for job in jobs}) == 3
    assert [record(Path(job["folder"]))["config"]["seed"] for job in jobs] == [1, 2, 3]


@pytest.mark.slow
def test_a_sweep_that_is_stopped_lets_its_job_save(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "polylect.cli", "train", "-m", *TRAIN, f"runs={tmp_path}"]
    sweep = subprocess.Popen([*command, "trainer.max_steps=100000", "seed=1,2"])
    steps = "**/checkpoints/last.ckpt"
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(steps)) and time.monotonic() < deadline:
        time.sleep(0.2)
    sweep.send_signal(signal.SIGTERM)
    assert sweep.wait(60) == 143
    (folder,) = {path.parent.parent for path in tmp_path.glob(steps)}
    assert record(folder)["status"] == "interrupted"


def test_what_varies_names_the_job() -> None:
    hydra = SimpleNamespace(
        overrides=SimpleNamespace(
            task=["data.train={kind:a,size:3}", "strategy=lora", "+x.y=2", "seed=4", "name=z"]
        ),
        sweeper=SimpleNamespace(params={"seed": "3,4"}),
    )
    given = ["data.train={kind: a, size: 3}", "strategy=lora,full", "+x.y=range(1,3)", "name=z"]
    varied = _varied(hydra, given)
    assert varied == ["strategy=lora", "+x.y=2", "seed=4"]
    assert _slug(varied) == "strategy=lora_y=2_seed=4"
    assert _slug(["a.b=[1/2]"]) == "b=-1-2-"
    assert _slug([]) == "default"
    assert len(_slug(["key=" + "x" * 500])) <= 80


def test_a_job_killed_from_outside_counts_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(command: list[str], log: Path, environment: dict[str, str]) -> int:
        log.write_text("the last line")
        return -signal.SIGKILL

    monkeypatch.setattr("polylect.sweep._finished", killed)
    assert run(["train", "-m", *SHORT, f"runs={tmp_path}", "seed=1,2"]) == 1
    assert capsys.readouterr().out.count("FAILED with exit code -9") == 2
