"""The smallest runs of the programs, in this process, and what they left behind."""

import csv
import json
import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import torch

from polylect.cli import run

MODEL = ["model=tiny", "model.hidden=32", "model.vocabulary=400"]
DATA = [
    "data.directions=[en-de,en-fr]",
    "data.train.size=60",
    "data.val.size=6",
    "data.test.size=5",
    "data.tokens_per_batch=512",
]
LENGTH = ["generation.ratio=0", "generation.extra=5"]
TRAIN = [
    *MODEL,
    *DATA,
    *LENGTH,
    "strategy.rank=4",
    "trainer.max_steps=6",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "evaluate=false",
    "evaluate_base=false",
]


def train(runs: Path, *overrides: str) -> Path:
    """Train to the end; the run folder."""
    before = folders(runs)
    assert run(["train", *TRAIN, f"runs={runs}", *overrides]) == 0
    (made,) = folders(runs) - before
    return made


def folders(runs: Path) -> set[Path]:
    return {path for path in runs.glob("*/*") if path.is_dir()}


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


def checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    path = folder / "checkpoints" / f"{name}.ckpt"
    return torch.load(path, map_location="cpu", weights_only=False)


def logged(folder: Path, name: str) -> dict[int, float]:
    """The values of one metric by step."""
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return {int(r["step"]): float(r[name]) for r in csv.DictReader(file) if r.get(name)}


class Stop(L.Callback):
    """Sends SIGTERM to this process in one of Lightning's hooks, the `after`-th time."""

    def __init__(self, hook: str = "on_train_batch_end", after: int = 1) -> None:
        self.left = after
        setattr(self, hook, self._count)

    def _count(self, *_: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
