"""An adapter outside a model: its tensors, where they belong, and for which base."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from polylect.did_you_mean import did_you_mean
from polylect.finite import check_written
from polylect.library.fingerprint import cut_from
from polylect.library.targets import is_target


@dataclass(frozen=True)
class LowRank:
    """The update s B A of one linear layer."""

    a: Float[Tensor, "rank in"]
    b: Float[Tensor, "out rank"]
    scaling: float

    @property
    def nbytes(self) -> int:
        """Bytes of both factors."""
        return self.a.nbytes + self.b.nbytes


@runtime_checkable
class LoRAHolder(Protocol):
    """What an adapter is taken from and put into: a LoRA layer."""

    lora_a: Mapping[str, Tensor]
    lora_b: Mapping[str, Tensor]
    scaling: Mapping[str, float]

    def set(self, adapter: str, a: Tensor, b: Tensor, scaling: float) -> None: ...

    def remove(self, adapter: str) -> None: ...


@dataclass(frozen=True)
class Adapter:
    """The updates of one adapter, by the path of the module in the base model.

    Attributes:
        modules: the updates.
        about: what `polylect.json` holds beside the PEFT files; all of it optional.
            base_model: name or path of the base.
            base_fingerprint: `base_fingerprint` of it.
            base_cut_from: and of the model that it was cut from, see `cut_from`.
            tokenizer_hash, template: what it was trained with.
            directions: those that it serves.
            scores: and how well.
        config: PEFT's configuration, of an adapter that was read.
    """

    modules: Mapping[str, LowRank]
    about: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_layers(
        cls, layers: Mapping[str, LoRAHolder], name: str, about: Mapping[str, Any] | None = None
    ) -> "Adapter":
        """Return a copy of the adapter `name` as it is in a model's LoRA layers, given by path."""
        modules = {
            path: LowRank(
                layer.lora_a[name].detach().cpu().clone(),
                layer.lora_b[name].detach().cpu().clone(),
                layer.scaling[name],
            )
            for path, layer in layers.items()
            if name in layer.lora_a
        }
        if not modules:
            known = {known for layer in layers.values() for known in layer.lora_a}
            raise ValueError(f"no adapter {name!r} in the model: {did_you_mean(name, known)}")
        return cls(modules, about or {})

    def check_finite(self, name: str) -> None:
        """Raises ValueError where a factor or a scaling is NaN or infinite."""
        values = {f"the scaling of {p}": torch.tensor(u.scaling) for p, u in self.modules.items()}
        for path, update in self.modules.items():
            values |= {f"A of {path}": update.a, f"B of {path}": update.b}
        check_written(f"adapter {name!r}", values)

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(update.nbytes for update in self.modules.values())


def incompatibility(
    adapter: Adapter, model: nn.Module, fingerprint: str | None = None
) -> str | None:
    """Return why the adapter does not belong on this base, in one clause; None if it does.

    Args:
        adapter: its fingerprint of the base is compared, or the base's name if it has none.
        model: its modules must be linear, of the right shape, and all that the targets name.
        fingerprint: of the model; without it fingerprints are not compared.
    """
    return (
        _other_base(adapter, model, fingerprint)
        or _wrong_module(adapter, model)
        or _missing_module(adapter, model)
    )


def _other_base(adapter: Adapter, model: nn.Module, fingerprint: str | None) -> str | None:
    trained_on = adapter.about.get("base_fingerprint")
    if trained_on and fingerprint:
        # Models whose vocabularies were cut from one differ in embeddings and head only.
        if {trained_on, adapter.about.get("base_cut_from")} & {fingerprint, cut_from(model)} - {
            None
        }:
            return None
        return (
            f"it was trained on another base (fingerprint {trained_on[:12]}, this one has "
            f"{fingerprint[:12]}; the same base in another precision counts as another), use that"
        )
    there = adapter.config.get("base_model_name_or_path") or ""
    here = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
    if there and here and PurePath(there).name != PurePath(here).name:
        return (
            f"it was trained on the base {there!r}, this one is {here!r}: use that, or, if it is "
            f"the same under another name, put {PurePath(here).name!r} as base_model_name_or_path "
            "into its adapter_config.json"
        )
    return None


def _wrong_module(adapter: Adapter, model: nn.Module) -> str | None:
    modules = dict(model.named_modules())
    for path, update in adapter.modules.items():
        if path not in modules:
            close = difflib.get_close_matches(path, modules, n=1)
            nearest_one = f", nearest is {close[0]}" if close else ""
            return f"the base has no module {path}{nearest_one}: use the base it was trained on"
        module = modules[path]
        if not isinstance(module, nn.Linear):
            return f"{path} is a {type(module).__name__} here: only linear layers take adapters"
        shape = (update.b.shape[0], update.a.shape[1])
        if shape != (module.out_features, module.in_features):
            return (
                f"{path} is {module.out_features} x {module.in_features} here, "
                f"the adapter is for {shape[0]} x {shape[1]}: use the base it was trained on"
            )
    return None


def _missing_module(adapter: Adapter, model: nn.Module) -> str | None:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for path, module in model.named_modules():
        if (
            isinstance(module, nn.Linear)
            and module is not head
            and path not in adapter.modules
            and is_target(adapter.config, path)
        ):
            return (
                f"it has no tensors for {path}, which its target_modules name: it is not whole, "
                "save or download it again"
            )
    return None


def trained_with_examples(about: Mapping[str, Any]) -> bool:
    """Return whether training showed examples, as a checkpoint or adapter says of itself."""
    memory = (about.get("config") or {}).get("memory") or {}
    return memory.get("corpus") is not None
