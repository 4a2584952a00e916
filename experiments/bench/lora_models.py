"""One small model with random LoRA adapters, the same ones here and in PEFT."""

import copy
from inspect import signature

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from polylect.layers.context import RoutingContext
from polylect.layers.lora.attach import attach_all
from polylect.layers.lora.layer import LoRALayer

# The keyword of the cache of keys and values, which transformers 5.24 renames.
(CACHE,) = {"cache", "past_key_values"} & set(signature(LlamaForCausalLM.forward).parameters)
ROWS, LENGTH, RANK, ALPHA = 32, 32, 16, 32
CONFIG = LlamaConfig(
    hidden_size=256,
    intermediate_size=1024,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=4,
    vocab_size=1000,
)


def pair(count: int) -> tuple[LlamaForCausalLM, RoutingContext, dict[str, LoRALayer], PeftModel]:
    """The model with `count` random adapters, here and in PEFT."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(CONFIG).eval().requires_grad_(False)
    peft = in_peft(base, [f"a{k}" for k in range(count)])
    theirs = {
        name.removeprefix("base_model.model."): module
        for name, module in peft.named_modules()
        if hasattr(module, "lora_A")
    }
    context = RoutingContext()
    layers = attach_all(base, "all-linear", context)
    for path, layer in layers.items():
        for name in theirs[path].lora_A:
            a, b = theirs[path].lora_A[name].weight, theirs[path].lora_B[name].weight
            layer.set(name, a, b, ALPHA / RANK, trainable=True)
    return base, context, layers, peft


def in_peft(base: LlamaForCausalLM, names: list[str]) -> PeftModel:
    def config() -> LoraConfig:
        return LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", init_lora_weights=False
        )

    peft = get_peft_model(copy.deepcopy(base), config(), adapter_name=names[0])
    for name in names[1:]:
        peft.add_adapter(name, config())
    return peft.eval()


def tokens(length: int) -> Tensor:
    return torch.randint(3, CONFIG.vocab_size, (ROWS, length))


def spread(count: int) -> list[str]:
    """Adapters dealt out row by row: neighbours differ."""
    return [f"a{i % count}" for i in range(ROWS)]


def blocks(count: int) -> list[str]:
    """The same rows sorted by adapter, as a sorted batch has them."""
    return [f"a{i * count // ROWS}" for i in range(ROWS)]
