"""What makes a base model that base model: its bytes."""

import hashlib

import torch
from torch import Tensor, nn

_ADDED = ("lora_", "neuron_", "expert_")


def base_fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all weights but those that strategies add.

    Parameters and persistent buffers in the order of their names; the same before and after
    adapters, slices or experts are attached, loaded or removed. A base loaded in another precision
    is another base.
    """
    digests: dict[tuple, str] = {}  # tied weights have two names and are read once
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not any(part.startswith(_ADDED) for part in name.split(".")):
            where = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
            if where not in digests:
                digests[where] = _digest(tensor)
            shape = list(tensor.shape)
            total.update(f"{name} {tensor.dtype} {shape} {digests[where]}\n".encode())
    return total.hexdigest()


def _digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().flatten()
    return hashlib.sha256(flat.view(torch.uint8).numpy()).hexdigest()
