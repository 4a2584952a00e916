"""Two-layer random models, and the same adapters in PEFT and here."""

import pytest
from helpers import peft_bases
from transformers import LlamaForCausalLM


@pytest.fixture
def llama() -> LlamaForCausalLM:
    model = peft_bases.llama(pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return model.eval().requires_grad_(False)
