"""Export of an adapter as ordinary weights."""

import copy

import torch
from jaxtyping import Int
from torch import Tensor, nn

from polylect.did_you_mean import did_you_mean
from polylect.finite import find_nonfinite
from polylect.layers.lora.attach import detach_lora, lora_layers
from polylect.layers.lora.layer import LoRALayer


@torch.no_grad()
def merged_copy(
    model: nn.Module, adapter: str, probe: Int[Tensor, "rows length"]
) -> tuple[nn.Module, float]:
    """Return a copy of `model` without adapters whose weights are W + s B A, computed in float32.

    For export alone: at run time adapters are never merged, so the base stays bit for bit itself.

    Args:
        model: a Hugging Face model with LoRA layers; left as it is.
        adapter: the one to merge.
        probe: token ids on which both are compared.

    Returns:
        the copy, and the largest absolute difference between its logits and those of `model`
        with the adapter, which is what merging costs in the precision of the weights.

    Raises:
        ValueError: no layer has the adapter, or a layer's weight cannot take it, or would not be
            finite in its precision.
    """
    layers = {name: la for name, la in lora_layers(model).items() if adapter in la.lora_a}
    if not layers:
        names = {name for layer in lora_layers(model).values() for name in layer.lora_a}
        raise ValueError(f"no adapter {adapter!r} to merge: {did_you_mean(adapter, names)}")
    _check_mergeable(model, layers)
    context = next(iter(layers.values())).context
    with context.route([adapter] * len(probe)):
        expected = model(input_ids=probe).logits
    merged = copy.deepcopy(model)
    for name, layer in lora_layers(merged).items():
        if adapter in layer.lora_a:
            layer.weight.copy_(merged_weight(layer, adapter))
            if wrong := find_nonfinite({f"{name} with adapter {adapter!r}": layer.weight}):
                raise ValueError(f"{wrong}: it cannot be merged in {layer.weight.dtype}")
        detach_lora(layer)
    difference = (merged(input_ids=probe).logits - expected).abs().max().item()
    return merged, difference


def merged_weight(layer: LoRALayer, adapter: str) -> Tensor:
    """Return W + s B A in the precision of W, added up in float32 or better."""
    precise = torch.promote_types(layer.weight.dtype, torch.float32)
    a, b = layer.lora_a[adapter].to(precise), layer.lora_b[adapter].to(precise)
    weight = torch.addmm(layer.weight.to(precise), b, a, alpha=layer.scaling[adapter])
    return weight.to(layer.weight.dtype)


def _check_mergeable(model: nn.Module, layers: dict[str, LoRALayer]) -> None:
    uses: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        uses[id(parameter)] = uses.get(id(parameter), 0) + 1
    for name, layer in layers.items():
        if not layer.weight.dtype.is_floating_point:
            raise ValueError(
                f"{name} is quantised to {layer.weight.dtype}: "
                "load the base in full precision to merge an adapter into it"
            )
        if uses[id(layer.weight)] > 1:
            raise ValueError(
                f"{name} shares its weight with another module: merging would change both, "
                "leave it out of the adapter's targets or export without merging"
            )
