"""Tiny GGUF files, written as llama.cpp's converters write them."""

import json
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from polylect.models.backbone import random_model

TEXTS = [
    "We read the new book in the garden today, 24 pages.",
    "Wir lesen heute das neue Buch im Garten.",
    "Nous lisons le nouveau livre dans le jardin aujourd'hui.",
    "हम आज बगीचे में नई किताब पढ़ते हैं।",
] * 3
NORMAL, CONTROL, BYTE = 1, 3, 6
SIZES = {"hidden": 32, "ffn": 64, "heads": 4, "context": 128, "seed": 1}


def byte_level(vocabulary: int = 400) -> PreTrainedTokenizerFast:
    """As of Qwen: a BPE over bytes."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<bos>", "<eos>"], initial_alphabet=alphabet,
        show_progress=False,
    )  # fmt: skip
    bpe.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<bos>", eos_token="<eos>")


def sentencepiece() -> tuple[PreTrainedTokenizerFast, list[str]]:
    """As of Gemma: a BPE with byte fallback over words that begin with ▁, and its entries."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.normalizer = normalizers.Replace(" ", "▁")
    bpe.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    )
    learnt = sorted(bpe.get_vocab().items(), key=lambda item: item[1])[len(specials) :]
    merged = [token for token, _ in learnt if len(token) > 1]
    single = [token for token, _ in learnt if len(token) == 1]
    tokens = [*specials, *bytes_, *merged, *single]
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>"
    ), tokens


def llama(folder: Path, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Write folder/llama.gguf; returns the model whose weights it holds."""
    model = random_model("llama", tokenizer, layers=2, **SIZES)
    writer = gguf.GGUFWriter(folder / "llama.gguf", "llama")
    _sizes(writer, model.config)
    writer.add_rope_dimension_count(model.config.head_dim)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    specials = tokenizer.all_special_tokens
    writer.add_token_types([CONTROL if t in specials else NORMAL for t, _ in vocabulary])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    _tensors(writer, model, heads=4)
    return model


def gemma3(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Write folder/gemma3.gguf; returns the model whose weights it holds, and a tokenizer."""
    tokenizer, tokens = sentencepiece()
    model = random_model("gemma3", _in_order(tokens), layers=7, **SIZES)
    model.config.sliding_window = 16  # shorter than the texts of the tests
    model = type(model)(model.config)
    writer = gguf.GGUFWriter(folder / "gemma3.gguf", "gemma3")
    _sizes(writer, model.config)
    writer.add_key_length(model.config.head_dim)
    writer.add_value_length(model.config.head_dim)
    writer.add_sliding_window(model.config.sliding_window)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(index) for index in range(len(tokens))])
    kinds = [CONTROL] * 4 + [BYTE] * 256 + [NORMAL] * (len(tokens) - 260)
    writer.add_token_types(kinds)
    for kind in ("pad", "eos", "bos", "unk"):
        getattr(writer, f"add_{kind}_token_id")(tokens.index(f"<{kind}>"))
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    _tensors(writer, model, heads=None)
    return model, tokenizer


def _in_order(tokens: list[str]) -> PreTrainedTokenizerFast:
    """Tells `random_model` how many entries there are, and the ids of the special ones."""
    words = models.WordLevel({token: index for index, token in enumerate(tokens)}, "<unk>")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="<pad>", eos_token="<eos>", bos_token="<bos>"
    )


def _sizes(writer: gguf.GGUFWriter, config) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])


def _tensors(writer: gguf.GGUFWriter, model: PreTrainedModel, heads: int | None) -> None:
    arch = gguf.MODEL_ARCH.GEMMA3 if heads is None else gguf.MODEL_ARCH.LLAMA
    names = gguf.get_tensor_name_map(arch, model.config.num_hidden_layers)
    for name, tensor in model.named_parameters():
        values = tensor.detach().numpy().astype(np.float32)
        if heads is None and "norm" in name:
            values = values + 1  # Gemma's norms multiply by 1 + weight, llama.cpp's by weight
        elif heads and ("q_proj" in name or "k_proj" in name):
            rows, columns = values.shape  # llama.cpp's rotation pairs neighbours
            pairs = values.reshape(heads, 2, rows // heads // 2, columns)
            values = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
