"""Training in processes of their own: two at once, and one that is told to stop."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.neurons import write_rows
from helpers.tiny import (
    NO_STOP,
    OWN,
    TRAIN,
    checkpoint,
    folders,
    logged_values,
    record,
    same,
    stopping,
    train,
)

from polylect.models.backbone import tiny_backbone

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "polylect.cli", "train", *TRAIN]
TWO = ["trainer=ddp", "trainer.accelerator=cpu"]
SECONDS = 600  # a run takes 20 when nothing else does


def run(*settings: str) -> subprocess.CompletedProcess[str]:
    """One run of the command, which must end by itself."""
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}
    return subprocess.run(
        [*COMMAND, *settings], capture_output=True, text=True, timeout=SECONDS, env=env
    )


@pytest.mark.parametrize(
    "settings",
    [[], ["+data.mixing=by_direction"], ["strategy.init=contrastive", "strategy.train_a=false"]],
)
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
        assert logged_values(two, name) == pytest.approx(logged_values(one, name), abs=1e-5)
    weights = checkpoint(one)["state_dict"]
    for name, tensor in checkpoint(two)["state_dict"].items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-3, rtol=0)


def test_two_processes_scale_the_gradients_of_rows_as_one(tmp_path: Path) -> None:
    """Without an optimizer that evens out sizes, and each step clipped."""
    file = write_rows(tmp_path, tiny_backbone(hidden=32)[0], ("en", "de", "fr"))
    both = ["strategy=landermt", f"strategy.neurons={file}", "strategy.gate=none"]
    both += ["strategy.scaling=awareness", "strategy.shared=true", "+data.mixing=by_direction"]
    both += ["optim.optimizer._target_=torch.optim.SGD", "~optim.optimizer.betas"]
    both += ["optim.optimizer.lr=10", "trainer.gradient_clip_val=0.01"]
    steps = ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval=4"]
    one = train(tmp_path / "one", *both, *steps)
    done = run(*TWO, *both, f"runs={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    (two,) = folders(tmp_path / "two")
    assert record(two)["metrics"]["scaling"] == record(one)["metrics"]["scaling"]
    still = train(tmp_path / "still", *both, *steps, "optim.optimizer.lr=0")
    weights, start = checkpoint(one)["state_dict"], checkpoint(still)["state_dict"]
    found = checkpoint(two)["state_dict"]
    moved = {n for n in weights if not torch.allclose(weights[n], start[n], atol=1e-4)}
    assert any("of_de" in name for name in moved)
    assert any("of_fr" in name for name in moved)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, weights[name], atol=1e-6, rtol=1e-5)


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
    stop = stopping(hook="on_validation_batch_end", rank=1)
    stopped = run(*settings, *stop, f"runs={tmp_path}")
    assert stopped.returncode == 143, stopped.stderr
    (first,) = folders(tmp_path)
    assert record(first)["status"] == "interrupted"
    assert checkpoint(first)["global_step"] == 2
    whole, second = tmp_path / "whole", tmp_path / "second"
    for extra in ([f"runs={whole}"], [OWN, NO_STOP, f"runs={second}", f"resume={first}"]):
        done = run(*settings, *extra)
        assert done.returncode == 0, done.stderr
    (whole,), (second,) = folders(whole), folders(second)
    for part in ("state_dict", "optimizer_states"):
        assert same(checkpoint(second)[part], checkpoint(whole)[part])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_end_together_if_the_loss_of_one_is_not_finite(
    tmp_path: Path, accumulate: int
) -> None:
    spoil = {"_target_": "helpers.tiny.Spoil", "batch": 3, "rank": 1}
    settings = [OWN, *(f"+callbacks.spoil.{key}={value}" for key, value in spoil.items())]
    settings += ["trainer.val_check_interval=2", f"trainer.accumulate_grad_batches={accumulate}"]
    begin = time.monotonic()
    ended = run(*TWO, *settings, f"runs={tmp_path}")
    assert ended.returncode not in (0, 143), ended.stderr
    assert time.monotonic() - begin < SECONDS / 4  # nobody waits for the other until a timeout
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "diverged"
    step = {1: 4, 2: 2}[accumulate]
    words = rf"the loss is not finite \(step {step}, direction en-\w+(, en-\w+)?, learning rate"
    assert re.search(words, ended.stderr), ended.stderr
    assert "Traceback" not in ended.stderr
    assert checkpoint(folder)["global_step"] == 2 // accumulate
    assert not (folder / "adapters").exists()


def test_two_processes_end_if_one_is_told_to_stop_while_it_loads(tmp_path: Path) -> None:
    ended = run(*TWO, *stopping(hook="setup", rank=0), f"runs={tmp_path}")
    assert ended.returncode == 143, ended.stderr
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "interrupted"


@pytest.mark.parametrize("strategy", ["lora", "lora_switch"])
def test_two_processes_measure_the_cosines_of_one(strategy: str, tmp_path: Path) -> None:
    """Of the same rows: two batches of a step, in one process or in two."""
    ledger = [f"strategy={strategy}", "callbacks=ledger", "callbacks.ledger.every=2"]
    ledger += ["optim.optimizer.lr=1e-4"]  # what the two round otherwise stays as small as it is
    steps = ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval=4"]
    one = train(tmp_path / "one", *ledger, *steps)
    done = run(*TWO, *ledger, f"runs={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    (two,) = folders(tmp_path / "two")
    for name, keys in (("cosines", 4), ("updates", 3)):
        measured, expected = (_ledger_values(folder, name, keys) for folder in (two, one))
        assert {step for step, *_ in expected} == {"0", "2", "4"}
        assert measured == pytest.approx(expected, abs=1e-3, rel=1e-3, nan_ok=True)


def _ledger_values(folder: Path, name: str, keys: int) -> dict[tuple[str, ...], float]:
    """The numbers of a table of the ledger, by the first columns and the number's own."""
    with (folder / "ledger" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    return {
        (*row[:keys], column): float(value or "nan")
        for row in rows
        for column, value in zip(head[keys:], row[keys:], strict=True)
    }


@pytest.mark.parametrize("mixing", ["mixed", "by_direction"])
def test_two_processes_keep_one_ledger(mixing: str, tmp_path: Path) -> None:
    # With one direction per batch no process sees both, and all have to end a measurement together.
    ledger = ["strategy=lora", "callbacks=ledger", "callbacks.ledger.every=2"]
    done = run(*TWO, *ledger, f"+data.mixing={mixing}", f"runs={tmp_path}")
    assert done.returncode == 0, done.stderr
    (folder,) = folders(tmp_path)
    assert record(folder)["metrics"]["ledger"]["steps"] == [0, 2, 4]
    written = (folder / "ledger" / "cosines.csv").read_text(encoding="utf-8").splitlines()
    cosines = [line.rpartition(",")[2] for line in written if ",all," in line]
    assert len(cosines) == 3
    assert all(cosines)
