"""What the record of a run says of rows of modules."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from polylect.layers.neurons.row_bank import RowBank


def scaling_of(model: nn.Module, directions: Sequence[str]) -> dict[str, Any]:
    """Return what gradients of rows are multiplied by.

    Returns:
        By direction, module and "general" or "specific" how many rows there are in all layers, and
        the least, mean and largest factor. Sets without rows of a direction are left out.
    """
    found: dict[str, Any] = {}
    for direction in directions:
        factors: dict[str, dict[str, list[Tensor]]] = {}
        for bank in _row_banks(model):
            kind = bank.name.partition(".")[2]
            for name, own in bank.sets.items():
                weight = bank.weight(direction, name)
                if weight is not None:
                    part = "general" if own.general else "specific"
                    factors.setdefault(kind, {}).setdefault(part, []).append(weight)
        found[direction] = {
            kind: {part: _summary(torch.cat(weights)) for part, weights in parts.items()}
            for kind, parts in factors.items()
        }
    return found


def _summary(weights: Float[Tensor, " rows"]) -> dict[str, float | int]:
    own = weights.double()
    least, mean, most = float(own.min()), float(own.mean()), float(own.max())
    return {"rows": len(own), "least": least, "mean": mean, "most": most}


def _row_banks(model: nn.Module) -> Iterator[RowBank]:
    return (module for module in model.modules() if isinstance(module, RowBank))
