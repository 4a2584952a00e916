"""LoRA-switch: one adapter per direction on a frozen base, switched by an index.

LoRA is Hu et al. 2021: `y = W x + (alpha / r) B A x`, with B zero at the start.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from polylect.data.batch import TranslationBatch
from polylect.hints import nearest
from polylect.layers.lora import attach_all, lora_layers
from polylect.layers.routing import RoutingContext
from polylect.library import Adapter, AdapterLibrary
from polylect.models.families import family_of
from polylect.strategies.base import TranslationModule


class LoRASwitch(TranslationModule):
    """Adapters trained together in one pass over mixed batches, each as if trained alone.

    Each adapter's loss is the mean over its own target tokens, its gradient is clipped on its own,
    and an adapter whose directions are absent from a step does not move.

    Args:
        adapters: "per_direction" (one each), "shared" (one for all: the baseline that interferes),
            or a mapping from adapter to the directions that share it.
        rank: of every adapter, or a mapping from adapter to its rank.
        alpha: the update is scaled by alpha / rank (rsLoRA: alpha / sqrt(rank)).
        targets: "attention", "ffn", "all", or name patterns of linear layers.
        dropout: on the adapter's input, in training.
        rslora: rank-stabilised scaling, Kalajdzievski 2023.
        init_scale: factor of the random A that training begins with; 1 is PEFT's. Routers read an
            adapter's inputs off A, where a short training hides under what was drawn: 0.01 for
            adapters that are to be routed.
    """

    def __init__(
        self,
        *,
        adapters: str | Mapping[str, Sequence[str]] = "per_direction",
        rank: int | Mapping[str, int] = 16,
        alpha: int | float = 16,
        targets: str | Sequence[str] = "all",
        dropout: int | float = 0.0,
        rslora: bool = False,
        init_scale: int | float = 1.0,
        **common: Any,
    ) -> None:
        self._adapter_of = _adapters(adapters, common.get("directions", ()))
        super().__init__(**common)
        self.ranks = _ranks(rank, self.adapters)
        if alpha <= 0:
            raise ValueError(f"strategy.alpha must be positive, got {alpha}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"strategy.dropout must be at least 0 and below 1, got {dropout}.")
        if init_scale <= 0:
            raise ValueError(f"strategy.init_scale must be positive, got {init_scale}.")
        self.alpha, self.dropout, self.rslora = float(alpha), float(dropout), rslora
        self.init_scale = float(init_scale)
        self.targets = targets
        self.context = RoutingContext()

    @property
    def adapters(self) -> list[str]:
        """Names of the adapters, in the order of the directions."""
        return list(dict.fromkeys(self._adapter_of.values()))

    def units(self) -> dict[str, int]:
        index = {adapter: i for i, adapter in enumerate(self.adapters)}
        return {direction: index[adapter] for direction, adapter in self._adapter_of.items()}

    def attach(self) -> None:
        self.backbone.requires_grad_(False)
        patterns = self.targets
        if isinstance(patterns, str):
            patterns = family_of(self.backbone.config).targets(patterns)
        options = {
            "rslora": self.rslora,
            "dropout": self.dropout,
            "init_scale": self.init_scale,
        }
        for layer in attach_all(self.backbone, patterns, self.context).values():
            for adapter in self.adapters:
                layer.add(adapter, self.ranks[adapter], self.alpha, **options)

    def routing(self, batch: TranslationBatch) -> AbstractContextManager:
        return self.context.route([self.adapter(d) for d in batch.directions])

    def adapter(self, direction: str) -> str:
        """The adapter that serves a direction; monolingual text has the base alone by default.

        Raises ValueError with the nearest direction.
        """
        if direction not in self._adapter_of and "-" not in direction:
            return ""
        if direction not in self._adapter_of:
            raise ValueError(
                f"no adapter serves direction {direction}; {nearest(direction, self._adapter_of)}"
            )
        return self._adapter_of[direction]

    def parameter_groups(self) -> list[dict[str, Any]]:
        groups, layers = [], list(lora_layers(self.backbone).values())
        for unit, adapter in enumerate(self.adapters):
            factors = [f for layer in layers for f in (layer.lora_a, layer.lora_b)]
            tensors = [f[adapter] for f in factors if adapter in f]
            groups.append({"params": tensors, "unit": unit, "name": adapter})
        return groups

    def load_stage(self, checkpoint: dict[str, Any]) -> None:
        """Take the adapters that are trained here, and leave those of other directions.

        An adapter that the checkpoint lacks stays new. Raises as `load_owned`, also if it has none.
        """
        owned = self.owned()
        known = {name: t for name, t in checkpoint["state_dict"].items() if name in owned}
        if known:
            checkpoint = checkpoint | {"state_dict": known}
        self.load_owned(checkpoint, but=owned - known.keys() if known else frozenset())

    def export(self, folder: Path) -> None:
        """Write each adapter as a plain PEFT folder under `folder/adapters`."""
        library, layers = AdapterLibrary(folder / "adapters"), lora_layers(self.backbone)
        for adapter in self.adapters:
            about = self.about | {
                "directions": [d for d, a in self._adapter_of.items() if a == adapter],
                "template": self.template_name,
                "base_model": getattr(self.backbone.config, "_name_or_path", ""),
                "base_fingerprint": self.base_fingerprint,
            }
            library.save(adapter, Adapter.of_layers(layers, adapter, about))


def _adapters(
    setting: str | Mapping[str, Sequence[str]], directions: Sequence[str]
) -> dict[str, str]:
    """Direction to adapter name; raises ValueError where a direction has none or two."""
    if isinstance(setting, str):
        if setting == "per_direction":
            return {d: d for d in directions}
        if setting == "shared":
            return dict.fromkeys(directions, "shared")
        raise ValueError(
            f"strategy.adapters={setting} does not exist; {nearest(setting, _SETTINGS)} "
            "Or give a mapping from adapter to its directions."
        )
    found: dict[str, str] = {}
    for adapter, served in setting.items():
        for direction in served:
            if direction in found:
                raise ValueError(
                    f"strategy.adapters gives direction {direction} to two adapters, "
                    f"{found[direction]} and {adapter}."
                )
            found[direction] = adapter
    if missing := [d for d in directions if d not in found]:
        raise ValueError(f"strategy.adapters leaves {', '.join(missing)} without an adapter.")
    if unknown := [d for d in found if d not in directions]:
        raise ValueError(
            f"strategy.adapters names {unknown[0]}, which is not among data.directions; "
            f"{nearest(unknown[0], directions)}"
        )
    return {d: found[d] for d in directions}


_SETTINGS = ("per_direction", "shared")


def _ranks(rank: int | Mapping[str, int], adapters: Sequence[str]) -> dict[str, int]:
    ranks = dict.fromkeys(adapters, rank) if isinstance(rank, int) else dict(rank)
    if unknown := [name for name in ranks if name not in adapters]:
        raise ValueError(
            f"strategy.rank names {unknown[0]}, which is no adapter; "
            f"{nearest(unknown[0], adapters)}"
        )
    for adapter in adapters:
        if ranks.get(adapter, 0) < 1:
            raise ValueError(
                f"strategy.rank of adapter {adapter} must be at least 1, got {ranks.get(adapter)}."
            )
    return ranks
