"""The interference ledger: how the gradients of directions lie to each other during a training."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

from polylect.data.batch import TranslationBatch
from polylect.run.interference.history import History
from polylect.run.interference.measuring import Measurement


class InterferenceLedger(L.Callback):
    """Every k steps the cosines of the directions' gradients, layer by layer.

    Gradients are those of the translation loss, without what a strategy adds to it, in training
    mode, of the weights that the step finds, before clipping. They are estimated from sketches, see
    `GradientSketch`. Training is the same to the bit with and without.

    What is measured is appended to `ledger/cosines.csv` and `ledger/updates.csv` of the run folder
    and goes to the loggers (over all layers); the means over the steps are in the record.

    Args:
        every: optimizer steps from one measurement to the next.
        share: of the rows of a batch that are sent through the model once more where directions
            share parameters.
        size: numbers kept of each parameter's gradient; an inner product of gradients is off by
            about one part in the root of it.
        seed: of the random projection and of the rows.

    Raises:
        ValueError: for settings that are out of range, and before training for a single direction.
    """

    def __init__(
        self, every: int = 20, share: float | int = 0.4, size: int = 1021, seed: int = 0
    ) -> None:
        if every < 1:
            raise ValueError(f"callbacks.ledger.every must be at least 1, got {every}.")
        if not 0 < share <= 1:
            raise ValueError(f"callbacks.ledger.share must be above 0, at most 1, got {share}.")
        if size < 2:
            raise ValueError(f"callbacks.ledger.size must be at least 2, got {size}.")
        self.every, self.share, self.size, self.seed = every, float(share), size, seed
        self.history: History | None = None
        self._measurement: Measurement | None = None
        self._resumed: dict[str, Any] = {}
        self._written = 0
        self._own_seconds = self._step_seconds = self._batch_began = 0.0

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        if len(pl_module.directions) < 2:
            raise ValueError(
                "callbacks=ledger compares the gradients of directions, and data.directions has "
                f"only {', '.join(pl_module.directions) or 'none'}: leave the ledger out."
            )

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        groups = trainer.optimizers[0].param_groups
        self._measurement = Measurement(pl_module, groups, self.share, self.size, self.seed)
        self.history = History(pl_module.directions, list(self._measurement.sketch.layers))
        if self._resumed:
            self.history.load_state_dict(self._resumed["history"])
            self._measurement.load_state_dict(self._resumed["measurement"])
            self._resumed = {}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: TranslationBatch, batch_idx: int
    ) -> None:
        self._batch_began = _seconds(pl_module.device)
        measurement, step = self._measurement, trainer.global_step
        if measurement.begun is None:
            if pl_module.within_step or step % self.every:
                return
            measurement.begin(step)
        with self._timed(pl_module):
            # Counted over all processes: what is drawn does not depend on how many there are.
            number = trainer.fit_loop.total_batch_idx * trainer.world_size + trainer.global_rank
            measurement.take_batch(trainer, batch, number)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        measurement, step = self._measurement, trainer.global_step
        if measurement.begun is None:
            return
        with self._timed(pl_module):
            begun = measurement.begun
            measurement.take_step(pl_module.gradient_factors())
            gram = measurement.end(trainer, last=step + 1 >= begun + self.every)
            if gram is not None:
                self.history.add(begun, gram)
                self._tell(trainer)

    def _tell(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        self.history.write(Path(trainer.default_root_dir), self._written)
        self._written = len(self.history.steps)
        for logger in trainer.loggers:
            logger.log_metrics(self.history.last_values(), step=trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: object) -> None:
        self._step_seconds += _seconds(pl_module.device) - self._batch_began

    def _timed(self, module: Any) -> "_Stopwatch":
        return _Stopwatch(self, module.device)

    def state_dict(self) -> dict[str, Any]:
        if self.history is None or self._measurement is None:
            return {}
        parts = {"history": self.history, "measurement": self._measurement}
        return {name: part.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resumed = state_dict

    def report(self) -> dict[str, Any]:
        """Return settings, the steps, means over them, and the overhead, for the record.

        The overhead is the ledger's time by that of the training steps without it, in this process:
        of the processor on a CPU, which other programs do not change, and on a GPU of the clock.
        """
        if self.history is None:
            return {}
        rest = self._step_seconds - self._own_seconds
        return {
            "every": self.every,
            "share": self.share,
            "size": self._measurement.sketch.size,
            "seed": self.seed,
            "steps": self.history.steps,
            "means": self.history.means(),
            "overhead": round(self._own_seconds / rest, 4) if rest > 0 else None,
        }


def ledger_report(callbacks: Sequence[Any]) -> dict[str, Any]:
    """Return what the record has of the ledger among a run's callbacks; nothing without one."""
    ledgers = [own for own in callbacks if isinstance(own, InterferenceLedger)]
    return {"ledger": ledgers[0].report()} if ledgers else {}


class _Stopwatch:
    """Adds the seconds of a block to those of the ledger, with what a GPU does in them."""

    def __init__(self, ledger: InterferenceLedger, device: torch.device) -> None:
        self._ledger, self._device = ledger, device

    def __enter__(self) -> None:
        self._began = self._now()

    def __exit__(self, *_: object) -> None:
        self._ledger._own_seconds += self._now() - self._began

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return _seconds(self._device)


def _seconds(device: torch.device) -> float:
    return time.process_time() if device.type == "cpu" else time.perf_counter()
