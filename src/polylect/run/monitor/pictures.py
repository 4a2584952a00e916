"""Pictures and matrices at the end of a training, in the run folder and for loggers."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from polylect import plots
from polylect.run.monitor.loggers import log_matrices, log_pictures
from polylect.run.record import Record


def draw(trainer: Any, module: Any, folder: Path, record: Record) -> None:
    """Save the pictures of every run and the strategy's own; loggers get them, and matrices."""
    for logger in trainer.loggers:
        logger.save()  # metrics.csv, of which the pictures tell
    files = plots.save_all(
        folder, lambda: plots.of_run(folder, asdict(record)), lambda: module.pictures(folder)
    )
    log_pictures(trainer.loggers, files, trainer.global_step)
    log_matrices(trainer.loggers, folder, record.metrics)
