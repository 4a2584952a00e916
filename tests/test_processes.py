"""Training in processes of their own: two at once, and one that is told to stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import TRAIN, checkpoint, folders, logged, record, same, train

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "polylect.cli", "train", *TRAIN]
TWO = ["trainer=ddp", "trainer.accelerator=cpu"]
SECONDS = 600  # a run takes 20 when nothing else does


def run(*settings: str) -> subprocess.CompletedProcess[str]:
    """One run of the command, which must end by itself."""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(
        [*COMMAND, *settings], capture_output=True, text=True, timeout=SECONDS, env=env
    )


@pytest.mark.parametrize("settings", [[], ["+data.mixing=by_direction"]])
def test_two_processes_train_as_one(settings: list[str], tmp_path: Path) -> None:
    # With one direction per batch a process lacks gradients that the other has.
    both = [*settings, "optim.optimizer.weight_decay=0.5"]
    one = train(
        tmp_path / "one", *both, "trainer.accumulate_grad_batches=2", "trainer.val_check_interval=4"
    )
    done = run(*TWO, *both, f"runs={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("polylect train: ") == 1
    (two,) = folders(tmp_path / "two")
    assert record(two)["status"] == "done"
    for name in ("train/loss", "val/loss", "val/loss/en-fr"):
        assert logged(two, name) == pytest.approx(logged(one, name), abs=1e-5)
    weights = checkpoint(one)["state_dict"]
    for name, tensor in checkpoint(two)["state_dict"].items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-3, rtol=0)


@pytest.mark.parametrize("settings", [[], TWO], ids=["one", "two"])
def test_a_process_that_is_told_to_stop_saves_and_can_go_on(
    settings: list[str], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    long = ["trainer.max_steps=400", "trainer.val_check_interval=40", "strategy.dropout=0.1"]
    process = subprocess.Popen(
        [*COMMAND, *settings, *long, f"runs={runs}"], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + SECONDS
    while not list(runs.glob("tongues/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    shown, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 143
    (first,) = folders(runs)
    assert record(first)["status"] == "interrupted"
    assert f"go on with resume={first}" in shown
    assert 40 <= checkpoint(first)["global_step"] < 400
    if settings:
        return
    whole = train(tmp_path / "whole", *long)
    second = train(runs, f"resume={first}", *long)
    for part in ("state_dict", "optimizer_states"):
        assert same(checkpoint(second)[part], checkpoint(whole)[part])


def test_two_processes_stop_together_after_an_optimizer_step(tmp_path: Path) -> None:
    # The second is told, while it validates between the two micro-batches of the second step.
    settings = [*TWO, "trainer.accumulate_grad_batches=2", "trainer.val_check_interval=3"]
    stop = {"_target_": "tiny.Stop", "hook": "on_validation_batch_end", "rank": 1}
    stopped = run(
        *settings, *(f"+callbacks.stop.{k}={v}" for k, v in stop.items()), f"runs={tmp_path}"
    )
    assert stopped.returncode == 143, stopped.stderr
    (first,) = folders(tmp_path)
    assert record(first)["status"] == "interrupted"
    assert checkpoint(first)["global_step"] == 2
    whole, second = tmp_path / "whole", tmp_path / "second"
    for extra in ([f"runs={whole}"], [f"runs={second}", f"resume={first}"]):
        done = run(*settings, *extra)
        assert done.returncode == 0, done.stderr
    (whole,), (second,) = folders(whole), folders(second)
    for part in ("state_dict", "optimizer_states"):
        assert same(checkpoint(second)[part], checkpoint(whole)[part])


def test_two_processes_end_if_one_is_told_to_stop_while_it_loads(tmp_path: Path) -> None:
    stop = {"_target_": "tiny.Stop", "hook": "setup", "rank": 0}
    ended = run(*TWO, *(f"+callbacks.stop.{k}={v}" for k, v in stop.items()), f"runs={tmp_path}")
    assert ended.returncode == 143, ended.stderr
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "interrupted"
