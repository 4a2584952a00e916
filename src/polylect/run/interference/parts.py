"""The parts of a model that can be silenced one at a time, and how much each of them is used.

Silencing changes no weight: an expert's weight is zero after its router has decided, an adapter's
update is multiplied by zero, neurons are zero where the down projection reads them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from polylect.data.batch import TranslationBatch
from polylect.layers.adapters.bank import AdapterBank
from polylect.layers.adapters.router import banks_of
from polylect.layers.experts.ffn import ExpertFFN, expert_layers
from polylect.layers.experts.routers import Routing
from polylect.layers.lora.attach import lora_layers
from polylect.library.neurons.file import NeuronFile
from polylect.models.families import family_of
from polylect.strategies.lag import LAG
from polylect.strategies.lora_switch import LoRASwitch
from polylect.strategies.mix_moe import MixMoE

Usage = dict[str, dict[str, float]]
"""By part and direction: how much the method itself makes of the part."""


@dataclass(frozen=True)
class Part:
    """One expert, adapter or set of neurons.

    Attributes:
        name: "model.layers.0.mlp/mt 1", "en-de", "layer 3/general".
        silenced: opens a block in which the part does nothing.
    """

    name: str
    silenced: Callable[[], AbstractContextManager[None]]


def parts_of(module: Any) -> list[Part]:
    """Return the experts of Mix-MoE, or the adapters of LoRA-switch or of what LAG chooses among.

    Raises ValueError for a strategy that has neither; neurons are those of a file, see
    `neuron_parts`.
    """
    if isinstance(module, MixMoE):
        layers = expert_layers(module.backbone)
        return [
            Part(
                f"{name}/{group} {number - numbers.start}", partial(_without_expert, layer, number)
            )
            for name, layer in layers.items()
            for group, numbers in module.groups().items()
            for number in numbers
        ]
    if isinstance(module, LAG):
        banks = {name: list(banks_of(module.backbone, name).values()) for name in module.libraries}
        return [
            Part(adapter, partial(_without_choice, banks[library], adapter))
            for library, own in module.libraries.items()
            for adapter in own.names
        ]
    if isinstance(module, LoRASwitch):
        return [Part(name, partial(_without_adapter, module, name)) for name in module.adapters]
    raise ValueError(
        f"strategy {type(module).__name__} has no experts or adapters to silence: take a run of "
        "lora_switch or mix_moe, an evaluation with lag, or a file of neurons."
    )


@contextmanager
def _without_expert(layer: ExpertFFN, number: int) -> Iterator[None]:
    def silence(router: nn.Module, inputs: Any, routing: Routing) -> Routing:
        weights = routing.weights.masked_fill(routing.indices == number, 0)
        return replace(routing, weights=weights)

    handle = layer.expert_router.register_forward_hook(silence)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _without_adapter(module: LoRASwitch, adapter: str) -> Iterator[None]:
    layers = [m for m in lora_layers(module.backbone).values() if adapter in m.scaling]
    before = [layer.scaling[adapter] for layer in layers]
    with module.context.lock():
        try:
            for layer in layers:
                layer.scaling[adapter] = 0.0
            yield
        finally:
            for layer, scaling in zip(layers, before, strict=True):
                layer.scaling[adapter] = scaling


@contextmanager
def _without_choice(banks: Sequence[AdapterBank], adapter: str) -> Iterator[None]:
    own = [bank for bank in banks if adapter in bank.position]
    try:
        for bank in own:
            bank.silenced = frozenset({bank.position[adapter]})
        yield
    finally:
        for bank in own:
            bank.silenced = frozenset()


def neuron_parts(backbone: nn.Module, file: NeuronFile) -> list[Part]:
    """Return the sets of neurons that a detection has found: by layer general ones, and each
    direction's own.

    Args:
        backbone: the base that the scores belong to, its feed-forward networks as they are.

    Raises ValueError where they are not, or another base's.
    """
    down = family_of(backbone.config).down
    blocks = backbone.get_submodule(family_of(backbone.config).layers)
    parts = []
    for name, (layer, index) in _neuron_sets(file).items():
        projection = blocks[layer].get_submodule(down)
        if not isinstance(projection, nn.Linear):
            raise ValueError(
                f"layer {layer}: the down projection is a {type(projection).__name__}; neurons "
                "are silenced in a base as it is."
            )
        parts.append(Part(name, partial(_without_neurons, projection, index)))
    return parts


def _neuron_sets(file: NeuronFile) -> dict[str, tuple[int, Int[Tensor, " n"]]]:
    sets = {}
    for position, layer in enumerate(file.layers):
        masks = {"general": file.general[position]}
        masks |= dict(zip(file.directions, file.specific[position], strict=True))
        for owner, mask in masks.items():
            if mask.any():
                sets[f"layer {layer}/{owner}"] = (layer, mask.nonzero()[:, 0])
    return sets


@contextmanager
def _without_neurons(projection: nn.Linear, index: Int[Tensor, " n"]) -> Iterator[None]:
    def silence(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return inputs[0].index_fill(-1, index.to(inputs[0].device), 0), *inputs[1:]

    handle = projection.register_forward_pre_hook(silence)
    try:
        yield
    finally:
        handle.remove()


def awareness_of_sets(file: NeuronFile) -> Usage:
    """Return for the parts of `neuron_parts` the sum over their neurons of |h dL/dh| in nats.

    It is what silencing them would cost by first order, if no two of them made up for each other.
    """
    tokens = file.about["tokens"]
    counts = {side: torch.tensor(tokens[side], dtype=torch.float64) for side in file.awareness}
    total = sum(own.double() * counts[side][:, None, None] for side, own in file.awareness.items())
    return {
        name: {d: float(total[i, layer, index].sum()) for i, d in enumerate(file.directions)}
        for name, (layer, index) in _neuron_sets(file).items()
    }


class UsageMeter:
    """How much a strategy makes of its parts, over the batches of a pass with nothing silenced.

    Of Mix-MoE the mean weight of each expert over the tokens of a direction; of LAG each adapter's
    share of the choices over layers and tokens; of LoRA-switch whether the adapter is the
    direction's own.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self._sums: dict[str, dict[str, Float[Tensor, " experts"]]] = {}
        self._tokens: dict[str, float] = {}
        if isinstance(module, LAG):
            if module.counts is None:
                raise ValueError("strategy.count=false counts no choices: leave it out.")
            module.counts.clear()

    def add(self, batch: TranslationBatch) -> None:
        """Counts a batch of one direction that has just been through the model."""
        if not isinstance(self.module, MixMoE):
            return
        direction = batch.directions[0]
        self._tokens[direction] = self._tokens.get(direction, 0) + float(batch.attention_mask.sum())
        for layer, routing, real in self.module.routings():
            weights = torch.zeros_like(routing.logits)
            weights.scatter_add_(1, routing.indices, routing.weights.to(weights.dtype))
            own = weights[real.flatten()].sum(0).double().cpu()
            by_direction = self._sums.setdefault(layer, {})
            by_direction[direction] = by_direction.get(direction, torch.zeros_like(own)) + own

    def usage(self) -> Usage:
        """Return it by part and direction."""
        module = self.module
        if isinstance(module, MixMoE):
            return {
                f"{layer}/{group} {number - numbers.start}": {
                    d: float(sums[number]) / self._tokens[d] for d, sums in by_direction.items()
                }
                for layer, by_direction in self._sums.items()
                for group, numbers in module.groups().items()
                for number in numbers
            }
        if isinstance(module, LAG):
            return _choices(module.routing_rows())
        return {
            name: {d: float(module.adapter(d) == name) for d in module.directions}
            for name in module.adapters
        }


def _choices(rows: Sequence[Mapping[str, Any]]) -> Usage:
    tokens: dict[str, float] = {}
    sums: Usage = {}
    for row in rows:
        direction = row["direction"]
        tokens[direction] = tokens.get(direction, 0) + row["tokens"]
        for adapter, share in row["shares"].items():
            own = sums.setdefault(adapter, {})
            own[direction] = own.get(direction, 0) + share * row["tokens"]
    return {
        name: {d: own.get(d, 0) / count for d, count in tokens.items()}
        for name, own in sums.items()
    }
