"""`TranslationModule`: the one loop, and the hooks a strategy overrides."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from polylect.data.batch import IGNORED, Example, TranslationBatch
from polylect.data.prompt import template as find_template
from polylect.did_you_mean import did_you_mean
from polylect.finite import find_nonfinite
from polylect.layers.context import RoutingContext
from polylect.library.adapter import trained_with_examples
from polylect.library.fingerprint import fingerprint_of, tensor_digests
from polylect.models.gradient_checkpointing import checkpoint_layers, is_checkpointed
from polylect.models.source import is_outline
from polylect.strategies.decoding.translation import UNWATCHED, Translation, Watch
from polylect.strategies.generation import Generation, translate
from polylect.strategies.loop.training import TrainingLoop


def prompt_lengths(batch: TranslationBatch) -> Int[Tensor, " rows"]:
    """Return the tokens of the source prompt of each row: those that are read and not learned."""
    return ((batch.labels == IGNORED) & batch.attention_mask.bool()).sum(1)


class TranslationModule(TrainingLoop):
    """A base model, what a strategy put into it, and the loop that trains and uses both.

    The constructor is cheap and checks its arguments; `set_backbone` takes the base model and calls
    `attach`.

    Logged names, on which dashboards and checkpoints rely: `train/loss`, `train/lr`, `val/loss`,
    `val/loss/<direction>`, `val/chrf`, `val/chrf/<direction>`, `train/running/<direction>` (a
    callback logs these, see `RunningLosses`); and from `telemetry`
    `train/aux/<name>` and `routing/<layer>/<what>`.

    Several threads may use one module: within `routing` it is the caller's, and others wait. Only a
    callback inside the caller's own `routing` is refused (see `RoutingContext`).

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
    frozen_base: ClassVar[bool] = False
    """Whether no weight of the base itself ever changes."""
    identity_at_start: ClassVar[bool] = True
    libraries: Mapping[str, Any] = {}
    """Those among whose adapters the strategy chooses, by name."""
    counts: Any = None
    """Which of those were chosen: a `RouteCounts`, where the strategy counts."""
    between_stages: ClassVar[tuple[str, ...]] = ("validate_translations",)
    """Settings that a stage may have otherwise than the one whose weights it begins with: those
    that say nothing of what the weights compute, or that their names and shapes say as well."""

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
        if len(set(directions)) != len(directions):
            raise ValueError(f"directions must be distinct, got {list(directions)}.")
        self.directions = tuple(directions)
        units = 1 + max(self.units().values(), default=0)
        super().__init__(units, optimizer, schedule, validate_translations)
        self.context = RoutingContext()
        self.template = find_template(template)
        self.template_name = template
        self.generation = generation or Generation()
        self.tokenizer: Any = None
        self._base_names: frozenset[str] = frozenset()

    # Hooks: what a strategy overrides.

    @abstractmethod
    def attach(self) -> None:
        """Freeze the backbone and put this strategy's layers into it, in place, once."""

    def routing(self, batch: TranslationBatch) -> AbstractContextManager:
        """Let every injected layer know each row's direction, within the block.

        What it changes of the module, it changes after the route is open or within `context.lock`.
        """
        return self.context.route(batch.directions)

    def auxiliary_loss(self) -> Float[Tensor, "*units"]:
        """Return the sum of what layers left during the last `routing`: see `StepLoss.add`."""
        return torch.zeros((), device=self.device)

    def units(self) -> Mapping[str, int]:
        """Return by direction which set of parameters learns from its rows; one by default."""
        return dict.fromkeys(self.directions, 0) or {"": 0}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return trainable parameters for the optimizer.

        `unit` says which of `units` a group is; `lr_ratio`, where a group has one, is its learning
        rate in units of the optimizer's.
        """
        return [{"params": [p for p in self.parameters() if p.requires_grad], "unit": 0}]

    def telemetry(self) -> dict[str, float]:
        """Return the numbers about the last forward, for dashboards."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return what the record of a run is to say beside settings and scores; must be JSON."""
        return {}

    def routing_rows(self) -> list[dict[str, Any]]:
        """Return which adapters were chosen where, as `RouteCounts.rows`; nothing by default."""
        return [] if self.counts is None else self.counts.rows()

    def count_together(self, gather: Callable[[Any], list[Any]]) -> None:
        """Add up what all processes have counted for `routing_rows`, within each of them.

        Args:
            gather: gives the value of each process.
        """
        if self.counts is not None:
            self.counts.take(gather(self.counts.sums()))

    def export(self, folder: Path) -> None:
        """Write what was trained in a form other programs read; nothing by default."""

    def pictures(self, folder: Path) -> dict[str, Any]:
        """Draw what was trained in the run `folder`: figures by name; none by default."""
        return {}

    def merge_names(self) -> Sequence[str]:
        """Return what `merged_model` takes: directions, adapters, or "model" for all."""
        return [direction for direction in self.directions if "-" in direction]

    def merged_model(self, name: str, probe: Int[Tensor, "rows length"]) -> tuple[nn.Module, float]:
        """Return a plain copy of the base that has what was trained for `name` in its weights.

        Returns it, and the largest difference of its logits on the probe from those of this model.
        Raises ValueError where the strategy's function cannot be written so.
        """
        raise ValueError(
            f"strategy {type(self).__name__} cannot be written into the weights of its base: use "
            "it as it is, or merge one adapter of a library."
        )

    def reads_examples(self, direction: str) -> bool:
        """Return whether what was trained for a direction has seen examples in its prompts."""
        return not self.trains or trained_with_examples(self.about)

    def structure(self) -> dict[str, Any]:
        """Return what beside the configuration decides which layers `attach` makes.

        Checkpoints hold it.
        """
        return {}

    def restore_structure(self, structure: Mapping[str, Any]) -> None:
        """Take a checkpoint's structure, before `set_backbone`, in place of files named in it."""

    # Adapters that are named: for programs that use strategies which load and switch them.

    def named_adapters(self) -> "TranslationModule":
        """Return this strategy, if it loads and switches adapters by name: see `LoRALibrary`.

        Raises:
            ValueError: it does not.
        """
        raise ValueError(
            f"strategy {type(self).__name__} has no adapters to load or switch: that takes a run "
            "with adapters, or strategy=lora_library."
        )

    def check_direction(self, direction: str) -> None:
        """Raises ValueError, with the nearest, for a direction that is not served.

        A strategy without directions takes any.
        """
        if self.directions and direction not in self.directions:
            hint = did_you_mean(direction, self.directions)
            raise ValueError(f"direction {direction} was not trained; {hint}")

    def cut_to_budget(
        self, named: Sequence[str | None], directions: Sequence[str]
    ) -> Iterator[list[int]]:
        """Yield positions of rows, cut so that the adapters of each part fit into memory together.

        Args:
            named: the adapter named for each row; None where its direction decides.
        """
        if directions:
            yield list(range(len(directions)))

    def hold(
        self, named: Sequence[str | None], directions: Sequence[str]
    ) -> AbstractContextManager:
        """Keep the adapters of such rows as they are until the block ends, route after route."""
        return nullcontext()

    def can_join(self, named: Sequence[str | None], directions: Sequence[str]) -> bool:
        """Return whether such rows can be decoded beside those whose adapters are held."""
        return True

    # Libraries of adapters: for programs that use strategies which choose among them.

    @property
    def is_calibrated(self) -> bool:
        """Whether `calibrate` should be given text before the strategy is used."""
        return False

    def serve(self, adapters: Mapping[str, Mapping[str, str]]) -> None:
        """Says which adapter of each library serves a direction; nothing without `libraries`.

        Args:
            adapters: by direction, then by library, the adapter's name.

        Raises:
            ValueError: no such library or adapter.
        """

    # The base model.

    def set_backbone(self, backbone: nn.Module, tokenizer: Any) -> None:
        """Take the base model and attach the strategy to it.

        Raises ValueError where a weight is NaN or infinite, or the strategy does not fit.
        """
        has_weights = not is_outline(backbone)
        if has_weights and (wrong := find_nonfinite(dict(backbone.named_parameters()))):
            name = getattr(backbone.config, "_name_or_path", "")
            raise ValueError(f"the base model {name} is damaged, {wrong}: copy it again.")
        self.tokenizer = tokenizer
        self.base_digests = tensor_digests(backbone) if has_weights else {}
        self.base_fingerprint = fingerprint_of(self.base_digests) if has_weights else ""
        self.backbone = backbone
        self._base_names = frozenset(self.state_dict())
        if is_checkpointed(backbone):  # layers that run again have to find the same route
            checkpoint_layers(backbone, self.context.checkpointing)
        self.attach()
        self.eval()

    def owned_names(self) -> set[str]:
        """Return the state dict's names that are the strategy's: trainable, or not there before."""
        trainable = {name for name, p in self.named_parameters() if p.requires_grad}
        return {n for n in self.state_dict() if n in trainable or n not in self._base_names}

    def load_stage(self, checkpoint: dict[str, Any]) -> None:
        """Take the weights of the stage before (`init_from`); raises as `load_owned`."""
        self.load_owned(checkpoint)

    def forward(self, batch: TranslationBatch) -> None:
        """Send the batch through the layers, within `routing`, for what they note on the way."""
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        self.backbone.base_model(**inputs, use_cache=False)

    # Translation.

    def ends(self) -> list[int]:
        """Return the token ids at which a translation stops."""
        return self.template.stop_ids(self.tokenizer)

    def translate(self, prompts: Sequence[Example]) -> list[Translation]:
        """Return the translations of the prompts, in their order."""
        translations = dict(self.translate_as_decoded(prompts))
        return [translations[i] for i in range(len(prompts))]

    def translate_as_decoded(
        self, prompts: Sequence[Example], watch: Watch = UNWATCHED
    ) -> Iterator[tuple[int, Translation]]:
        """Yield (index, translation) as batches are finished; `watch` is told before that."""
        training = self.training
        self.eval()
        try:
            yield from translate(self, prompts, self.ends(), watch)
        finally:
            self.train(training)

    def prompt(self, source: str, direction: str) -> Example:
        """Return the prompt that asks for the translation of a text."""
        ids = self.template.encode(self.tokenizer, source, direction)
        return Example(prompt=ids, target=[], direction=direction, source=source, references=())
