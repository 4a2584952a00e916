"""How many tokens models of all kinds take, as their configurations say it."""

import math
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from polylect.models.context import UNLIMITED, Context, context_of

LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


def scaled(kind: str, positions: int = 64, **scaling: Any) -> Any:
    heads = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4}
    return AutoConfig.for_model(
        kind,
        **heads,
        max_position_embeddings=positions,
        rope_parameters={"rope_theta": 1e4} | scaling,
        **({"original_max_position_embeddings": 16} if kind == "phi3" else {}),
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (AutoConfig.for_model("llama", max_position_embeddings=77), 77),
        (AutoConfig.for_model("gpt_neox", max_position_embeddings=77), 77),
        (AutoConfig.for_model("gpt2", n_positions=77), 77),
        (AutoConfig.for_model("mpt", max_seq_len=77), 77),
        (AutoConfig.for_model("mistral", max_position_embeddings=77, sliding_window=8), 77),
        (AutoConfig.for_model("gemma3", text_config={"max_position_embeddings": 77}), 77),
        (AutoConfig.for_model("bloom"), math.inf),
        (AutoConfig.for_model("xlnet"), math.inf),  # says -1
        (scaled("llama", rope_type="default"), 64),
        (scaled("llama", rope_type="linear", factor=4.0), 256),
        (scaled("llama", rope_type="yarn", factor=4.0), 256),
        (scaled("llama", 256, rope_type="yarn", factor=4.0,
                original_max_position_embeddings=64), 256),
        (scaled("llama", 256, rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                high_freq_factor=4.0, original_max_position_embeddings=32), 256),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)  # fmt: skip
def test_the_context_is_read_off_every_kind_of_configuration(
    config: Any, expected: float | int
) -> None:
    assert context_of(config) == Context(expected, expected)
    assert context_of(config).has_room(63)
    assert context_of(config).has_room(1000) == (expected == math.inf)


def test_rotary_scalings_that_one_long_row_changes_for_all_have_less_that_is_shared() -> None:
    assert context_of(scaled("llama", rope_type="dynamic", factor=2.0)) == Context(128, 64)
    assert context_of(scaled("phi3", **LONG)) == Context(64, 16)
    assert UNLIMITED.shared == UNLIMITED.length == math.inf


@torch.no_grad()
def test_a_long_row_changes_its_neighbours_beyond_what_is_shared_only() -> None:
    """What `shared` is for, on the real thing."""
    config = scaled("phi3", **LONG)
    config.update({"num_hidden_layers": 1, "intermediate_size": 32, "vocab_size": 50})
    config.update({"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2})
    model = AutoModelForCausalLM.from_config(config).eval()
    row = torch.randint(3, 50, (1, 30))
    short = model(row[:, :12]).logits
    for length, is_same in ((context_of(config).shared, True), (30, False)):
        both = torch.cat([row[:, :length], row[:, :length].flip(1)])
        mask = torch.ones_like(both)
        mask[0, 12:] = 0
        together = model(both, attention_mask=mask).logits[:1, :12]
        assert torch.allclose(together, short, atol=1e-5) == is_same
