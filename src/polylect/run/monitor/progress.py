"""The progress of a training: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar


class Pace:
    """How far a training is and how fast: what a line about it says.

    Time for validation counts in the time left, and not in the tokens per second.
    """

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None  # step and time at which this process began
        self._last = (0, 0.0)  # tokens and time when the speed was last told
        self._paused_seconds = 0.0  # seconds of validation since then

    def start(self, trainer: L.Trainer) -> None:
        """Begins to measure, when the first batch is about to be given out."""
        now = time.monotonic()
        self._first = (trainer.global_step, now)
        self._last = (self._tokens(trainer), now)

    def pause(self, seconds: float) -> None:
        """Leaves so many seconds out of the speed."""
        self._paused_seconds += seconds

    def values(self, trainer: L.Trainer, module: Any) -> dict[str, str]:
        """Return the learning rate, losses by direction,
        tokens per second since last asked, time left.
        """
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        values = losses(module.running_losses.means()) | {"lr": f"{max(rates):.1e}"}
        tokens, now = self._tokens(trainer), time.monotonic()
        seconds = now - self._last[1] - self._paused_seconds
        if seconds > 0 and tokens > self._last[0]:
            values["tokens/s"] = f"{(tokens - self._last[0]) / seconds:,.0f}"
        self._last, self._paused_seconds = (tokens, now), 0.0
        first, began = self._first or (0, now)
        steps = trainer.global_step - first
        if steps > 0 and trainer.max_steps > trainer.global_step:
            left = (trainer.max_steps - trainer.global_step) * (now - began) / steps
            values["left"] = clock(left)
        return values

    @staticmethod
    def _tokens(trainer: L.Trainer) -> int:
        """Return the tokens of sources and targets that were given out, without padding."""
        return trainer.datamodule.stream.report()["tokens"]


MOST_LOSSES = 6


def losses(means: Mapping[str, float]) -> dict[str, str]:
    """Return running losses for a line: their mean and each, or of many the lowest and highest."""
    if not means:
        return {}
    values = {"loss": f"{sum(means.values()) / len(means):.3f}"}
    if len(means) == 1:
        return values
    if len(means) <= MOST_LOSSES:
        return values | {direction: f"{mean:.3f}" for direction, mean in means.items()}
    lowest, *_, highest = sorted(means, key=lambda direction: means[direction])
    return values | {
        "lowest": f"{means[lowest]:.3f} {lowest}",
        "highest": f"{means[highest]:.3f} {highest}",
    }


def clock(seconds: float) -> str:
    """Return minutes and seconds, with hours where there are some: 2:05, 1:02:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def validation_line(trainer: L.Trainer) -> str:
    """Return what a validation has found: the mean loss and chrF++, and the losses by direction."""
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
    means = {k: v for k, v in metrics.items() if k in ("val/loss", "val/chrf")}
    parts = losses({k[9:]: v for k, v in metrics.items() if k.startswith("val/loss/")})
    parts.pop("loss", None)
    columns = ["  ".join(f"{k} {v:.3f}" for k, v in means.items())]
    columns += [", ".join(f"{name} {value}" for name, value in parts.items())] if parts else []
    return f"step {trainer.global_step}  {'  '.join(columns)}"


class PlainProgress(ProgressBar):
    """A line now and then, for logs and files: by parts of the training, and every minute."""

    def __init__(self, lines: int = 10, seconds: float = 60.0) -> None:
        super().__init__()
        self.lines, self.seconds = lines, seconds
        self._pace, self._last_step, self._last_print = Pace(), 0, 0.0
        self._enabled, self._validation = True, 0.0

    def enable(self) -> None:
        self._enabled = True

    def disable(self) -> None:
        """Say nothing: Lightning calls this in all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pace.start(trainer)
        self._last_print = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        step, last, now = trainer.global_step, trainer.max_steps, time.monotonic()
        if not self._enabled or step == self._last_step:
            return
        if (
            step % max(1, last // self.lines)
            and step != last
            and now - self._last_print < self.seconds
        ):
            return
        self._last_step, self._last_print = step, now
        values = self._pace.values(trainer, pl_module)
        text = "  ".join(f"{name} {value}" for name, value in values.items())
        print(f"step {step}/{last}  {text}", flush=True)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._pace.pause(time.monotonic() - self._validation)
        if self._enabled and trainer.state.fn == "fit" and not trainer.sanity_checking:
            print(validation_line(trainer), flush=True)


class TerminalProgress(TQDMProgressBar):
    """A bar with the same values, and a line above it for each validation."""

    def __init__(self, seconds: float = 1.0) -> None:
        super().__init__(refresh_rate=5)
        self.seconds = seconds
        self._pace, self._validation, self._last_update = Pace(), 0.0, 0.0
        self._values: dict[str, str] = {}

    def get_metrics(self, trainer: L.Trainer, pl_module: Any) -> dict[str, Any]:
        # The bar tells the time left itself, and Lightning's own metrics are those of one batch.
        now = time.monotonic()
        if now - self._last_update >= self.seconds:
            self._last_update = now
            self._values |= self._pace.values(trainer, pl_module)
        return {name: value for name, value in self._values.items() if name != "left"}

    def on_train_epoch_start(self, trainer: L.Trainer, *hooked: Any) -> None:
        super().on_train_epoch_start(trainer, *hooked)
        self.train_progress_bar.set_description("training")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._pace.start(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._validation = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self._pace.pause(time.monotonic() - self._validation)
        if not self.is_disabled and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.print(validation_line(trainer))


def progress() -> ProgressBar:
    """Return a bar on a terminal, plain lines elsewhere."""
    return TerminalProgress() if sys.stderr.isatty() else PlainProgress()
