"""Inputs of the layers on an adapter's own text, to initialise A and to centre routers by."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polylect.data.batch import TranslationBatch, pad_id
from polylect.data.stream import EvaluationBatches
from polylect.layers.lora.attach import lora_layers
from polylect.layers.lora.init import directions_of_inputs
from polylect.layers.lora.inputs import InputSums
from polylect.strategies.base import TranslationModule
from polylect.strategies.lora.settings import FactorSettings
from polylect.strategies.loss import target_losses


def own_text(
    data: Any, adapter_of: Mapping[str, str], sentences: int, tokenizer: Any
) -> EvaluationBatches:
    """Return batches of the first training sentences of every adapter, directions mixed.

    Args:
        data: a `TranslationData` that has read its training corpora.
        adapter_of: direction to adapter.
        sentences: of each adapter, the same number from each of its directions; those above
            `data.max_length` are left out.
    """
    directions = Counter(adapter_of.values())
    examples = [
        example
        for direction, adapter in adapter_of.items()
        for example in data.examples(direction, "train", -(-sentences // directions[adapter]))
        if example.length <= data.max_length
    ]
    return EvaluationBatches(examples, data.tokens_per_batch, data.max_rows, pad_id(tokenizer))


@torch.no_grad()
def sum_inputs(
    module: TranslationModule, batches: Iterable[TranslationBatch], sums: InputSums
) -> None:
    """Runs text through the model as it is trained and used, while the sums watch; no dropout."""
    training = module.training
    module.eval()
    try:
        for batch in batches:
            batch = batch.to(module.device)
            sums.mask = batch.attention_mask
            with module.routing(batch):
                target_losses(module.backbone, batch)  # with the head, which may have adapters
    finally:
        module.train(training)


@torch.no_grad()
def initialise_from_inputs(
    module: TranslationModule,
    batches: Iterable[TranslationBatch],
    settings: FactorSettings,
    adapters: Set[str],
    broadcast: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> None:
    """Draws A of these adapters from their layers' inputs; the others are compared with alone.

    Args:
        batches: text of all adapters, which may be read more than once.
        broadcast: from what a process computed to what the first one did.

    Raises as `directions_of_inputs`.
    """
    layers = lora_layers(module.backbone)

    def read(sums: InputSums) -> None:
        sum_inputs(module, batches, sums)

    for path, adapter, rows in directions_of_inputs(layers, settings.init, read):
        if adapter in adapters:
            a = layers[path].lora_a[adapter]
            a.copy_(broadcast((settings.init_scale * rows).to("cpu", a.dtype)))
            layers[path].revision += 1


def input_means(
    module: TranslationModule, batches: Iterable[TranslationBatch]
) -> dict[str, dict[str, tuple[Float[Tensor, " in"], int]]]:
    """Return, by adapter and layer path, the mean of the inputs and the count of tokens."""
    sums = InputSums(lora_layers(module.backbone), products=False)
    with sums.watching():
        sum_inputs(module, batches, sums)
    means: dict[str, dict[str, tuple[Tensor, int]]] = {}
    for path, moments in sums.by_layer.items():
        for adapter, own in moments.items():
            means.setdefault(adapter, {})[path] = own.mean.float().cpu(), own.count
    return means
