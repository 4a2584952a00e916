"""Settings of strategies that train LoRA adapters, checked, and the parameter groups they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from polylect.did_you_mean import check_known, did_you_mean
from polylect.layers.lora.layer import LoRALayer

INITS = ("kaiming", "data", "contrastive")


@dataclass(frozen=True)
class FactorSettings:
    """How the factors of adapters begin and learn.

    Attributes:
        init: A is drawn at random ("kaiming", as PEFT does), or from the inputs of its layer on the
            text of its own directions: see `polylect.layers.lora.init`.
        init_scale: factor of what is drawn.
        init_sentences: of each adapter, read before training.
        train_a: whether A is trained; else it stays as it was drawn (LoRA-FA, arXiv 2308.03303).
        loraplus_lr_ratio: B's learning rate in units of A's (LoRA+, arXiv 2402.12354).

    Raises:
        ValueError: an unknown name or a number out of its range; by the name of the setting.
    """

    init: str = "kaiming"
    init_scale: float | int = 1.0
    init_sentences: int = 300
    train_a: bool = True
    loraplus_lr_ratio: float | int = 1.0

    def __post_init__(self) -> None:
        check_known("strategy.init", self.init, INITS)
        if self.init_scale <= 0:
            raise ValueError(f"strategy.init_scale must be positive, got {self.init_scale}.")
        if self.init_sentences < 1:
            raise ValueError(
                f"strategy.init_sentences must be at least 1, got {self.init_sentences}."
            )
        if self.loraplus_lr_ratio <= 0:
            raise ValueError(
                f"strategy.loraplus_lr_ratio must be positive, got {self.loraplus_lr_ratio}."
            )
        if self.loraplus_lr_ratio != 1 and not self.train_a:
            raise ValueError(
                f"strategy.loraplus_lr_ratio={self.loraplus_lr_ratio} compares B's rate with that "
                "of A, which strategy.train_a=false does not train: leave one of them out."
            )

    def check_adapters(self, adapters: Sequence[str]) -> None:
        """Raises ValueError where there is nothing to compare an adapter with."""
        if self.init == "contrastive" and len(adapters) < 2:
            raise ValueError(
                "strategy.init=contrastive compares the inputs of several adapters, and there is "
                "one: take strategy.init=data."
            )


def adapter_of_directions(
    setting: str | Mapping[str, Sequence[str]], directions: Sequence[str]
) -> dict[str, str]:
    """Return the adapter of each direction; raises ValueError where one has none or two."""
    if isinstance(setting, str):
        if setting == "per_direction":
            return {d: d for d in directions}
        if setting == "shared":
            return dict.fromkeys(directions, "shared")
        raise ValueError(
            f"strategy.adapters={setting} does not exist; {did_you_mean(setting, _SETTINGS)} "
            "Or give a mapping from adapter to its directions."
        )
    adapter_of: dict[str, str] = {}
    for adapter, served in setting.items():
        for direction in served:
            if direction in adapter_of:
                raise ValueError(
                    f"strategy.adapters gives direction {direction} to two adapters, "
                    f"{adapter_of[direction]} and {adapter}."
                )
            adapter_of[direction] = adapter
    if missing := [d for d in directions if d not in adapter_of]:
        raise ValueError(f"strategy.adapters leaves {', '.join(missing)} without an adapter.")
    if unknown := [d for d in adapter_of if d not in directions]:
        raise ValueError(
            f"strategy.adapters names {unknown[0]}, which is not among data.directions; "
            f"{did_you_mean(unknown[0], directions)}"
        )
    return {d: adapter_of[d] for d in directions}


_SETTINGS = ("per_direction", "shared")


def rank_of_adapters(rank: int | Mapping[str, int], adapters: Sequence[str]) -> dict[str, int]:
    """Return the rank of each adapter; raises ValueError where one has none, or less than 1."""
    ranks = dict.fromkeys(adapters, rank) if isinstance(rank, int) else dict(rank)
    if unknown := [name for name in ranks if name not in adapters]:
        raise ValueError(
            f"strategy.rank names {unknown[0]}, which is no adapter; "
            f"{did_you_mean(unknown[0], adapters)}"
        )
    for adapter in adapters:
        if ranks.get(adapter, 0) < 1:
            raise ValueError(
                f"strategy.rank of adapter {adapter} must be at least 1, got {ranks.get(adapter)}."
            )
    return ranks


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
