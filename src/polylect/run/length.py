"""The number of steps of a run: the trainer's, or that of so many passes over the data if fewer."""

import math
from collections.abc import Sized
from typing import Any

from omegaconf import DictConfig


def steps_of(cfg: DictConfig, data: Any) -> tuple[int, str]:
    """Return the optimizer steps of a run, and in words where they come from.

    `trainer.max_epochs` counts passes over the training pairs: as many steps as it takes to draw
    as many examples as there are, at what the first draw gives a batch. With max_steps=-1 they
    alone decide.

    Args:
        cfg: of the run.
        data: after setup.
    """
    given, epochs = cfg.trainer.max_steps, cfg.trainer.get("max_epochs")
    if epochs is None or epochs < 0:
        return given, ""
    if epochs == 0:
        return 0, "trainer.max_epochs=0"
    batches = data.training_stream(1).batches_per_pass()
    together = processes_of(cfg) * cfg.trainer.get("accumulate_grad_batches", 1)
    one = max(1, math.ceil(batches / together))
    told = f"{one:,} a pass over the data"
    if given < 0 or epochs * one <= given:
        return epochs * one, f"trainer.max_epochs={epochs}, {told}"
    return given, (
        f"trainer.max_steps; trainer.max_epochs={epochs} would be {epochs * one:,}, {told}"
    )


def processes_of(cfg: DictConfig) -> int:
    """Return how many processes train together."""
    import torch

    devices = cfg.trainer.get("devices", 1)
    if isinstance(devices, Sized) and not isinstance(devices, str):
        count = len(devices)
    elif isinstance(devices, int) and devices > 0:
        count = devices
    else:  # "auto" and -1: all GPUs, or one process on a CPU
        on_cpu = cfg.trainer.get("accelerator", "auto") == "cpu"
        count = 1 if on_cpu else max(1, torch.cuda.device_count())
    return count * int(cfg.trainer.get("num_nodes", 1))
