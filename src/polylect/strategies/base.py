"""`TranslationModule`: the one loop, and the hooks a strategy overrides."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from polylect.data.batch import Example, TranslationBatch
from polylect.data.prompt import template as find_template
from polylect.library import base_fingerprint
from polylect.strategies.checkpoint import check_fit, random_state, restore_random_state
from polylect.strategies.generation import Generation, Translation, translate, translate_batch
from polylect.strategies.loss import StepLoss, target_losses


class TranslationModule(L.LightningModule, ABC):
    """A base model, what a strategy put into it, and the loop that trains and uses both.

    The constructor is cheap and checks its arguments; `adopt` takes the base model and calls
    `attach`.

    Logged names, on which dashboards and checkpoints rely: `train/loss`, `train/lr`, `val/loss`,
    `val/loss/<direction>`, `val/chrf`, `val/chrf/<direction>`; and from `telemetry`
    `train/aux/<name>` and `routing/<layer>/<what>`.

    Args:
        directions: "en-ta", or "ta" for monolingual text; names without "-" count as such.
        template: name of the prompt template.
        optimizer: makes the optimizer from parameter groups.
        schedule: makes the schedule from the optimizer and the number of steps.
        generation: how translations are decoded.
        validate_translations: sentences per direction translated at each validation, for
            `val/chrf`; 0 for none.
    """

    trains: ClassVar[bool] = True
    identity_at_start: ClassVar[bool] = True
    single_direction: ClassVar[bool] = False

    def __init__(
        self,
        *,
        directions: Sequence[str],
        template: str = "plain",
        optimizer: Callable[..., Optimizer] | None = None,
        schedule: Callable[..., LRScheduler] | None = None,
        generation: Generation | None = None,
        validate_translations: int = 0,
    ) -> None:
        super().__init__()
        if len(set(directions)) != len(directions):
            raise ValueError(f"directions must be distinct, got {list(directions)}.")
        self.directions = tuple(directions)
        self.template = find_template(template)
        self.template_name = template
        self.optimizer, self.schedule = optimizer, schedule
        self.generation = generation or Generation()
        self.validate_translations = validate_translations
        self.strict_loading = False  # a checkpoint holds what the strategy owns, no base weights
        self.about: dict[str, Any] = {}  # stored in every checkpoint: the resolved configuration
        self.tokenizer: Any = None
        self.base_fingerprint = ""
        self._base_names: frozenset[str] = frozenset()
        self._losses = StepLoss(1 + max(self.units().values(), default=0))
        self._val: dict[str, list[float]] = {}
        self._restored: dict[str, Any] = {}

    # Hooks: what a strategy overrides.

    @abstractmethod
    def attach(self) -> None:
        """Freeze the backbone and put this strategy's layers into it, in place, once."""

    def routing(self, batch: TranslationBatch) -> AbstractContextManager:
        """Within it every injected layer knows each row's direction."""
        return nullcontext()

    def auxiliary_loss(self) -> Float[Tensor, "*units"]:
        """Sum of what the layers left behind during the last `routing`: see `StepLoss.add`."""
        return torch.zeros((), device=self.device)

    def units(self) -> Mapping[str, int]:
        """Direction to the set of parameters that learns from its rows alone; one by default."""
        return dict.fromkeys(self.directions, 0) or {"": 0}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trainable parameters for the optimizer; `unit` says which of `units` a group is."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "unit": 0}]

    def telemetry(self) -> dict[str, float]:
        """Numbers about the last forward, for dashboards."""
        return {}

    def routed(self) -> list[dict[str, Any]]:
        """Which adapters were chosen where, as `RouteCounts.rows`; nothing by default."""
        return []

    def export(self, folder: Path) -> None:
        """Write what was trained in a form other programs read; nothing by default."""

    def pictures(self, folder: Path) -> dict[str, Any]:
        """matplotlib figures of what was trained in the run `folder`, by name; none by default."""
        return {}

    def merged(self, name: str, probe: Int[Tensor, "rows length"]) -> tuple[nn.Module, float]:
        """A plain copy of the base with what was trained for `name` written into its weights.

        Returns it, and the largest difference of its logits on the probe from those of this model.
        Raises ValueError where the strategy's function cannot be written so.
        """
        raise ValueError(
            f"strategy {type(self).__name__} cannot be written into the weights of its base."
        )

    def structure(self) -> dict[str, Any]:
        """What beside the configuration decides which layers `attach` makes; for checkpoints."""
        return {}

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        """Take the structure of a checkpoint, before `adopt`, in place of files named in it."""

    # The base model.

    def adopt(self, backbone: nn.Module, tokenizer: Any) -> None:
        """Take the base model and attach the strategy to it."""
        self.tokenizer = tokenizer
        self.base_fingerprint = base_fingerprint(backbone)
        self.backbone = backbone
        self._base_names = frozenset(self.state_dict())
        self.attach()
        self.eval()

    def owned(self) -> set[str]:
        """Names in the state dict that belong to the strategy: trainable, or not there before."""
        trainable = {name for name, p in self.named_parameters() if p.requires_grad}
        return {n for n in self.state_dict() if n in trainable or n not in self._base_names}

    # The loop.

    def on_fit_start(self) -> None:
        self.train()  # Lightning keeps the mode it finds, and without this one dropout is off

    def training_step(self, batch: TranslationBatch, batch_idx: int) -> Float[Tensor, ""]:
        with self.routing(batch):
            losses, rows = target_losses(self.backbone, batch)
            auxiliary = self.auxiliary_loss()
        units = self.units()
        row_units = torch.tensor([units[d] for d in batch.directions], device=rows.device)
        loss = self._losses.add(losses, row_units[rows], auxiliary)
        # Lightning divides by the number of micro-batches; StepLoss has already divided.
        return loss * self.trainer.accumulate_grad_batches

    @property
    def within_step(self) -> bool:
        """Whether micro-batches have been accumulated for an optimizer step that is to come."""
        return self._losses.added > 0

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self._losses.correct(optimizer.param_groups)
        self.log("train/loss", self._losses.mean(), prog_bar=True)
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
        """Clip each unit on its own: one adapter's large gradient must not shrink another's."""
        if not gradient_clip_val:
            return
        units: dict[int, list[nn.Parameter]] = {}
        for group in optimizer.param_groups:
            units.setdefault(group.get("unit", 0), []).extend(group["params"])
        for parameters in units.values():
            if gradient_clip_algorithm == "value":
                torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)
            else:
                torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = self.make_optimizer(int(self.trainer.estimated_stepping_batches))
        if schedule is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def make_optimizer(self, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        """The optimizer, and its schedule for so many steps; raises ValueError on bad settings."""
        if self.optimizer is None:
            raise ValueError(f"{type(self).__name__} was made without an optimizer: give optim=…")
        try:
            optimizer = self.optimizer(self.parameter_groups())
        except (TypeError, ValueError) as error:
            raise ValueError(f"optim.optimizer: {error}") from error
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
        """Values by direction and their mean; every process has computed the same."""
        for direction, value in values.items():
            self.log(f"{name}/{direction}", value, sync_dist=True)
        if values:
            mean = sum(values.values()) / len(values)
            self.log(name, mean, prog_bar=True, sync_dist=True)

    # Translation.

    def ends(self) -> list[int]:
        """Token ids at which a translation stops."""
        return self.template.end_ids(self.tokenizer)

    def predict_step(
        self, batch: TranslationBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> list[Translation]:
        return translate_batch(self, batch, self.ends())

    def translate(self, prompts: Sequence[Example]) -> list[Translation]:
        """Translations of the prompts, in their order."""
        found = dict(self.translate_as_decoded(prompts))
        return [found[i] for i in range(len(prompts))]

    def translate_as_decoded(self, prompts: Sequence[Example]) -> Iterator[tuple[int, Translation]]:
        """Yield (index, translation) as batches are finished: for progress bars."""
        training = self.training
        self.eval()
        try:
            yield from translate(self, prompts, self.ends())
        finally:
            self.train(training)

    def prompt(self, source: str, direction: str) -> Example:
        """The prompt that asks for the translation of a text."""
        ids = self.template.encode(self.tokenizer, source, direction)
        return Example(prompt=ids, target=[], direction=direction, source=source, references=())

    # Checkpoints: what the strategy owns, the base's fingerprint, and what makes a resumed run go
    # on bit for bit: the random state and, between two optimizer steps, the gradients so far.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        owned = self.owned()
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in state if name in owned}
        checkpoint["polylect"] = {
            "about": self.about,
            "structure": self.structure(),
            "base_fingerprint": self.base_fingerprint,
            "random": random_state(),
            "accumulated": self._accumulated(),
        }

    def _accumulated(self) -> dict[str, Any] | None:
        """Gradients of the micro-batches since the last optimizer step; None if there were none.

        With several processes each has its own, and none is kept: after a checkpoint that a
        validation wrote there, the step consists of the micro-batches that follow. A run that is
        told to stop first ends its step.
        """
        if not self.within_step or self.trainer.world_size > 1:
            return None
        named = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
        return {"gradients": named, "losses": self._losses.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._check_fit(checkpoint, self.owned())
        self._restored = checkpoint["polylect"]

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

    def load_owned(self, checkpoint: dict[str, Any], but: Set[str] = frozenset()) -> None:
        """Take the weights of a checkpoint, nothing else; raises ValueError if they do not fit.

        Args:
            but: names that the strategy owns and the checkpoint lacks.
        """
        self._check_fit(checkpoint, self.owned() - but)
        self.load_state_dict(checkpoint["state_dict"], strict=False)

    def load_stage(self, checkpoint: dict[str, Any]) -> None:
        """Take the weights of the stage before (`init_from`); raises as `load_owned`."""
        self.load_owned(checkpoint)

    def on_train_start(self) -> None:
        restored, self._restored = self._restored, {}
        if restored:
            restore_random_state(restored["random"])
        if accumulated := restored.get("accumulated"):
            self._losses.load_state_dict(accumulated["losses"], self.device)
            for name, parameter in self.named_parameters():
                gradient = accumulated["gradients"].get(name)
                parameter.grad = None if gradient is None else gradient.to(parameter.device)
