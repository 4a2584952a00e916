"""Adapters as GGUF files, which llama.cpp and what is built on it put on a base in that format.

The format, as llama.cpp reads it: the metadata `general.type` adapter, `adapter.type` lora and
`adapter.lora.alpha`; for each weight of the base two tensors, `NAME.lora_a` (rank, in) and
`NAME.lora_b` (out, rank); the update is alpha / rank B A.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from polylect.library.adapter import Adapter, LowRank

_ARCHITECTURES = {
    "llama": "LLAMA",
    "mistral": "LLAMA",
    "qwen2": "QWEN2",
    "qwen3": "QWEN3",
    "gemma2": "GEMMA2",
    "gemma3_text": "GEMMA3",
}
"""Model types of transformers, and what the `gguf` library calls them."""


def write_gguf_adapter(file: Path, adapter: Adapter, config: Any) -> None:
    """Write an adapter as a GGUF file, in float32.

    Args:
        config: of the base, as transformers has it.

    Raises:
        RuntimeError: the package gguf is missing.
        ValueError: a base whose weights llama.cpp keeps otherwise than is known here, or a module
            that it takes no adapter for.
    """
    import_gguf()
    import gguf

    kind = _architecture(config)
    alphas = [update.scaling * len(update.a) for update in adapter.modules.values()]
    alpha = max(map(abs, alphas)) or 1.0  # 0 would stand for a scaling of 1 there
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[kind])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for name, update in _named(adapter, config):
        # One alpha is of all modules: what a module has otherwise goes into its B.
        b = update.b.float() * (update.scaling * len(update.a) / alpha)
        writer.add_tensor(f"{name}.lora_a", _array(update.a))
        writer.add_tensor(f"{name}.lora_b", _array(b))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def largest_difference(file: Path, adapter: Adapter, config: Any) -> float:
    """Return how far the updates in a file are from those of the adapter, at most.

    Raises ValueError where it holds those of other weights.
    """
    import gguf

    reader = gguf.GGUFReader(file)
    alpha = float(reader.get_field(gguf.Keys.Adapter.LORA_ALPHA).contents())
    tensors = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    expected = dict(_named(adapter, config))
    if tensors.keys() != {f"{name}.lora_{part}" for name in expected for part in "ab"}:
        raise ValueError(f"{file.name} does not hold the tensors that were written into it.")
    differences = []
    for name, update in expected.items():
        a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        wanted = update.scaling * update.b.float() @ update.a.float()
        differences.append(float((alpha / len(a) * b @ a - wanted).abs().max()))
    return max(differences)


def import_gguf() -> None:
    """Raises RuntimeError where the package gguf is missing."""
    if importlib.util.find_spec("gguf") is None:
        raise RuntimeError("GGUF files take the package gguf: pip install 'polylect[gguf]'.")


def _architecture(config: Any) -> Any:
    import gguf

    name = _ARCHITECTURES.get(config.model_type)
    if name is None:
        raise ValueError(
            f"adapters on a base of type {config.model_type} are not written as GGUF, only on "
            f"{', '.join(_ARCHITECTURES)}: give form=merged, and convert what that writes."
        )
    return gguf.MODEL_ARCH[name]


def _named(adapter: Adapter, config: Any) -> Iterator[tuple[str, LowRank]]:
    """Updates by the name that llama.cpp gives the weight, with its rows in llama.cpp's order."""
    import gguf

    names = gguf.get_tensor_name_map(_architecture(config), config.num_hidden_layers)
    for path, update in adapter.modules.items():
        name = names.get_name(path)
        is_tied = path == "lm_head" and config.tie_word_embeddings
        if name is None or is_tied:
            why = "it is the embedding as well" if is_tied else "it has no weight of this name"
            raise ValueError(f"llama.cpp takes no adapter on {path}: {why}. Give form=merged.")
        yield f"{name}.weight", LowRank(update.a, _rows(path, update.b, config), update.scaling)


def _rows(path: str, b: Float[Tensor, "out rank"], config: Any) -> Float[Tensor, "out rank"]:
    """Queries and keys of Llama: there the rotation of positions pairs neighbours, not halves."""
    module = path.rpartition(".")[2]
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    if _ARCHITECTURES[config.model_type] != "LLAMA" or module not in heads:
        return b
    halves = b.view(heads[module], 2, -1, b.shape[1])
    return halves.transpose(1, 2).reshape(b.shape)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().contiguous().numpy()
