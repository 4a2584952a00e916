"""llama.cpp itself, where llama-cpp-python is installed: base and adapter files give what we do."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import gguf_files

from polylect.library.adapter import Adapter, LowRank
from polylect.library.gguf_format import write_gguf_adapter
from polylect.models.gguf.writer import write_gguf_model

llama_cpp = pytest.importorskip("llama_cpp", reason="no llama-cpp-python")
pytestmark = pytest.mark.slow

STEPS = 8
MODULES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip


def make(kind: str, folder: Path) -> tuple[Path, Any, list[int]]:
    """A base in the format, the model that it holds, and the tokens of a prompt."""
    if kind == "llama":
        tokenizer = gguf_files.byte_level()
        model = gguf_files.llama(folder, tokenizer)
    else:
        model, tokenizer = gguf_files.gemma3(folder)
    prompt = tokenizer("We read the new book in the garden today.")["input_ids"]
    return folder / f"{kind}.gguf", model.eval(), prompt


def adapter_on(model: torch.nn.Module, seed: int) -> Adapter:
    """An adapter far from zero, on every projection of every layer."""
    generator = torch.Generator().manual_seed(seed)
    updates = {}
    for path, layer in model.named_modules():
        if path.endswith(MODULES):
            rows, columns = layer.weight.shape
            a = torch.randn(4, columns, generator=generator)
            b = 0.1 * torch.randn(rows, 4, generator=generator)
            updates[path] = LowRank(a, b, 0.5)
    return Adapter(updates)


def merged(model: Any, adapter: Adapter) -> Any:
    model = copy.deepcopy(model)
    with torch.no_grad():
        for path, update in adapter.modules.items():
            model.get_submodule(path).weight += update.scaling * update.b @ update.a
    return model


def continued(model: Any, prompt: list[int]) -> tuple[list[int], np.ndarray]:
    """The greedy continuation of a prompt, and the logits of every position."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(STEPS):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    return ids[len(prompt) :], logits.numpy()


def of_llama_cpp(file: Path, prompt: list[int], adapter: Path | None = None) -> Any:
    llama = llama_cpp.Llama(
        str(file), lora_path=adapter and str(adapter), n_ctx=96, n_threads=1, logits_all=True,
        verbose=False, seed=1,
    )  # fmt: skip
    ids = list(prompt)
    llama.eval(prompt)
    for _ in range(STEPS):
        ids.append(int(llama.scores[llama.n_tokens - 1].argmax()))
        llama.eval(ids[-1:])
    return ids[len(prompt) :], llama.scores[: len(ids)].copy()


def check_same(found: Any, expected: Any) -> None:
    """Logits within what a cache in half precision costs, and the same words."""
    np.testing.assert_allclose(found[1], expected[1], atol=0.01 * np.abs(expected[1]).max())
    assert found[0] == expected[0]


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_adapters_on_their_base_say_what_the_merged_models_say(kind: str, tmp_path: Path) -> None:
    base, model, prompt = make(kind, tmp_path)
    plain = continued(model, prompt)
    check_same(of_llama_cpp(base, prompt), plain)
    for seed in (1, 2):
        adapter, file = adapter_on(model, seed), tmp_path / f"{seed}.gguf"
        write_gguf_adapter(file, adapter, model.config)
        expected = continued(merged(model, adapter), prompt)
        assert expected[0] != plain[0], "the adapter has to matter"
        check_same(of_llama_cpp(base, prompt, file), expected)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_a_whole_model_says_what_it_said(kind: str, tmp_path: Path) -> None:
    base, model, prompt = make(kind, tmp_path)
    own = merged(model, adapter_on(model, 3))
    write_gguf_model(tmp_path / "whole.gguf", base, own)
    check_same(of_llama_cpp(tmp_path / "whole.gguf", prompt), continued(own, prompt))
