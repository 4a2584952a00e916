"""Reads a checkpoint and checks what it must fit; restores the random state in it."""

import random
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from polylect.files import load_saved


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return a checkpoint of polylect; its tensors are mapped into memory.

    Raises:
        FileNotFoundError, ValueError: there is none, or the file is something else, damaged, or
            holds more than tensors and plain values; one sentence with the path.
    """
    path = Path(path)
    checkpoint = load_saved(path, "a checkpoint")
    ours = checkpoint.get("polylect") if isinstance(checkpoint, dict) else None
    if not isinstance(ours, dict):
        raise ValueError(f"{path} was not written by polylect: it lacks its section.")
    about = ours.get("about")
    config = about.get("config") if isinstance(about, dict) else None
    parts = (checkpoint.get("state_dict"), config, ours.get("structure"))
    if not all(isinstance(part, dict) for part in parts) or "base_fingerprint" not in ours:
        raise ValueError(f"{path} is no whole checkpoint of polylect: parts of it are missing.")
    return checkpoint


@contextmanager
def path_in_errors(path: str | Path | None) -> Iterator[None]:
    """Put the checkpoint's path before the sentence of a ValueError about it.

    None, where nobody knows it, leaves the sentence as it is.
    """
    try:
        yield
    except ValueError as error:
        if path is None or str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def check_fit(
    tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], owned: Set[str], strategy: str
) -> None:
    """Compare the tensors of a checkpoint with those that the strategy owns.

    `load_state_dict` would pass over names that are missing, since base weights always are.

    Raises:
        ValueError: names that lack or are too many, or a tensor of another shape.
    """
    if owned != tensors.keys():
        lacks, extra = sorted(owned - tensors.keys()), sorted(tensors.keys() - owned)
        raise ValueError(
            f"the checkpoint does not fit {strategy}: it lacks {lacks[:3]} "
            f"({len(lacks)} names) and has {extra[:3]} ({len(extra)} names) too many."
        )
    for name, tensor in tensors.items():
        if tensor.shape != state[name].shape:
            raise ValueError(
                f"the checkpoint does not fit the settings: {name} is {list(tensor.shape)} in "
                f"it and {list(state[name].shape)} here."
            )


def recount(checkpoint: dict[str, Any], trainer: Any) -> dict[str, Any]:
    """Count the batches of a checkpoint as the processes of this trainer would have, in place.

    Each process counts its own, and another number of them has made as many optimizer steps with
    other numbers of batches. What was accumulated of the next step is left out then.

    Returns polylect's own section.
    """
    ours = checkpoint["polylect"]
    if ours.get("processes", trainer.world_size) == trainer.world_size:
        return ours
    loop = checkpoint["loops"]["fit_loop"]
    progress = loop["epoch_loop.batch_progress"]
    change = checkpoint["global_step"] * trainer.accumulate_grad_batches
    change -= progress["total"]["ready"]
    for counts in (progress["total"], progress["current"]):
        for name in counts:
            counts[name] += change
    for stream in loop["state_dict"]["combined_loader"]:
        stream["given"] += change
    return ours | {"accumulated": None}


def random_state() -> dict[str, Any]:
    """Return the state of every generator that training may draw from; holds no NumPy objects."""
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
