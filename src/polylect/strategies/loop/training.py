"""`TrainingLoop`: what Lightning calls, the same for every strategy."""

import math
from abc import ABC
from collections.abc import Callable, Mapping, Set
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from polylect.data.batch import TranslationBatch
from polylect.finite import find_nonfinite
from polylect.strategies.checkpoint import (
    check_fit,
    path_in_errors,
    random_state,
    recount,
    restore_random_state,
)
from polylect.strategies.loop.divergence import (
    StepGuard,
    broken_state,
    check_sound,
    clip_units,
    divergence_error,
)
from polylect.strategies.loss import RunningLosses, StepLoss, target_losses


class TrainingLoop(L.LightningModule, ABC):
    """Steps, validation and checkpoints of a strategy, by the hooks of `TranslationModule`.

    Args:
        units: how many sets of parameters learn from rows of their own.
        optimizer, schedule, validate_translations: see `TranslationModule`.
    """

    def __init__(
        self,
        units: int,
        optimizer: Callable[..., Optimizer] | None,
        schedule: Callable[..., LRScheduler] | None,
        validate_translations: int,
    ) -> None:
        super().__init__()
        self.optimizer, self.schedule = optimizer, schedule
        self.validate_translations = validate_translations
        self.strict_loading = False  # a checkpoint holds what the strategy owns, no base weights
        self.about: dict[str, Any] = {}  # stored in every checkpoint: the resolved configuration
        self.base_fingerprint = ""
        self.base_digests: dict[str, str] = {}
        self._losses = StepLoss(units)
        self._guard = StepGuard()
        self.running_losses = RunningLosses(self.directions)
        self._val: dict[str, list[float]] = {}
        self._resumed_state: dict[str, Any] = {}

    def configure_model(self) -> None:
        """Let each process keep a share of the weights, where the trainer's strategy is such."""
        if self._is_sharded:
            self.trainer.strategy.shard(self)

    @property
    def _is_sharded(self) -> bool:
        return hasattr(getattr(self._trainer, "strategy", None), "shard")

    # Steps.

    def on_fit_start(self) -> None:
        self.train()  # Lightning keeps the mode it finds, and without this one dropout is off

    def training_step(self, batch: TranslationBatch, batch_idx: int) -> Float[Tensor, ""]:
        with self.routing(batch):
            losses, rows = target_losses(self.backbone, batch)
            auxiliary = self.auxiliary_loss()
        self._guard.observe(batch.directions, losses, rows)
        self.running_losses.add(batch.directions, losses, rows)
        units = self.units()
        row_units = torch.tensor([units[d] for d in batch.directions], device=rows.device)
        loss = self._losses.add(losses, row_units[rows], auxiliary)
        # Lightning divides by the number of micro-batches; StepLoss has already divided.
        return loss * self.trainer.accumulate_grad_batches

    @property
    def within_step(self) -> bool:
        """Whether micro-batches have been accumulated for an optimizer step that is to come."""
        return self._losses.added > 0

    def gradient_factors(self) -> list[float]:
        """Return by unit what makes its gradients, when a step is due, those of its mean loss."""
        return self._losses.factors()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self._is_sharded:
            self.trainer.strategy.before_optimizer_step()
        self._losses.correct(optimizer.param_groups)
        self._guard.loss = self._losses.mean()
        self.log("train/loss", self._guard.loss, prog_bar=True)
        self.log("train/lr", float(optimizer.param_groups[0]["lr"]))
        for name, value in self.telemetry().items():
            self.log(name, value)
        self._losses.reset()

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each unit on its own; raises RuntimeError where the step is not finite."""
        norms = clip_units(optimizer.param_groups, gradient_clip_val, gradient_clip_algorithm)
        self._guard.check(self._trainer, norms, self.units())

    def configure_optimizers(self) -> Any:
        optimizer, schedule = self.make_optimizer(int(self.trainer.estimated_stepping_batches))
        if schedule is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def make_optimizer(self, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        """Return the optimizer, and its schedule for so many steps.

        Raises ValueError on bad settings.
        """
        if self.optimizer is None:
            raise ValueError(f"{type(self).__name__} was made without an optimizer: give optim=…")
        try:
            optimizer = self.optimizer(self.parameter_groups())
        except (TypeError, ValueError, IndexError) as error:
            settings = getattr(self.optimizer, "keywords", {})
            raise ValueError(f"optim.optimizer does not take {settings}: {error}") from error
        for group in optimizer.param_groups:
            if ratio := group.pop("lr_ratio", None):
                group["lr"] *= ratio  # before the schedule, which goes on from here
        return optimizer, self.schedule(optimizer, steps) if self.schedule else None

    # Validation: loss per direction, and chrF of some translations.

    def on_validation_epoch_start(self) -> None:
        self._val = {}

    def validation_step(
        self, batch: TranslationBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        with self.routing(batch):
            losses, _ = target_losses(self.backbone, batch)
        total = self._val.setdefault(batch.directions[0], [0.0, 0.0])
        total[0] += float(losses.sum())
        total[1] += len(losses)

    def on_validation_epoch_end(self) -> None:
        means = {d: total / max(count, 1) for d, (total, count) in self._val.items()}
        if wrong := [d for d, mean in means.items() if not math.isfinite(mean)]:
            raise divergence_error(self.trainer, "the validation loss", wrong, self.global_step)
        self._log_mean("val/loss", means)
        if self.validate_translations and not self.trainer.sanity_checking:
            self._validate_translations()

    def _validate_translations(self) -> None:
        from sacrebleu.metrics import CHRF

        data, scores = self.trainer.datamodule, {}
        for direction in data.directions_of("val"):
            if "-" not in direction:
                continue
            prompts = data.prompts(direction, "val", self.validate_translations)
            hypotheses = [t.text for t in self.translate(prompts)]
            references = [p.references[0] for p in prompts]
            scores[direction] = CHRF(word_order=2).corpus_score(hypotheses, [references]).score
        self._log_mean("val/chrf", scores)

    def _log_mean(self, name: str, values: Mapping[str, float]) -> None:
        """Log values by direction and their mean; every process has computed the same."""
        for direction, value in values.items():
            self.log(f"{name}/{direction}", value, sync_dist=True)
        if values:
            mean = sum(values.values()) / len(values)
            self.log(name, mean, prog_bar=True, sync_dist=True)

    # Checkpoints: what the strategy owns, the base's fingerprint, and what makes a resumed run go
    # on bit for bit: the random state and, between two optimizer steps, the gradients so far.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        owned = self.owned_names()
        state = checkpoint["state_dict"]
        processes = 1 if self._trainer is None else self.trainer.world_size
        checkpoint["state_dict"] = {name: state[name] for name in state if name in owned}
        checkpoint["polylect"] = {
            "about": self.about,
            "structure": self.structure(),
            "base_fingerprint": self.base_fingerprint,
            "random": random_state(),
            "accumulated": self._accumulated_gradients(),
            "processes": processes,
        }
        wrong = broken_state(checkpoint)
        if processes > 1:  # of sharded weights the first process alone has it
            wrong = self.trainer.strategy.broadcast(wrong)
        if wrong:
            raise divergence_error(
                self.trainer, f"what was learned ({wrong})", [], self.global_step
            )

    def _accumulated_gradients(self) -> dict[str, Any] | None:
        """Return the gradients since the last optimizer step; None if there were none.

        With several processes each has its own, and none is kept: after a checkpoint that a
        validation wrote there, the step consists of the micro-batches that follow. A run that is
        told to stop first ends its step.
        """
        if not self.within_step or self.trainer.world_size > 1 or self._is_sharded:
            return None
        named = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
        return {"gradients": named, "losses": self._losses.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        with path_in_errors(getattr(self._trainer, "ckpt_path", None)):
            self._check_fit(checkpoint, self.owned_names())
            check_sound(broken_state(checkpoint))
        self._resumed_state = checkpoint["polylect"]
        if self._trainer is not None:
            self._resumed_state = recount(checkpoint, self.trainer)

    def _check_fit(self, checkpoint: dict[str, Any], names: Set[str]) -> None:
        ours = checkpoint.get("polylect")
        if ours is None:
            raise ValueError("the checkpoint was not written by polylect: it lacks its section.")
        if ours["base_fingerprint"] != self.base_fingerprint:
            raise ValueError(
                f"the checkpoint belongs to another base model: fingerprint "
                f"{ours['base_fingerprint'][:12]}, this base has {self.base_fingerprint[:12]}."
            )
        check_fit(checkpoint["state_dict"], self.state_dict(), names, type(self).__name__)
        check_sound(find_nonfinite(checkpoint["state_dict"]))

    def load_owned(self, checkpoint: dict[str, Any], but: Set[str] = frozenset()) -> None:
        """Take the weights of a checkpoint, nothing else; raises ValueError if they do not fit.

        Args:
            but: names that the strategy owns and the checkpoint lacks.
        """
        self._check_fit(checkpoint, self.owned_names() - but)
        self.load_state_dict(checkpoint["state_dict"], strict=False)

    def on_train_start(self) -> None:
        restored, self._resumed_state = self._resumed_state, {}
        if restored:
            restore_random_state(restored["random"])
        if accumulated := restored.get("accumulated"):
            self._losses.load_state_dict(accumulated["losses"], self.device)
            for name, parameter in self.named_parameters():
                gradient = accumulated["gradients"].get(name)
                parameter.grad = None if gradient is None else gradient.to(parameter.device)
