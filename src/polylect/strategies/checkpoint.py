"""What a checkpoint must fit, and the random state in it."""

import random
from collections.abc import Mapping, Set
from typing import Any

import numpy
import torch
from torch import Tensor


def check_fit(
    found: Mapping[str, Tensor], state: Mapping[str, Tensor], owned: Set[str], strategy: str
) -> None:
    """Compare the tensors of a checkpoint with those that the strategy owns.

    `load_state_dict` would pass over names that are missing, since base weights always are.

    Raises:
        ValueError: names that lack or are too many, or a tensor of another shape.
    """
    if owned != found.keys():
        lacks, extra = sorted(owned - found.keys()), sorted(found.keys() - owned)
        raise ValueError(
            f"the checkpoint does not fit {strategy}: it lacks {lacks[:3]} "
            f"({len(lacks)} names) and has {extra[:3]} ({len(extra)} names) too many."
        )
    for name, tensor in found.items():
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"the checkpoint does not fit the settings: {name} is {list(tensor.shape)} in "
                f"it and {list(state[name].shape)} here."
            )


def random_state() -> dict[str, Any]:
    """The state of every generator that training may draw from; holds no NumPy objects."""
    kind, keys, position, has_gauss, cached = numpy.random.get_state()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": [kind, keys.tolist(), position, has_gauss, cached],
        "python": random.getstate(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Draw from here on what would have been drawn after `random_state`."""
    torch.set_rng_state(state["torch"].cpu())
    kind, keys, position, has_gauss, cached = state["numpy"]
    numpy.random.set_state(
        (kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached)
    )
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
