"""Directions that were not trained, and those that were, side by side: who disturbs whom."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from polylect.data.batch import Example
from polylect.data.languages import LANGUAGES
from polylect.layers.lora.attach import lora_layers
from polylect.layers.neurons.layer import NeuronLayer
from polylect.run.verify.base import batch_of
from polylect.run.verify.check import Check, not_checked
from polylect.strategies.frozen import Frozen
from polylect.strategies.landermt import LANDeRMT
from polylect.strategies.lora_library import LoRALibrary
from polylect.strategies.lora_switch import LoRASwitch

_UNTRAINED = "untrained directions have the base's logits"
_OTHERS = "directions do not touch each other"
_ROUNDING = 64
"""Units in the last place of the largest logit."""

_PROMISE = (Frozen, LANDeRMT, LoRALibrary, LoRASwitch)


@torch.no_grad()
def check_untrained(module: Any, base: nn.Module, rows: Sequence[Example]) -> Check:
    """Compare the logits of rows that nothing was trained for with those of the base.

    In a batch of their own bit by bit. Between rows of trained directions within rounding, since
    there a strategy may add up the neurons of all rows in another order.

    Args:
        base: read from its file once more.
    """
    if not isinstance(module, _PROMISE):
        kind = type(module).__name__
        return not_checked(_UNTRAINED, f"{kind} promises it of none: all share what it changes")
    if not rows:
        return not_checked(_UNTRAINED, "there is no row to compare")
    untrained = [replace(row, direction=_free(module), adapter="") for row in rows]
    mixed = [row for pair in zip(untrained, rows, strict=True) for row in pair]
    found, expected = _logits(module, untrained), _plain_logits(base, module, untrained)
    among, plain = _logits(module, mixed)[::2], _plain_logits(base, module, mixed)[::2]
    apart, largest = _difference(found, expected), _difference(among, plain)
    rounding = _ROUNDING * torch.finfo(plain.dtype).eps * max(float(plain.abs().max()), 1.0)
    faults = [
        f"direction {untrained[0].direction}, which was not trained, has other logits {where} than "
        f"the base (largest difference {difference:.1e})."
        for where, difference, is_good in (
            ("alone", apart, torch.equal(found, expected)),
            ("in a mixed batch", largest, largest <= rounding),
        )
        if not is_good
    ]
    numbers = (
        f"{found.numel()} logits of {len(rows)} rows with the base's file bit by bit; in a mixed "
        f"batch they differ by at most {largest:.1e}"
    )
    return Check(_UNTRAINED, numbers, tuple(faults))


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _free(module: Any) -> str:
    """Monolingual text in a language of which the strategy knows nothing."""
    return next(code for code in LANGUAGES if code not in module.directions)


def _logits(module: Any, rows: Sequence[Example]) -> Float[Tensor, "rows length tokens"]:
    batch = batch_of(module, rows)
    with module.routing(batch):
        return module.backbone(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).logits


def _plain_logits(base: Any, module: Any, rows: Sequence[Example]) -> Tensor:
    batch = batch_of(module, rows)
    return base(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


@torch.no_grad()
def check_others(module: Any, rows: Sequence[Example]) -> Check:
    """Put noise into what other directions have learnt: the logits of each must stay, bit by bit.

    Afterwards all is as it was.
    """
    directions = dict.fromkeys(row.direction for row in rows)
    parts = {d: list(_foreign(module, d)) for d in directions}
    if not any(parts.values()):
        kind = type(module).__name__
        return not_checked(_OTHERS, f"{kind} has nothing here that is one direction's alone")
    faults, count = [], 0
    for direction, foreign in parts.items():
        own = [row for row in rows if row.direction == direction]
        expected = _logits(module, own)
        with _noise(foreign):
            found = _logits(module, own)
        count += sum(tensor.numel() for tensor in foreign)
        if not torch.equal(found, expected):
            faults.append(f"direction {direction} changes with what other directions have learnt.")
    return Check(
        _OTHERS, f"{len(parts)} directions, {count} weights of others set to noise", tuple(faults)
    )


def _foreign(module: Any, direction: str) -> Iterator[Tensor]:
    """The parameters that must not matter to a direction."""
    if isinstance(module, LoRASwitch | LoRALibrary):
        own = module.adapter(direction)
        for layer in lora_layers(module.backbone).values():
            for factors in (layer.lora_a, layer.lora_b):
                yield from (factors[name] for name in factors if name != own)
    elif isinstance(module, LANDeRMT) and not module.shared:
        for layer in module.backbone.modules():
            if isinstance(layer, NeuronLayer):
                used = layer.bank.used(direction)
                values: Mapping[str, Tensor] = layer.neuron_values
                yield from (values[name] for name in values if name not in used)


@contextmanager
def _noise(tensors: Sequence[Tensor]) -> Iterator[None]:
    kept = [tensor.clone() for tensor in tensors]
    generator = torch.Generator().manual_seed(0)
    try:
        for tensor in tensors:
            tensor += torch.randn(tensor.shape, generator=generator).to(tensor)
        yield
    finally:
        for tensor, own in zip(tensors, kept, strict=True):
            tensor.copy_(own)
