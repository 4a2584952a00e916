"""What a sweeper is told of a run: the larger, the better, unless its direction says otherwise."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from polylect.config.roots import ConfigError


def check_objective(cfg: DictConfig) -> None:
    """Raise ConfigError for an objective by which no checkpoint is chosen."""
    if cfg.objective is None:
        return
    checkpoint = (cfg.callbacks or {}).get("checkpoint")
    monitor = checkpoint.get("monitor") if isinstance(checkpoint, DictConfig) else None
    if cfg.objective != monitor:
        raise ConfigError(
            f"objective={cfg.objective} is told of the best checkpoint, which is chosen by "
            f"{monitor}: set callbacks.checkpoint.monitor={cfg.objective}, and its mode."
        )


def objective_of(cfg: DictConfig, trainer: Any, metrics: Mapping[str, Any]) -> float | None:
    """Return the configured objective of a run that has ended; None where it was not measured.

    Args:
        cfg: of the run. Its `objective` names a metric of the best checkpoint; null is the mean
            chrF++ of the test sets, and without such scores -loss on the validation sets.
        trainer: of Lightning, with the callback that chose the checkpoint.
        metrics: of the run's record.
    """
    from polylect.run.results.scoring import mean_chrf

    if cfg.objective is not None:
        callbacks = trainer.checkpoint_callbacks
        chosen, *_ = [c for c in callbacks if getattr(c, "monitor", None) == cfg.objective]
        score = chosen.best_model_score
        return None if score is None else float(score)
    if "test" in metrics:
        return mean_chrf(metrics["test"])
    loss = metrics["train"].get("val/loss")
    return None if loss is None else -loss
