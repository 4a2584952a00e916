"""How large the updates of a LAG's adapters are on text of their own: measured once, then kept."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from polylect.data.batch import TranslationBatch
from polylect.layers.adapter_bank import AdapterBank
from polylect.layers.adapter_choice import RouterSettings
from polylect.layers.adapter_energy import EnergySums
from polylect.layers.adapter_routing import routed_layers
from polylect.layers.alignment import align
from polylect.library.aligned import AlignedLibrary
from polylect.library.calibration import read_calibration, write_calibration

if TYPE_CHECKING:
    from polylect.strategies.lag import LAG


def calibrate(module: "LAG", batches: Sequence[TranslationBatch]) -> None:
    """Gives every bank the mean and deviation of its adapters' energy on the batches."""
    key = _key(module, batches)
    if not _take(module, key):
        _measure(module, batches)
        for name, library in module.libraries.items():
            tensors = {
                f"{path}.{what}": getattr(bank, what)
                for path, bank in _banks(module, name).items()
                for what in ("mean", "std")
            }
            write_calibration(library.path, key, tensors)


@torch.no_grad()
def _measure(module: "LAG", batches: Sequence[TranslationBatch]) -> None:
    router = module.router
    before = router.settings, router.counts
    router.settings, router.counts = RouterSettings("oracle"), None
    router.energies = EnergySums()
    try:
        for batch in batches:
            with module.routing(batch):
                module(batch)
        router.energies.settle()
    finally:
        router.settings, router.counts = before
        router.energies = None


def _take(module: "LAG", key: str) -> bool:
    """Use what was kept under the key; false if any library has nothing."""
    found = {name: read_calibration(of.path, key) for name, of in module.libraries.items()}
    if any(tensors is None for tensors in found.values()):
        return False
    for name, tensors in found.items():
        for path, bank in _banks(module, name).items():
            bank.mean, bank.std = (
                tensors[f"{path}.{what}"].to(bank.arrows.device) for what in ("mean", "std")
            )
    return True


def _banks(module: "LAG", library: str) -> dict[str, AdapterBank]:
    layers = routed_layers(module.backbone)
    return {p: of.lora_banks[library] for p, of in layers.items() if library in of.lora_banks}


def _key(module: "LAG", batches: Sequence[TranslationBatch]) -> str:
    """Hash of all that decides what is measured: base, adapters and whom they serve, text."""
    total = hashlib.sha256(module.base_fingerprint.encode())
    for name, library in module.libraries.items():
        aligned = AlignedLibrary(library, align)
        digests = [(adapter, aligned.digest(adapter)) for adapter in library.names]
        total.update(repr((name, digests, sorted(module.serving[name].items()))).encode())
    for batch in batches:
        total.update(repr((tuple(batch.input_ids.shape), batch.directions)).encode())
        for tensor in (batch.input_ids, batch.attention_mask):
            total.update(tensor.cpu().numpy().tobytes())
    return total.hexdigest()
