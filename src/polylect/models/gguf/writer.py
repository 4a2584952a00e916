"""Whole models as GGUF files, beside the file of the base that they were trained on.

Vocabulary and settings are those of the base's file, to the letter: a tokenizer that was converted
anew could cut texts otherwise than the model has learnt. Weights are new, all of them in float32;
`llama-quantize`, or Ollama when it makes a model, makes them small.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from polylect.models.gguf.reader import open_gguf

_NORMS_ADD_ONE = ("gemma2", "gemma3")
"""Architectures whose norms multiply by 1 + weight in transformers, and by weight in llama.cpp."""

_PAIRS_NEIGHBOURS = ("llama",)
"""Architectures whose rotation of positions pairs neighbours in llama.cpp, halves elsewhere."""

KNOWN = (*_PAIRS_NEIGHBOURS, "qwen2", "qwen3", *_NORMS_ADD_ONE)


def write_gguf_model(file: Path, base: Path, model: nn.Module) -> int:
    """Write a model as a GGUF file; returns the number of its tensors.

    Args:
        base: GGUF file of the model that it was before it was trained, in any quantisation.
        model: of transformers, with all weights in it.

    Raises:
        RuntimeError: the package gguf is missing.
        ValueError: the file is another model's, or of an architecture that is not known here.
    """
    if importlib.util.find_spec("gguf") is None:
        raise RuntimeError("GGUF files take the package gguf: pip install 'polylect[gguf]'.")
    import gguf

    contents = open_gguf(base)
    architecture = str(contents.get_field(gguf.Keys.General.ARCHITECTURE).contents())
    if architecture not in KNOWN:
        raise ValueError(
            f"models of llama.cpp's architecture {architecture} are not written, only "
            f"{', '.join(KNOWN)}: give form=merged, and convert what that writes."
        )
    weights = _named(model, architecture)
    writer = gguf.GGUFWriter(file, architecture)
    _copy_fields(contents, writer)
    for tensor in contents.tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        writer.add_tensor(tensor.name, _weight(tensor, shape, weights, base))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return len(contents.tensors)


def _copy_fields(contents: Any, writer: Any) -> None:
    import gguf

    for name, field in contents.fields.items():
        if name.startswith("GGUF.") or name == gguf.Keys.General.ARCHITECTURE:
            continue  # which the writer puts there itself
        kind, of_elements = field.types[0], None
        if kind == gguf.GGUFValueType.ARRAY:
            of_elements = field.types[-1]
        value = field.contents()
        if name == gguf.Keys.General.FILE_TYPE:
            value = int(gguf.LlamaFileType.ALL_F32)
        writer.add_key_value(name, value, kind, of_elements)


def _weight(
    tensor: Any, shape: tuple[int, ...], weights: Mapping[str, np.ndarray], base: Path
) -> np.ndarray:
    if tensor.name == "rope_freqs.weight":  # no weight, but a scaling of positions
        return np.array(tensor.data).reshape(shape).astype(np.float32)
    name = tensor.name
    if name == "output.weight" and name not in weights:
        name = "token_embd.weight"  # tied
    if name not in weights or weights[name].shape != shape:
        have = weights[name].shape if name in weights else "none"
        raise ValueError(
            f"{base} is of another model: its {tensor.name} has the shape {shape}, and this model "
            f"{have}. Give gguf=FILE, the base of the run."
        )
    return weights[name]


def _named(model: nn.Module, architecture: str) -> dict[str, np.ndarray]:
    """The weights by the names, and in the order of rows, of llama.cpp."""
    import gguf

    config: Any = model.config
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    weights = {}
    for path, tensor in model.state_dict().items():
        if (name := names.get_name(path, try_suffixes=(".weight", ".bias"))) is None:
            raise ValueError(f"llama.cpp has no weight for {path}: give form=merged.")
        module = path.split(".")[-2]
        values = tensor.detach().float().cpu()
        if architecture in _NORMS_ADD_ONE and values.dim() == 1 and "norm" in module:
            values = values + 1
        if architecture in _PAIRS_NEIGHBOURS and module in heads:
            values = _neighbours(values, heads[module])
        weights[name] = values.contiguous().numpy()
    return weights


def _neighbours(values: Float[Tensor, "out *in"], heads: int) -> Float[Tensor, "out *in"]:
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return halves.transpose(1, 2).reshape(values.shape)
