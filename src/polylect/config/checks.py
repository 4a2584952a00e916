"""Checks across sections of the configuration, made before a weight is loaded."""

import os
from collections.abc import Sequence, Sized
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.config.roots import ConfigError
from polylect.did_you_mean import did_you_mean
from polylect.eval.metrics import TITLES, check_spbleu


def check_settings(cfg: DictConfig) -> None:
    """Check values that would only be missed once the run has begun; raises ConfigError."""
    check_metrics(cfg.metrics)
    check_budget(cfg)
    if not 0 <= cfg.seed < 2**32:
        raise ConfigError(f"seed must be from 0 to {2**32 - 1}, got {cfg.seed}.")
    for key in ("max_steps", "accumulate_grad_batches", "val_check_interval"):
        value = cfg.trainer.get(key, 1)
        if key == "max_steps" and value == -1 and (cfg.trainer.get("max_epochs") or 0) > 0:
            continue  # the passes over the data decide
        if isinstance(value, int | float) and value <= 0:
            raise ConfigError(f"trainer.{key} must be positive, got {value}.")
    if (clip := cfg.trainer.get("gradient_clip_val")) is not None and clip < 0:
        raise ConfigError(f"trainer.gradient_clip_val must not be negative, got {clip}.")
    if cfg.resume and cfg.init_from:
        raise ConfigError(
            "give resume or init_from, not both: resume goes on with a run, init_from starts a new "
            "one from its weights."
        )


def check_budget(cfg: DictConfig) -> None:
    """Raises ConfigError for a budget that is none, or where nothing is asked for."""
    given = {name: cfg.budget[name] for name in ("parameters", "operations")}
    given = {name: value for name, value in given.items() if value is not None}
    if given and not cfg.dry_run:
        raise ConfigError(
            f"budget.{min(given)} is a question to a dry run: give dry_run=true, and train with "
            "the setting that it names."
        )
    if len(given) > 1:
        raise ConfigError("give budget.parameters or budget.operations, not both.")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise ConfigError(f"budget.{name} must be a positive number, got {value}.")


def missing_devices(cfg: DictConfig) -> str | None:
    """Return what the trainer asks for that this machine does not have, as a sentence.

    It is None where the machine has all of that.

    A number of CPU processes is always there, and so is whatever "auto" turns out to be.
    """
    import torch

    accelerator, devices = cfg.trainer.get("accelerator", "auto"), cfg.trainer.get("devices", 1)
    has_none = not torch.cuda.is_available()
    if accelerator not in ("gpu", "cuda") or (accelerator == "gpu" and _has_mps()):
        return None
    if has_none:
        return (
            f"trainer.accelerator={accelerator} asks for GPUs and this machine has none that torch "
            "can use: take trainer=cpu, or a machine with them."
        )
    count = len(devices) if isinstance(devices, Sized) and not isinstance(devices, str) else devices
    there = torch.cuda.device_count()
    if isinstance(count, int) and count > there:
        return f"trainer.devices={devices} asks for more GPUs than this machine has, {there}."
    return None


def on_gpu(cfg: DictConfig) -> bool:
    """Return whether the run is to train on GPUs, of this machine or of another."""
    import torch

    accelerator = cfg.trainer.get("accelerator", "auto")
    return accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())


def crowded_cores(cfg: DictConfig) -> str | None:
    """Return a sentence if more CPU processes are asked for than there are cores, else None."""
    accelerator, devices = cfg.trainer.get("accelerator", "auto"), cfg.trainer.get("devices", 1)
    cores = os.cpu_count() or 1
    if accelerator != "cpu" or not isinstance(devices, int) or devices <= cores:
        return None
    return (
        f"trainer.devices={devices} starts as many processes on this machine's {cores} cores, each "
        f"with a model of its own: take at most {cores}, or fewer with threads each."
    )


def _has_mps() -> bool:
    import torch

    return torch.backends.mps.is_available()


def check_devices(cfg: DictConfig) -> None:
    """Raises ConfigError where the machine lacks what the trainer asks for.

    A dry run says it and goes on, since it may be made on another machine than the run.
    """
    if (sentence := crowded_cores(cfg)) is not None:
        print(f"devices     {sentence}")
    if (sentence := missing_devices(cfg)) is None:
        return
    if not cfg.dry_run:
        raise ConfigError(sentence)
    print(f"devices     {sentence}")


def check_combination(module: Any, cfg: DictConfig) -> None:
    """Check a strategy against the rest of the configuration; raises ConfigError."""
    if not module.trains and not cfg.dry_run:
        raise ConfigError(
            f"strategy {type(module).__name__} does not train: score it with "
            "`polylect evaluate run=null model=…`."
        )
    for name, node in (cfg.callbacks or {}).items():
        if node and not OmegaConf.is_dict(node):
            raise ConfigError(
                f"callbacks.{name} must have keys, got {node}: set one, as in "
                f"callbacks.{name}.monitor=val/loss, or null to do without."
            )
        if monitor := (node or {}).get("monitor"):
            _check_monitor(f"callbacks.{name}.monitor", monitor, module)


def check_data(data: Any, cfg: DictConfig) -> None:
    """Check the data against the base model, before hours are spent.

    All sets are read, for what would fail later should fail now, and before the run has a folder.
    Raises what reading raises, and ValueError for a validation set or a monolingual test set of
    which no text is short enough.
    """
    data.setup("fit")
    if data.tokenizer is not None:  # as it may be in a dry run
        data.val_dataloader()
    if not cfg.evaluate:
        return
    data.setup("test")
    if data.tokenizer is not None and any(
        "-" not in direction for direction in data.directions_of("test")
    ):
        data.test_dataloader()


def check_metrics(metrics: Sequence[str]) -> None:
    """Raises ConfigError with the nearest known metric where one is unknown."""
    if not metrics:
        raise ConfigError("metrics is empty: name at least one, as in metrics=[bleu,chrf++].")
    for metric in metrics:
        if metric not in TITLES:
            raise ConfigError(f"metrics: {metric} does not exist; {did_you_mean(metric, TITLES)}")
    if "spbleu" in metrics:
        check_spbleu()


def _check_monitor(key: str, monitor: str, module: Any) -> None:
    """Raise ConfigError for a monitored metric that is never logged, before training starts."""
    parts = ["", *(f"/{direction}" for direction in module.directions)]
    names = ["train/loss", *(f"val/{what}{part}" for what in ("loss", "chrf") for part in parts)]
    if monitor.startswith(("val/", "train/")) and monitor not in names:
        raise ConfigError(f"{key}={monitor} is not logged; {did_you_mean(monitor, names)}")
    if monitor.startswith("val/chrf") and not module.validate_translations:
        raise ConfigError(
            f"{key}={monitor} needs translations: "
            "set strategy.validate_translations to a number of sentences."
        )
