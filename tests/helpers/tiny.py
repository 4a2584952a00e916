"""The smallest runs of the programs, in this process, and what they left behind."""

import copy
import csv
import json
import math
import os
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from polylect.config.roots import conf_folder
from polylect.programs.train import main

MODEL = ["model=tiny", "model.hidden=32"]
DATA = [
    "data.directions=[en-de,en-fr]",
    "~data.train",
    "+data.train={kind: tongues, split: train, size: 60}",
    "data.val.size=6",
    "data.test.size=5",
    "data.tokens_per_batch=512",
]
LENGTH = ["generation.ratio=0", "generation.extra=5"]
TRAIN = [
    *MODEL,
    *DATA,
    *LENGTH,
    "trainer.max_steps=6",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "+trainer.enable_progress_bar=false",
    "evaluate=false",
    "evaluate_base=false",
]


@cache
def _compose(program: str, choices: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose(program, list(choices))


@cache
def _parse(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


def config(program: str, *overrides: str) -> DictConfig:
    """The composed configuration, without the command line's kindness about a missing plus.

    Only the files that are chosen are composed, once, which takes a fifth of a second; Hydra sets
    values after that in any case.
    """
    parsed = [_parse(override) for override in overrides]
    is_choice = [(conf_folder() / override.key_or_group).is_dir() for override in parsed]
    choices = tuple(o for o, choice in zip(overrides, is_choice, strict=True) if choice)
    cfg = copy.deepcopy(_compose(program, choices))
    values = [o for o, choice in zip(parsed, is_choice, strict=True) if not choice]
    ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
    return cfg


def attempt(runs: Path, *overrides: str) -> None:
    """Begin to train; a failure is an exception."""
    main(config("train", *TRAIN, f"runs={runs}", *overrides))


def train(runs: Path, *overrides: str) -> Path:
    """Train to the end; the run folder."""
    before = folders(runs)
    attempt(runs, *overrides)
    (folder,) = folders(runs) - before
    return folder


def folders(runs: Path) -> set[Path]:
    return {path for path in runs.glob("*/*") if path.is_dir()}


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


def checkpoint(folder: Path, name: str = "last") -> dict[str, Any]:
    path = folder / "checkpoints" / f"{name}.ckpt"
    return torch.load(path, map_location="cpu", weights_only=True)


def logged_values(folder: Path, name: str) -> dict[int, float]:
    """The values of one metric by step."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {int(r["step"]): float(r[name]) for r in csv.DictReader(file) if r.get(name)}


class Stop(L.Callback):
    """Sends a signal to this process in one of Lightning's hooks, the `after`-th time.

    Of several processes only the one of that `rank` gets it. It waits so many seconds before.
    """

    def __init__(
        self,
        hook: str = "on_train_batch_end",
        after: int = 1,
        number: int = signal.SIGTERM,
        rank: int = 0,
        wait: float = 0.0,
    ) -> None:
        self.left, self.number, self.wait = after, number, wait
        if os.environ.get("LOCAL_RANK", "0") == str(rank):
            setattr(self, hook, self._count)

    def _count(self, *_: object, **__: object) -> None:
        self.left -= 1
        if self.left == 0:
            time.sleep(self.wait)
            os.kill(os.getpid(), self.number)


OWN = "packages=[helpers.tiny]"  # this module is no part of polylect
NO_STOP = "+callbacks.stop=null"


def stopping(**settings: Any) -> list[str]:
    """The overrides of a run with such a `Stop`."""
    settings = {"_target_": "helpers.tiny.Stop"} | settings
    return [OWN, *(f"+callbacks.stop.{key}={value}" for key, value in settings.items())]


class Spoil(L.Callback):
    """From one batch on the model of one of several processes computes NaN."""

    def __init__(self, batch: int, rank: int) -> None:
        self.batch, self.here = batch, os.environ.get("LOCAL_RANK", "0") == str(rank)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if self.here and batch_idx == self.batch:
            module.backbone.model.norm.register_forward_hook(lambda *hooked: hooked[-1] * math.nan)


class Fail(L.Callback):
    """A bug, after the first batch."""

    def on_train_batch_end(self, *_: object) -> None:
        raise ZeroDivisionError("a bug")


def same(one: Any, other: Any) -> bool:
    """Whether two checkpoints' parts are equal, tensors bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
