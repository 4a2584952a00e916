"""Callbacks that belong to every run."""

import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from polylect.files import write_saved
from polylect.run.record import advise_on_failure
from polylect.strategies.checkpoint import read_checkpoint

# Lightning's counters of a validation that was begun: a resumed run then does it from its start.
_BEGUN = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
_NOT_BEGUN = dict.fromkeys(_BEGUN, 0)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the one that it replaces, which stays if there is no room."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Raises Unwritable, with how to go on from the checkpoint that is there."""
        last = Path(path).with_name("last.ckpt")
        way = f"go on with resume={last}" if last.is_file() else "give the same command again"
        with advise_on_failure(way):
            write_saved(Path(path), checkpoint)


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: the best validation of the whole run, of the part before `resume` as well.

    Attributes:
        resumed: the checkpoint that the run goes on from.
    """

    resumed: Path | None = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy the best checkpoint so far into the folder of the resumed run.

        It is looked for beside the checkpoint that the run goes on from: the run folder may have
        moved, and what is copied must not be any file that a checkpoint names.
        """
        best, score = Path(state_dict["best_model_path"]), state_dict["best_model_score"]
        if self.resumed is not None:
            best = self.resumed.parent / best.name
        state = state_dict | {"dirpath": self.dirpath, "last_model_path": ""}
        if best.is_file():
            read_checkpoint(best)  # what cannot be read must not be found out at the end
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
        self._stop_requested = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            trainer._signal_connector._sigterm_notifier_fn = self._ask

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # While a run loads, a signal ends it at once. Lightning registers its own handler next, and
        # would also call the one that it finds.
        with suppress(ValueError):  # only the main thread has signals
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _ask(self, *_: object) -> None:
        self._stop_requested = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: object) -> None:
        if not pl_module.within_step:
            self._agree(trainer)

    on_validation_batch_end = on_train_batch_end

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._agree(trainer)  # a signal since the last batch

    def _agree(self, trainer: L.Trainer) -> None:
        if trainer.world_size == 1:
            return
        if trainer.strategy.reduce_boolean_decision(self._stop_requested, all=False):
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


class RunningLossReport(L.Callback):
    """Log `train/running/<direction>` whenever Lightning logs a step."""

    def __init__(self) -> None:
        self._logged = 0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: object) -> None:
        step = trainer.global_step
        if step == self._logged or step % trainer.log_every_n_steps or not trainer.is_global_zero:
            return
        self._logged = step
        values = pl_module.running_losses.means()
        for logger in trainer.loggers:
            # Lightning counts from 0 the steps at which it logs.
            logger.log_metrics({f"train/running/{d}": v for d, v in values.items()}, step=step - 1)


class StepClock(L.Callback):
    """Measures how long an optimizer step takes: its batches, and what is between them.

    The first batch, which warms up, does not count, nor what lies around a validation.
    """

    def __init__(self) -> None:
        self._seconds, self._batches = 0.0, 0
        self._began: float | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._began is not None and batch_idx > 1:
            self._seconds, self._batches = self._seconds + now - self._began, self._batches + 1
        self._began = now

    def on_validation_start(self, *_: object) -> None:
        self._began = None

    def seconds_per_step(self, trainer: L.Trainer) -> float | None:
        """Return the mean over the steps; None of a training of few batches."""
        if not self._batches:
            return None
        return round(self._seconds / self._batches * trainer.accumulate_grad_batches, 5)


def own_callbacks(folder: Path) -> list[L.Callback]:
    """Return the callbacks of every run, whose folder this is."""
    last = LastCheckpoint(folder / "checkpoints")
    return [last, StopTogether(), DataReport(), RunningLossReport(), StepClock()]


def steps_report(trainer: L.Trainer) -> dict[str, Any]:
    """Return for the record how many steps a training made, and what one took in seconds."""
    (clock,) = [own for own in trainer.callbacks if isinstance(own, StepClock)]
    return {"steps": trainer.global_step, "seconds_per_step": clock.seconds_per_step(trainer)}


@rank_zero_only
def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _flat(report: dict[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in report.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = float(value)
    return flat
