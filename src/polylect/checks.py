"""What no single part of the configuration can know, found before a weight is loaded."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from polylect.config import ConfigError
from polylect.eval.metrics import TITLES
from polylect.hints import nearest


def check_settings(cfg: DictConfig) -> None:
    """Values that would only be missed once the run has begun; raises ConfigError."""
    check_metrics(cfg.metrics)
    if not 0 <= cfg.seed < 2**32:
        raise ConfigError(f"seed must be from 0 to {2**32 - 1}, got {cfg.seed}.")
    for key in ("max_steps", "accumulate_grad_batches", "val_check_interval"):
        value = cfg.trainer.get(key, 1)
        if isinstance(value, int | float) and value <= 0:
            raise ConfigError(f"trainer.{key} must be positive, got {value}.")
    if cfg.resume and cfg.init_from:
        raise ConfigError(
            "give resume or init_from, not both: resume goes on with a run, init_from starts a new "
            "one from its weights."
        )


def check_combination(module: Any, cfg: DictConfig) -> None:
    """A strategy against the rest of the configuration; raises ConfigError."""
    if not module.trains and not cfg.dry_run:
        raise ConfigError(
            f"strategy {type(module).__name__} does not train: score it with "
            "`polylect evaluate run=null model=…`."
        )
    if module.single_direction and cfg.data.get("mixing", "mixed") == "mixed":
        raise ConfigError(
            f"strategy {type(module).__name__} needs one direction per batch: "
            "set data.mixing=by_direction."
        )
    for name, node in (cfg.callbacks or {}).items():
        if monitor := (node or {}).get("monitor"):
            _check_monitor(f"callbacks.{name}.monitor", monitor, module)


def check_metrics(metrics: Sequence[str]) -> None:
    """Raises ConfigError with the nearest known metric where one is unknown."""
    if not metrics:
        raise ConfigError("metrics is empty: name at least one, as in metrics=[bleu,chrf++].")
    for metric in metrics:
        if metric not in TITLES:
            raise ConfigError(f"metrics: {metric} does not exist; {nearest(metric, TITLES)}")


def _check_monitor(key: str, monitor: str, module: Any) -> None:
    """A metric that is never logged would be missed at the first validation only."""
    parts = ["", *(f"/{direction}" for direction in module.directions)]
    known = ["train/loss", *(f"val/{what}{part}" for what in ("loss", "chrf") for part in parts)]
    if monitor.startswith(("val/", "train/")) and monitor not in known:
        raise ConfigError(f"{key}={monitor} is not logged; {nearest(monitor, known)}")
    if monitor.startswith("val/chrf") and not module.validate_translations:
        raise ConfigError(
            f"{key}={monitor} needs translations: "
            "set strategy.validate_translations to a number of sentences."
        )
