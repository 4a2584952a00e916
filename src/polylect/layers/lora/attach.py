"""LoRA layers in place of a model's linear layers, and back."""

import functools

from torch import nn

from polylect.layers.context import RoutingContext
from polylect.layers.lora.layer import LoRALayer, LoRALinear
from polylect.layers.surgery import Patterns, find_linears


@functools.cache
def _with_lora(kind: type[nn.Linear]) -> type[nn.Linear]:
    if kind is nn.Linear:
        return LoRALinear
    return type(f"LoRA{kind.__name__}", (LoRALayer, kind), {})


def attach_lora(module: nn.Module, context: RoutingContext, name: str) -> LoRALayer:
    """Turns a linear layer, in place, into one that can hold adapters; it has none yet.

    The object, its parameters and their names stay the same, so base checkpoints load before and
    after. Subclasses of `nn.Linear` (such as those of bitsandbytes) keep their own forward.

    Args:
        module: an `nn.Linear` or a subclass of it.
        context: names the rows; shared by all layers of the model.
        name: the layer's path in the model, for messages.
    """
    if isinstance(module, LoRALayer):
        raise ValueError(f"{name} has adapters already: attach LoRA once")
    if not isinstance(module, nn.Linear):
        raise ValueError(
            f"{name} is a {type(module).__name__}: adapters are for nn.Linear and its subclasses"
        )
    module.__class__ = _with_lora(type(module))
    module.lora_a, module.lora_b = nn.ParameterDict(), nn.ParameterDict()
    module.scaling, module.dropout = {}, {}
    module.context, module.layer_name, module.revision = context, name, 0
    return module


def detach_lora(module: nn.Module) -> nn.Module:
    """Return the linear layer as it was before `attach_lora`, in place."""
    for adapter in tuple(module.lora_a):
        module.remove(adapter)
    for attribute in LoRALayer.__annotations__:
        delattr(module, attribute)
    module.__class__ = type(module).__mro__[2]
    return module


def attach_all(
    model: nn.Module, targets: Patterns, context: RoutingContext
) -> dict[str, LoRALayer]:
    """Attach LoRA to every linear layer of `model` that `targets` name; returns them by path."""
    return {
        name: attach_lora(module, context, name)
        for name, module in find_linears(model, targets).items()
    }


def lora_layers(model: nn.Module) -> dict[str, LoRALayer]:
    """Return the layers of `model` that can hold adapters, by path."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoRALayer)}
