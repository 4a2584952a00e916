"""Whole training runs on a tiny model."""

from pathlib import Path

import pytest
import torch
from tiny import TRAIN, checkpoint, folders, logged, record, train

from polylect.cli import run

# Dropout makes the random state matter; validation falls between two optimizer steps.
LONG = ["strategy.dropout=0.3", "trainer.accumulate_grad_batches=2", "trainer.val_check_interval=5"]
STOPS = [
    ("on_train_batch_end", 3),  # a micro-batch has been accumulated
    ("on_train_batch_end", 4),
    ("on_train_batch_end", 5),  # a validation follows
    ("on_validation_batch_end", 2),
    ("on_validation_end", 1),
]


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("whole"), *LONG)


def stopped(runs: Path, *overrides: str, hook: str, after: int) -> Path:
    stop = ["+callbacks.stop._target_=tiny.Stop", f"+callbacks.stop.hook={hook}"]
    with pytest.raises(SystemExit) as caught:
        run(["train", *TRAIN, f"runs={runs}", *overrides, *stop, f"+callbacks.stop.after={after}"])
    assert caught.value.code == 143
    (folder,) = folders(runs)
    return folder


@pytest.mark.parametrize(("hook", "after"), STOPS)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    uninterrupted: Path, tmp_path: Path, hook: str, after: int
) -> None:
    first = stopped(tmp_path, *LONG, hook=hook, after=after)
    assert record(first)["status"] == "interrupted"
    second = train(tmp_path, *LONG, f"resume={first}")
    torch.testing.assert_close(
        checkpoint(second)["state_dict"], checkpoint(uninterrupted)["state_dict"], rtol=0, atol=0
    )
    torch.testing.assert_close(
        checkpoint(second)["optimizer_states"],
        checkpoint(uninterrupted)["optimizer_states"],
        rtol=0,
        atol=0,
    )
    for name in ("train/loss", "train/lr", "val/loss"):
        assert logged(first, name) | logged(second, name) == logged(uninterrupted, name)
    torch.testing.assert_close(
        checkpoint(second, "best")["state_dict"],
        checkpoint(uninterrupted, "best")["state_dict"],
        rtol=0,
        atol=0,
    )
