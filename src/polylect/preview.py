"""`dry_run=true`: what the model will see and what the run will cost, before it starts."""

from typing import Any

from omegaconf import DictConfig

from polylect.data.batch import Example
from polylect.data.datamodule import TranslationData
from polylect.strategies.base import TranslationModule

EXAMPLES = 2


def preview(module: TranslationModule, data: TranslationData, cfg: DictConfig) -> str:
    """A page of text: examples token by token, parameter counts, memory and steps."""
    lines = ["Examples, token by token; [brackets]: learned. The last learned token is the end."]
    for direction in data.directions:
        lines.append(f"\n{direction}")
        for example in data.examples(direction, "train", EXAMPLES):
            lines += _example(module, example)
    return "\n".join([*lines, "", *_parameters(module), *_cost(module, data, cfg)])


def _example(module: TranslationModule, example: Example) -> list[str]:
    tokens = module.tokenizer.convert_ids_to_tokens
    prompt = " ".join(tokens(example.prompt))
    target = " ".join(f"[{token}]" for token in tokens(example.target))
    return [
        f"  {prompt} {target}",
        f"  {len(example.prompt)} prompt + {len(example.target)} learned",
    ]


def _parameters(module: TranslationModule) -> list[str]:
    groups = module.parameter_groups() if module.trains else []
    total = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for group in groups for p in group["params"])
    lines = [f"parameters  {total:,} in all, {trained:,} trained ({trained / total:.1%})"]
    named = [g for g in groups if "name" in g]
    return lines + [f"  {g['name']}: {sum(p.numel() for p in g['params']):,}" for g in named]


def _cost(module: TranslationModule, data: TranslationData, cfg: DictConfig) -> list[str]:
    trained = [p for g in (module.parameter_groups() if module.trains else []) for p in g["params"]]
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    state = sum(3 * p.numel() * p.element_size() for p in trained)  # gradient and two moments
    activations = activation_bytes(module.backbone.config, data.tokens_per_batch)
    steps = int(cfg.trainer.max_steps)
    batches = steps * int(cfg.trainer.get("accumulate_grad_batches", 1))
    sizes = {d: len(data.pairs(d, "train")) for d in data.directions}
    return [
        f"memory      about {_gib(weights + state + activations)}: weights {_gib(weights)}, "
        f"gradients and AdamW state {_gib(state)}, activations {_gib(activations)} (rough)",
        f"steps       {steps:,}, at most {batches * data.tokens_per_batch:,} tokens with padding",
        f"data        {sum(sizes.values()):,} training pairs: "
        + ", ".join(f"{d} {n:,}" for d, n in sizes.items()),
    ]


def activation_bytes(config: Any, tokens: int) -> int:
    """Bytes kept for the backward pass of one batch: a rough count of tensors per layer.

    Per token and layer: about 14 vectors of the hidden size (norms, attention, residuals) and 5 of
    the FFN width; and twice the logits.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    width = getattr(config, "intermediate_size", None) or 4 * hidden
    return 4 * tokens * (layers * (14 * hidden + 5 * width) + 2 * config.vocab_size)


def _gib(size: float | int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
