"""Callbacks that belong to every run."""

import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

# Lightning's counters of a validation that was begun: a resumed run then does it from its start.
_BEGUN = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
_NOT_BEGUN = dict.fromkeys(_BEGUN, 0)


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: the best validation of the whole run, of the part before `resume` as well."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """A resumed run has its own folder, into which the best checkpoint so far is copied."""
        best, score = Path(state_dict["best_model_path"]), state_dict["best_model_score"]
        state = state_dict | {"dirpath": self.dirpath, "last_model_path": ""}
        if best.is_file():
            here = Path(self.dirpath or ".") / best.name
            _copy(best, here)
            state |= {"kth_best_model_path": str(here), "best_k_models": {str(here): score}}
            state |= {"best_model_path": str(here), "kth_value": score}
        else:  # moved or deleted: the best of the rest has to do
            state |= {"kth_best_model_path": "", "best_k_models": {}, "best_model_path": ""}
            state |= {"best_model_score": None}
        super().load_state_dict(state)


class LastCheckpoint(Checkpoint):
    """`last.ckpt`, where `resume` goes on: after every validation, at the end, and when stopped.

    A run is stopped by SIGTERM or Ctrl-C, between two batches.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.ckpt"
        self._saved = -1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._saved != trainer.fit_loop.total_batch_idx:
            self._save(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        if isinstance(exception, SIGTERMException):
            self._save(trainer)
            if trainer.is_global_zero:
                print(f"stopped at step {trainer.global_step}; go on with resume={self.path}")

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.received_sigterm and trainer.validating:
            loop = checkpoint["loops"]["fit_loop"]
            loop["epoch_loop.val_loop.batch_progress"] |= {"total": _BEGUN, "current": _NOT_BEGUN}

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved = trainer.fit_loop.total_batch_idx


class StopTogether(L.Callback):
    """With several processes, SIGTERM to one of them stops all after the same batch.

    Lightning's handler broadcasts there and then. If the other processes wait in another collective
    at that moment, they wait for each other for ever. Here the handler takes a note, and processes
    compare notes after every batch, of validation as well; but not within an optimizer step, since
    the gradients of its micro-batches are in no checkpoint.
    """

    def __init__(self) -> None:
        self._asked = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            trainer._signal_connector._sigterm_notifier_fn = self._ask

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # While a run loads, a signal ends it at once. Lightning registers its own handler next, and
        # would also call the one that it finds.
        with suppress(ValueError):  # only the main thread has signals
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: object) -> None:
        if not pl_module.within_step:
            self._agree(trainer)

    on_validation_batch_end = on_train_batch_end

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._agree(trainer)  # a signal since the last batch

    def _agree(self, trainer: L.Trainer) -> None:
        if trainer.world_size == 1:
            return
        if trainer.strategy.reduce_boolean_decision(self._asked, all=False):
            trainer._signal_connector.received_sigterm = True  # Lightning stops after this hook


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


@rank_zero_only
def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _flat(report: dict[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in report.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}/")
        else:
            found[f"{prefix}{key}"] = float(value)
    return found


TABLE_ROWS = 50
"""Translations of each direction in the table that W&B gets."""


def log_results(
    loggers: Sequence[Any], scores: dict[str, dict[str, Any]], data: Any, folder: Path, step: int
) -> None:
    """Log `test/<metric>/<direction>` to every logger, and to W&B a table of translations."""
    values = {
        f"test/{metric}/{direction}": score["value"]
        for direction, found in scores.items()
        for metric, score in found.items()
        if isinstance(score, dict) and "signature" in score
    }
    for logger in loggers:
        logger.log_metrics(values, step=step)
        if isinstance(logger, WandbLogger):
            columns = ["direction", "source", "translation", "reference"]
            logger.log_table("translations", columns=columns, data=_rows(scores, data, folder))


def log_pictures(loggers: Sequence[Any], files: Mapping[str, Path], step: int) -> None:
    """Show pictures, PNG files by name, in W&B as `pictures/<name>`."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for name, file in files.items():
                logger.log_image(f"pictures/{name}", [str(file)], step)


def _rows(scores: dict[str, dict[str, Any]], data: Any, folder: Path) -> list[list[str]]:
    rows = []
    for direction in (d for d in scores if "-" in d):
        path = folder / "outputs" / f"{direction}.txt"
        hypotheses = path.read_text(encoding="utf-8").split("\n")
        pairs = data.pairs(direction, "test")
        for index in range(min(TABLE_ROWS, len(pairs))):
            pair = pairs[index]
            rows.append([direction, pair.source or "", hypotheses[index], pair.target])
    return rows
