"""Adapters that begin with the weights of others, as of a language like theirs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from polylect.did_you_mean import did_you_mean
from polylect.layers.lora.attach import lora_layers
from polylect.layers.lora.layer import LoRALayer
from polylect.library.adapter import Adapter, LowRank, incompatibility
from polylect.library.folder import read_about
from polylect.library.peft_format import read_peft


def start_of_adapters(
    start: str | Mapping[str, str] | None, adapters: Sequence[str], init: str
) -> dict[str, str]:
    """Return the folder that each adapter begins with, of those that begin with one.

    Raises ValueError for an adapter that is not trained, and beside an A from the inputs.
    """
    if start is None:
        return {}
    if init != "kaiming":
        raise ValueError(f"give strategy.start or strategy.init={init}: both say how A begins.")
    if isinstance(start, str):
        return dict.fromkeys(adapters, start)
    for name in start:
        if name not in adapters:
            raise ValueError(
                f"strategy.start names {name}, which is no adapter; {did_you_mean(name, adapters)}"
            )
    return dict(start)


@torch.no_grad()
def begin_with(folder: str | Path, model: nn.Module, name: str, fingerprint: str) -> None:
    """Copy the factors of a PEFT folder into an adapter that is there, which then trains on.

    The update is then that of the folder, whatever the scaling. Layers and ranks that the folder
    lacks begin as new ones do, and change nothing at first.

    Args:
        folder: of an adapter on the same base.
        model: the base, with its LoRA layers.
        name: of the adapter.
        fingerprint: of the base.

    Raises:
        ValueError, FileNotFoundError: the folder holds no adapter, or one of another base, of a
            higher rank or of layers that the new one does not change.
    """
    folder = Path(folder)
    modules, config = read_peft(folder)
    if reason := incompatibility(Adapter(modules, read_about(folder), config), model, fingerprint):
        raise ValueError(f"strategy.start={folder} does not fit: {reason}.")
    layers = {p: layer for p, layer in lora_layers(model).items() if name in layer.lora_a}
    if missing := sorted(modules.keys() - layers.keys()):
        raise ValueError(
            f"strategy.start={folder} changes {missing[0]}, which adapter {name} does not: give "
            "strategy.targets that name it, too."
        )
    for path, update in modules.items():
        if len(update.a) > len(layers[path].lora_a[name]):
            raise ValueError(
                f"strategy.start={folder} has rank {len(update.a)} in {path}, and adapter {name} "
                f"{len(layers[path].lora_a[name])}: give strategy.rank={len(update.a)} or more."
            )
        _copy(update, layers[path], name)


def _copy(update: LowRank, layer: LoRALayer, name: str) -> None:
    a, b, rank = layer.lora_a[name], layer.lora_b[name], len(update.a)
    a[:rank] = update.a.to(a)
    b[:, :rank] = update.b.to(b) * (update.scaling / layer.scaling[name])
    layer.revision += 1
