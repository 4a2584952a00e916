"""Callbacks that belong to every run."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities.exceptions import SIGTERMException


class SaveOnTermination(L.Callback):
    """Write `last.ckpt` when the run is asked to stop (SIGTERM or Ctrl-C), between two batches."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.ckpt"

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, SIGTERMException):
            trainer.save_checkpoint(self.path)
            print(f"stopped at step {trainer.global_step}; go on with resume={self.path}")


class DataReport(L.Callback):
    """Log what the batches really held: realised examples per direction and the padding share."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._log(trainer)

    def _log(self, trainer: L.Trainer) -> None:
        if not trainer.loggers or trainer.state.fn != "fit":
            return
        values = {f"data/{k}": v for k, v in _flat(trainer.datamodule.stream.report()).items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)


def _flat(report: dict[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in report.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}/")
        else:
            found[f"{prefix}{key}"] = float(value)
    return found
