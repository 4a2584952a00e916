"""Strategies on one tiny model, and batches of three directions for them."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from helpers.tiny import MODEL, config

from polylect.data.batch import Example, TranslationBatch, collate, pad_id
from polylect.models.backbone import tiny_backbone
from polylect.run.build import build_strategy
from polylect.strategies.base import TranslationModule
from polylect.strategies.lora_switch import LoRASwitch

DIRECTIONS = ("en-de", "en-fr", "en-hi")
ROWS = (
    ("en-de", "The cat sees the house.", "Die Katze sieht das Haus."),
    ("en-de", "We read.", "Wir lesen heute das neue Buch."),
    ("en-fr", "The small cat sees it.", "Le petit chat le voit."),
    ("en-hi", "A book.", "एक किताब।"),
)


@cache
def _base() -> tuple[Any, Any]:
    return tiny_backbone(hidden=32)


def base() -> tuple[Any, Any]:
    """A fresh copy of the base model, and its tokenizer."""
    model, tokenizer = _base()
    return copy.deepcopy(model), tokenizer


@cache
def _config(strategy: str, overrides: tuple[str, ...]) -> Any:
    directions = f"data.directions=[{','.join(DIRECTIONS)}]"
    return config("train", *MODEL, directions, f"strategy={strategy}", *overrides)


def build(strategy: str, *overrides: str) -> TranslationModule:
    """The strategy of that name in conf/strategy with its base, the same every time."""
    torch.manual_seed(0)
    module = build_strategy(_config(strategy, overrides))
    module.set_backbone(*base())
    return module


def train_a_little(module: TranslationModule) -> TranslationModule:
    """Move what trains away from where it starts: a zero B would hide most mistakes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return module


def examples(
    module: TranslationModule, rows: Sequence[tuple[str, str, str]] = ROWS
) -> list[Example]:
    examples = []
    for direction, source, target in rows:
        prompt = module.prompt(source, direction).prompt
        target_ids = module.template.encode_target(module.tokenizer, target, direction)
        examples.append(Example(prompt, target_ids, direction, source, (target,)))
    return examples


def batch_of(
    module: TranslationModule, rows: Sequence[tuple[str, str, str]] = ROWS
) -> TranslationBatch:
    return collate(examples(module, rows), pad_id(module.tokenizer), "right")


def logits(module: TranslationModule, batch: TranslationBatch) -> torch.Tensor:
    with module.routing(batch):
        return module.backbone(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).logits


def write_adapters(folder: Path, directions: Sequence[str]) -> Path:
    """Write an adapter far from zero for each direction on the tiny base; return their folder."""
    module = LoRASwitch(directions=directions, template="tag", rank=4)
    module.set_backbone(*tiny_backbone())
    for group in module.parameter_groups():
        for parameter in group["params"]:
            torch.nn.init.normal_(parameter, std=0.3)
    module.export(folder)
    return folder / "adapters"


def limited_prompts(module: Any, *limits: int) -> list[Example]:
    """Prompts of `ROWS`, there and back, that may have so many tokens."""
    rows = [*ROWS, *ROWS[::-1]]
    return [
        replace(module.prompt(source, direction), limit=limit)
        for (direction, source, _), limit in zip(rows, limits, strict=True)
    ]
