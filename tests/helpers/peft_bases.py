"""Random two-layer bases, and adapters on them made here and by PEFT."""

import copy
from collections.abc import Callable

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from polylect.layers.context import RoutingContext
from polylect.layers.lora.attach import attach_all
from polylect.layers.lora.layer import LoRALayer

IDS = torch.arange(3, 27).view(4, 6)


def llama(**special_tokens: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        **special_tokens,
    )
    return LlamaForCausalLM(config)


def neox() -> GPTNeoXForCausalLM:
    config = GPTNeoXConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=50,
    )
    return GPTNeoXForCausalLM(config)


def bloom() -> BloomForCausalLM:
    config = BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=50)
    return BloomForCausalLM(config)


BASES: dict[str, Callable[[], PreTrainedModel]] = {"llama": llama, "neox": neox, "bloom": bloom}


def trained_by_peft(base: nn.Module, name: str = "default", **options) -> PeftModel:
    """PEFT's LoRA with random factors on a copy of the base."""
    options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options}
    config = LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **options)
    return get_peft_model(copy.deepcopy(base), config, adapter_name=name).eval()


def attach_random_adapters(
    base: nn.Module, targets="all-linear", **ranks
) -> tuple[dict, RoutingContext]:
    """LoRA layers put into the base itself, with one random adapter for each keyword."""
    context = RoutingContext()
    layers = attach_all(base, targets, context)
    for name, rank in ranks.items():
        for layer in layers.values():
            layer.add(name, rank, alpha=6)
            layer.lora_b[name].data.normal_(std=0.3)
    return layers, context


def logits(base: nn.Module, context: RoutingContext, names: list[str]) -> torch.Tensor:
    with torch.no_grad(), context.route(names):
        return base(input_ids=IDS[: len(names)]).logits


def install(layers: dict[str, LoRALayer], name: str, adapter) -> None:
    for path, update in adapter.modules.items():
        layers[path].set(name, update.a, update.b, update.scaling)
