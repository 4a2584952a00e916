"""What a strategy costs on a base, module by module."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from polylect.data.batch import TranslationBatch
from polylect.models.cache import empty_cache
from polylect.models.source import is_outline
from polylect.run.budget.operations import OperationCounter
from polylect.run.monitor.memory import state_per_weight
from polylect.run.monitor.without_values import (
    TrainingStep,
    dtype_of,
    learned_places,
    run_without_values,
    type_of_weights,
)
from polylect.strategies.base import TranslationModule


@dataclass(frozen=True)
class ModuleCost:
    """What a module costs by itself, without the modules in it.

    Attributes:
        trained: parameters.
        optimizer_bytes: that the optimizer keeps of them.
        forward, backward: floating-point operations of a training step, per token of its batch.
        decoded: floating-point operations of a token that is decoded behind such a batch.
    """

    trained: int = 0
    optimizer_bytes: int = 0
    forward: float = 0.0
    backward: float = 0.0
    decoded: float = 0.0

    def __add__(self, other: "ModuleCost") -> "ModuleCost":
        return ModuleCost(
            self.trained + other.trained,
            self.optimizer_bytes + other.optimizer_bytes,
            self.forward + other.forward,
            self.backward + other.backward,
            self.decoded + other.decoded,
        )


@dataclass(frozen=True)
class Accounting:
    """The costs of a strategy.

    Attributes:
        modules: by path within the backbone, those that cost something.
        has_step, has_decoding: whether operations could be counted: not where shapes depend on
            the text and there are no weights to compute with.
    """

    modules: Mapping[str, ModuleCost] = field(default_factory=dict)
    has_step: bool = True
    has_decoding: bool = True

    @property
    def total(self) -> ModuleCost:
        """The sum over all modules."""
        return sum(self.modules.values(), ModuleCost())

    def by_kind(self) -> dict[str, ModuleCost]:
        """Return the sums of modules whose paths differ in numbers alone: of all layers."""
        kinds: dict[str, ModuleCost] = {}
        for name, cost in self.modules.items():
            kind = re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)
            kinds[kind] = kinds.get(kind, ModuleCost()) + cost
        return kinds


def trained_parameters(module: TranslationModule) -> int:
    """Return how many parameters the strategy trains."""
    return sum(p.numel() for p in _trained(module))


def operations_of_step(module: TranslationModule, batch: TranslationBatch, precision: str) -> float:
    """Return the floating-point operations of a training step, as `accounting` counts them.

    Raises:
        ValueError: they depend on the text, and the backbone has no weights.
    """
    counter = _operations(TrainingStep(module), _train, batch, precision)
    if counter is None:
        raise ValueError(
            f"operations of {type(module).__name__} depend on the text: give budget.parameters."
        )
    counted = counter.forward.total() + counter.backward.total()
    return counted / int(batch.attention_mask.sum())


def accounting(module: TranslationModule, batch: TranslationBatch, precision: str) -> Accounting:
    """Return what the strategy costs with a batch like this.

    Weights that do not learn need no gradient, and no operations for it. Works without values: the
    backbone may be on the meta device. Where what is computed depends on the text (experts or
    adapters chosen token by token) it computes, if the backbone has weights.

    Args:
        batch: on the CPU; operations are per token of it, padding not counted.
        precision: as in `trainer.precision`.
    """
    step = _operations(TrainingStep(module), _train, batch, precision) if module.trains else None
    decoding = _operations(_DecodingStep(module), _decode, batch, precision)
    tokens = int(batch.attention_mask.sum())
    forward = {n: count / tokens for n, count in (step.forward if step else {}).items()}
    backward = {n: count / tokens for n, count in (step.backward if step else {}).items()}
    decoded = {n: c / batch.rows for n, c in (decoding.forward if decoding else {}).items()}
    ran = {name for counter in (step, decoding) if counter for name in counter.ran}
    held = _parameters(module, precision, ran)
    modules = {
        _path(name): ModuleCost(
            *held.get(name, (0, 0)),
            *(operations.get(name, 0.0) for operations in (forward, backward, decoded)),
        )
        for name in {**forward, **backward, **decoded, **held}
    }
    return Accounting(modules, step is not None or not module.trains, decoding is not None)


def _path(name: str) -> str:
    """Return a module's path within the backbone."""
    return name.removeprefix("module").removeprefix(".backbone").lstrip(".") or "itself"


def _trained(module: TranslationModule) -> list[nn.Parameter]:
    groups = module.parameter_groups() if module.trains else []
    return [p for group in groups for p in group["params"]]


def _parameters(
    module: TranslationModule, precision: str, ran: Collection[str]
) -> dict[str, tuple[int, int]]:
    """Return trained parameters and bytes of the optimizer, by the module that computes with them.

    That is the innermost one around them that ran: lists and slices of weights do not run.
    """
    trained = {id(p) for p in _trained(module)}
    halved = type_of_weights(precision)
    per_byte = state_per_weight(module) if trained else 0.0
    held: dict[str, tuple[int, int]] = {}
    for name, p in module.named_parameters(prefix="module"):
        if id(p) in trained:
            owner = name.rpartition(".")[0]
            while owner and owner not in ran:
                owner = owner.rpartition(".")[0]
            count, state = held.get(owner, (0, 0))
            size = p.numel() * dtype_of(p, halved).itemsize
            held[owner] = (count + p.numel(), state + int(size * per_byte))
    return held


class _DecodingStep(nn.Module):
    """The decoding of one token behind a batch, as a module, so that it runs without values."""

    def __init__(self, module: TranslationModule) -> None:
        super().__init__()
        self.module = module

    @torch.no_grad()
    def forward(self, batch: TranslationBatch, *, counter: OperationCounter) -> None:
        backbone, mask = self.module.backbone, batch.attention_mask
        with self.module.routing(batch):
            settings = {**empty_cache(backbone), "use_cache": True}
            backbone(input_ids=batch.input_ids, attention_mask=mask, **settings)
            longer, last = torch.cat([mask, mask[:, :1]], 1), batch.input_ids[:, -1:]
            with counter:
                backbone(input_ids=last, attention_mask=longer, **settings)


def _train(call: Callable[..., None], counter: OperationCounter, precision: str) -> None:
    with counter:
        call(precision=precision)


def _decode(call: Callable[..., None], counter: OperationCounter, _: str) -> None:
    call(counter=counter)


def _operations(
    step: TrainingStep | _DecodingStep,
    count: Callable[[Callable[..., None], OperationCounter, str], None],
    batch: TranslationBatch,
    precision: str,
) -> OperationCounter | None:
    """Return what a step computes; None where that cannot be told without weights."""
    module, was_training = step.module, step.module.training
    module.train(isinstance(step, TrainingStep))
    known = learned_places(batch) if isinstance(step, TrainingStep) else ()
    halved = type_of_weights(precision)
    counter = OperationCounter(step)

    def without_values(weights: dict[str, Tensor], *inputs: Any) -> None:
        def call(**settings: Any) -> None:
            torch.func.functional_call(step, weights, inputs, settings)

        count(call, counter, precision)

    try:
        if run_without_values(step, batch, known, without_values, halved):
            return counter
        if is_outline(module.backbone):
            return None
        counter.close()
        counter = OperationCounter(step)
        count(partial(step, batch, *known), counter, precision)
        return counter
    finally:
        counter.close()
        module.zero_grad(set_to_none=True)
        module.train(was_training)
