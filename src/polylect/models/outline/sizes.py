"""Sizes of the models that `conf/model` names, for dry runs where their files cannot be had.

From the `config.json` of each on the hub; what is not named has the default of transformers.
"""

from typing import Any

from transformers import AutoConfig, PretrainedConfig

SIZES: dict[str, dict[str, Any]] = {
    "bigscience/bloom-560m": {
        "model_type": "bloom",
        "vocab_size": 250_880,
        "hidden_size": 1024,
        "n_layer": 24,
        "n_head": 16,
    },
    "bigscience/bloom-7b1": {
        "model_type": "bloom",
        "vocab_size": 250_880,
        "hidden_size": 4096,
        "n_layer": 30,
        "n_head": 32,
    },
    "EleutherAI/pythia-410m": {
        "model_type": "gpt_neox",
        "vocab_size": 50_304,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "max_position_embeddings": 2048,
    },
    "google/gemma-2-2b": {
        "model_type": "gemma2",
        "vocab_size": 256_000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 8192,
    },
    "google/gemma-3-270m": {
        "model_type": "gemma3_text",
        "vocab_size": 262_144,
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 18,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "sliding_window": 512,
        "max_position_embeddings": 32_768,
    },
    "meta-llama/Llama-3.2-1B": {
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131_072,
        "tie_word_embeddings": True,
    },
    "meta-llama/Llama-2-7b-hf": {
        "model_type": "llama",
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
    },
    "Qwen/Qwen3-0.6B-Base": {
        "model_type": "qwen3",
        "vocab_size": 151_936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": True,
    },
}


def published_config(hub_id: str) -> PretrainedConfig:
    """Return the configuration of a model of `SIZES`."""
    sizes = dict(SIZES[hub_id])
    return AutoConfig.for_model(sizes.pop("model_type"), **sizes)
