"""Parameter groups of LoRA adapters."""

from collections.abc import Mapping, Sequence
from typing import Any

from polylect.layers.lora.layer import LoRALayer
from polylect.strategies.lora.settings import FactorSettings


def factor_groups(
    layers: Mapping[str, LoRALayer], adapters: Sequence[str], settings: FactorSettings
) -> list[dict[str, Any]]:
    """Return a unit per adapter: one group, or one each for A and B where their rates differ."""
    groups: list[dict[str, Any]] = []
    for unit, adapter in enumerate(adapters):
        holders = [layer for layer in layers.values() if adapter in layer.lora_a]
        a = [layer.lora_a[adapter] for layer in holders]
        b = [layer.lora_b[adapter] for layer in holders]
        if not settings.train_a:
            groups.append({"params": b, "unit": unit, "name": adapter})
        elif settings.loraplus_lr_ratio == 1:
            both = [factor for pair in zip(a, b, strict=True) for factor in pair]
            groups.append({"params": both, "unit": unit, "name": adapter})
        else:
            ratio = settings.loraplus_lr_ratio
            groups.append({"params": a, "unit": unit, "name": f"{adapter} A"})
            groups.append({"params": b, "unit": unit, "name": f"{adapter} B", "lr_ratio": ratio})
    return groups
