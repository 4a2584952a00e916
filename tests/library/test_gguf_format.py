"""Adapters as GGUF files, held to whole models in that format."""

import copy
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from helpers import gguf_files

from polylect.library.adapter import Adapter, LowRank
from polylect.library.gguf_format import largest_difference, write_gguf_adapter
from polylect.models.backbone import random_model

MODULES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj")


def adapter_on(model: torch.nn.Module, **scalings: float) -> Adapter:
    """Updates of two ranks, one in each of two layers."""
    updates = {}
    for layer, rank in ((0, 2), (1, 3)):
        for module in MODULES:
            path = f"model.layers.{layer}.{module}"
            rows, columns = model.get_submodule(path).weight.shape
            scaling = scalings.get(module.rpartition(".")[2], 0.5)
            updates[path] = LowRank(torch.randn(rank, columns), torch.randn(rows, rank), scaling)
    return Adapter(updates, {})


def tensors(file: Path) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.data.copy() for tensor in gguf.GGUFReader(file).tensors}


def whole_file(model: torch.nn.Module, folder: Path, heads: int | None, kv_heads: int) -> Path:
    """The model's weights, as llama.cpp's converters write them."""
    folder.mkdir()
    arch = "gemma3" if heads is None else "llama"
    writer = gguf.GGUFWriter(folder / "model.gguf", arch)
    gguf_files._tensors(writer, model, heads)
    return folder / "model.gguf"


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_base_and_adapter_together_are_the_merged_model(kind: str, tmp_path: Path) -> None:
    tokenizer = gguf_files.byte_level()
    model = random_model(kind, tokenizer, layers=2, **gguf_files.SIZES)
    heads = 4 if kind == "llama" else None
    adapter = adapter_on(model, up_proj=2.0)
    merged = copy.deepcopy(model)
    with torch.no_grad():
        for path, update in adapter.modules.items():
            merged.get_submodule(path).weight += update.scaling * update.b @ update.a
    base = tensors(whole_file(model, tmp_path / "base", heads, 4))
    whole = tensors(whole_file(merged, tmp_path / "merged", heads, 4))
    write_gguf_adapter(tmp_path / "adapter.gguf", adapter, model.config)
    reader = gguf.GGUFReader(tmp_path / "adapter.gguf")
    alpha = reader.get_field("adapter.lora.alpha").contents()
    assert reader.get_field("general.type").contents() == "adapter"
    assert reader.get_field("adapter.type").contents() == "lora"
    assert reader.get_field("general.architecture").contents() == kind
    parts = tensors(tmp_path / "adapter.gguf")
    assert len(parts) == 2 * len(adapter.modules)
    for name, weight in base.items():
        if f"{name}.lora_a" in parts:
            a, b = parts.pop(f"{name}.lora_a"), parts.pop(f"{name}.lora_b")
            weight = weight + alpha / len(a) * b @ a
        np.testing.assert_allclose(weight, whole[name], rtol=0, atol=1e-5)
    assert not parts, "updates of weights that the base does not have"
    assert largest_difference(tmp_path / "adapter.gguf", adapter, model.config) < 1e-5


@pytest.mark.parametrize("scalings", [dict.fromkeys(("q_proj", "k_proj", "o_proj", "up_proj"), 0.0),
                                      {"q_proj": -3.0, "k_proj": 0.0}])  # fmt: skip
def test_scalings_of_zero_and_below_are_kept(scalings: dict[str, float], tmp_path: Path) -> None:
    model = random_model("llama", gguf_files.byte_level(), layers=2, **gguf_files.SIZES)
    adapter, file = adapter_on(model, **scalings), tmp_path / "adapter.gguf"
    write_gguf_adapter(file, adapter, model.config)
    assert gguf.GGUFReader(file).get_field("adapter.lora.alpha").contents() > 0
    assert largest_difference(file, adapter, model.config) < 1e-5


def test_keys_with_fewer_heads_are_reordered_by_their_own(tmp_path: Path) -> None:
    model = random_model("llama", gguf_files.byte_level(), layers=1, **gguf_files.SIZES)
    config = copy.deepcopy(model.config)
    config.num_key_value_heads = 2
    b = torch.arange(16.0)[:, None]  # two heads of eight rows
    update = LowRank(torch.ones(1, 32), b, 1.0)
    adapter = Adapter({"model.layers.0.self_attn.k_proj": update}, {})
    write_gguf_adapter(tmp_path / "a.gguf", adapter, config)
    found = tensors(tmp_path / "a.gguf")["blk.0.attn_k.weight.lora_b"][:, 0]
    assert found.tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


def test_what_llama_cpp_does_not_take_is_refused(tmp_path: Path) -> None:
    model = random_model("llama", gguf_files.byte_level(), layers=1, **gguf_files.SIZES)
    update = LowRank(torch.ones(1, 32), torch.ones(32, 1), 1.0)
    for path, words in (("lm_head", "embedding as well"), ("model.other", "no weight of this")):
        config = copy.deepcopy(model.config)
        config.tie_word_embeddings = True
        with pytest.raises(ValueError, match=words):
            write_gguf_adapter(tmp_path / "a.gguf", Adapter({path: update}, {}), config)
    model.config.model_type = "bloom"
    with pytest.raises(ValueError, match="a base of type bloom are not written as GGUF"):
        write_gguf_adapter(tmp_path / "a.gguf", Adapter({"model.other": update}, {}), model.config)
