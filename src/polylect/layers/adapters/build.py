"""The banks of a model's layers, made of libraries whose adapters have been aligned."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from polylect.layers.adapters.bank import AdapterBank, Pages

Members = Mapping[str, Mapping[str, int]]
"""By the path of a layer the adapters of a library that change it, and their ranks."""

_BYTES = 4
"""Of a number of the factors: they are held in float32, as the scores need them."""


@runtime_checkable
class AlignedAdapters(Protocol):
    """Reads the aligned adapters of one library, see `polylect.library.aligned_library`."""

    def arrow(self, name: str, path: str) -> Tensor:
        """Return the first row of A* of a layer, (in,)."""
        ...

    def strengths(self, name: str) -> Mapping[str, Tensor]:
        """Return the singular values of the update of each layer, (rank,), largest first."""
        ...

    def factor(self, name: str, path: str, factor: str) -> Tensor:
        """Return "a_star" (rank, in) or "b_star" (out, rank) of a layer."""
        ...

    def trained_factor(self, name: str, path: str, factor: str) -> Tensor:
        """Return "a" (rank, in) or "b" (out, rank), times the scaling, as they were trained."""
        ...


def build_banks(
    backbone: nn.Module,
    aligned: Mapping[str, AlignedAdapters],
    members: Mapping[str, Members],
    budget_bytes: int,
    *,
    trained: bool = False,
) -> tuple[dict[str, dict[str, AdapterBank]], Pages | None]:
    """Return the banks by layer and library, and where their factors are held.

    Args:
        aligned: the adapters, by library.
        members: which of them change which layer, by library.
        budget_bytes: for the factors of all banks; if they are larger, they are read when a batch
            needs them.
        trained: the factors are those that were trained, not A* and B*.

    Returns:
        The banks; and None where all factors were read at once.
    """
    nbytes = sum(
        _nbytes(backbone.get_submodule(path), ranks)
        for layers in members.values()
        for path, ranks in layers.items()
    )
    pages = Pages(budget_bytes) if nbytes > budget_bytes else None
    banks: dict[str, dict[str, AdapterBank]] = {}
    for library, layers in members.items():
        for path, ranks in layers.items():
            layer: Any = backbone.get_submodule(path)
            load = partial(_load, aligned[library], path, trained)
            bank = _bank(aligned[library], path, ranks, load, layer.out_features, pages)
            banks.setdefault(path, {})[library] = bank
    return banks, pages


def _nbytes(layer: Any, ranks: Mapping[str, int]) -> int:
    """Return the bytes of the adapters' factors of a linear layer, lower ranks padded."""
    return len(ranks) * max(ranks.values()) * (layer.in_features + layer.out_features) * _BYTES


def _bank(
    aligned: AlignedAdapters,
    path: str,
    ranks: Mapping[str, int],
    load: Any,
    width: int,
    pages: Pages | None,
) -> AdapterBank:
    strengths = torch.zeros(len(ranks), max(ranks.values()))
    for row, (name, rank) in zip(strengths, ranks.items(), strict=True):
        row[:rank] = aligned.strengths(name)[path]
    arrows = torch.stack([aligned.arrow(name, path).float() for name in ranks])
    return AdapterBank(list(ranks), arrows, strengths, load, width, pages)


def _load(aligned: AlignedAdapters, path: str, trained: bool, name: str, which: str) -> Tensor:
    if trained:
        return aligned.trained_factor(name, path, which)
    return aligned.factor(name, path, f"{which}_star")
