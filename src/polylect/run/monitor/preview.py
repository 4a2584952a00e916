"""`dry_run=true`: what the model will see and what the run will cost, before it starts."""

from typing import Any

from omegaconf import DictConfig

from polylect.data.audit.page import counts_page
from polylect.data.batch import Example
from polylect.data.datamodule import TranslationData
from polylect.models.checkpointing import is_checkpointed
from polylect.strategies.base import TranslationModule

EXAMPLES = 2


def preview(module: TranslationModule, data: TranslationData, cfg: DictConfig) -> str:
    """Return a page of text: examples token by token, parameter counts,
    memory and steps, what is read.

    `audit.counts.complete_report` must have completed the report of the data.
    """
    lines = ["Examples, token by token; [brackets]: learned. The last learned token is the end."]
    for direction in data.directions:
        lines.append(f"\n{direction}")
        for example in _learned(data, direction):
            lines += _example(module, example)
    costs = [*_parameters(module), *_cost(module, data, cfg)]
    return "\n".join([*lines, "", *costs, "", counts_page(data)])


def _learned(data: TranslationData, direction: str) -> list[Example]:
    """The first examples of a direction that training would not leave out."""
    size, wanted = len(data.pairs(direction, "train")), EXAMPLES
    while True:
        examples = data.examples(direction, "train", wanted)
        fitting = [e for e in examples if e.length <= data.max_length]
        if len(fitting) >= EXAMPLES or wanted >= size:
            return fitting[:EXAMPLES]
        wanted *= 8


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
    activations = activation_bytes(
        module.backbone.config, data.tokens_per_batch, checkpointed=is_checkpointed(module.backbone)
    )
    # One epoch is the whole run, so that of max_epochs only 0 says anything.
    steps = 0 if cfg.trainer.get("max_epochs") == 0 else int(cfg.trainer.max_steps)
    batches = steps * int(cfg.trainer.get("accumulate_grad_batches", 1))
    return [
        f"memory      about {_gib(weights + state + activations)}: weights {_gib(weights)}, "
        f"gradients and AdamW state {_gib(state)}, activations {_gib(activations)} (rough)",
        f"steps       {steps:,}, at most {batches * data.tokens_per_batch:,} tokens with padding",
    ]


def activation_bytes(config: Any, tokens: int, *, checkpointed: bool = False) -> int:
    """Return the bytes kept for the backward pass of one batch: a rough count of tensors per layer.

    Per token and layer: about 14 vectors of the hidden size (norms, attention, residuals) and 5 of
    the FFN width; and twice the logits. Of layers that are `checkpointed`, the input of each and
    all of one.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    width = getattr(config, "intermediate_size", None) or 4 * hidden
    layer = 14 * hidden + 5 * width
    kept = layers * hidden + layer if checkpointed else layers * layer
    return 4 * tokens * (kept + 2 * config.vocab_size)


def _gib(size: float | int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
