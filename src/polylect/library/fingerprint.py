"""The fingerprint of a base model: a hash of its weights."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_ADDED = ("lora_", "neuron_", "expert_")

CUT_FROM = "polylect_cut_from"
"""Attribute of a configuration: the `fingerprints` of the model whose vocabulary was cut."""


def base_fingerprint(model: nn.Module, dtype: torch.dtype | None = None) -> str:
    """Hash names, dtypes, shapes and bytes of all weights but those that strategies add: SHA-256.

    Parameters and persistent buffers in the order of their names; the same before and after
    adapters, slices or experts are attached, loaded or removed. A base loaded in another precision
    is another base.

    Args:
        dtype: the precision to convert floating-point weights to, one tensor at a time.
    """
    return fingerprint_of(tensor_digests(model, dtype))


def fingerprint_of(digests: Mapping[str, str]) -> str:
    """Return the `base_fingerprint` of the model with these `tensor_digests`."""
    total = hashlib.sha256()
    for name, digest in digests.items():
        total.update(f"{name} {digest}\n".encode())
    return total.hexdigest()


def tensor_digests(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, str]:
    """Return dtype, shape and SHA-256 of each weight that `base_fingerprint` hashes, sorted."""
    known: dict[tuple, str] = {}  # tied weights have two names and are read once
    digests = {}
    for name, tensor in sorted(model.state_dict().items()):
        if not is_added(name):
            where = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            converted = (
                tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)
            )
            if where not in known:
                known[where] = digest_of(converted)
            digests[name] = f"{converted.dtype} {list(converted.shape)} {known[where]}"
    return digests


def is_added(name: str) -> bool:
    """Return whether a weight of that name was added to the base by a strategy."""
    return any(part.startswith(_ADDED) for part in name.split("."))


def fingerprints(model: nn.Module) -> dict[str, str]:
    """Return the model's fingerprints in the precisions it can be loaded in, by their names.

    Of one that is loaded in half precision only its own is known: what was rounded is lost.
    """
    own = next(model.parameters()).dtype
    half = (torch.bfloat16, torch.float16) if own == torch.float32 else ()
    return {str(t).removeprefix("torch."): base_fingerprint(model, t) for t in (own, *half)}


def cut_from(model: nn.Module) -> str | None:
    """Return the fingerprint, in this precision, of the model that this one was cut from.

    None for one that was not cut by `polylect trim`. All weights but embeddings and head are
    those of that model, so an adapter trained on one of the two serves on the other.
    """
    by_dtype = getattr(getattr(model, "config", None), CUT_FROM, None)
    if not isinstance(by_dtype, dict):
        return None
    return by_dtype.get(str(next(model.parameters()).dtype).removeprefix("torch."))


def digest_of(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's bytes."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return hashlib.sha256(flat.view(torch.uint8).numpy()).hexdigest()
