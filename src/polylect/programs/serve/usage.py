"""Which adapters or experts each token of a translation was written with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polylect.data.batch import Example, TranslationBatch, collate, pad_id
from polylect.layers.neurons.ffn import neuron_banks
from polylect.strategies.base import TranslationModule
from polylect.strategies.generation import text_of
from polylect.strategies.lag import LAG
from polylect.strategies.landermt import LANDeRMT
from polylect.strategies.lora_library import LoRALibrary
from polylect.strategies.lora_switch import LoRASwitch
from polylect.strategies.mix_moe import MixMoE

BASE = "base"
"""The name of the base alone."""


@dataclass(frozen=True)
class Usage:
    """Who wrote a translation, token by token.

    Attributes:
        names: of adapters, experts, or kinds of neurons.
        tokens: pieces of the text, which put together are the whole of it.
        shares: for each piece those of the names, which sum to 1.
    """

    names: tuple[str, ...]
    tokens: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]


@torch.no_grad()
def usages(
    module: TranslationModule, prompts: Sequence[Example], texts: Sequence[str]
) -> list[Usage | None]:
    """Return the usage of each translation; None for all where the whole model writes every token.

    The model reads prompt and translation once more, in one pass. What it used where it reads a
    token is what it wrote the next one with.
    """
    tokenizer, template = module.tokenizer, module.template
    targets = template.encode_targets(tokenizer, texts, [prompt.direction for prompt in prompts])
    read = [
        replace(prompt, target=target[:-1], references=())
        for prompt, target in zip(prompts, targets, strict=True)
    ]
    batch = collate(read, pad_id(tokenizer), "right")
    found = shares(module, batch.to(next(module.backbone.parameters()).device))
    if found is None:
        return [None] * len(read)
    names, values = found
    return [
        Usage(names, tuple(_pieces(tokenizer, row.target)), _rows(values[i], row))
        for i, row in enumerate(read)
    ]


def _rows(values: Float[Tensor, "length names"], row: Example) -> tuple[tuple[float, ...], ...]:
    first = len(row.prompt) - 1  # reads the prompt's last token, and writes the first
    own = values[first : first + len(row.target)].cpu().double()
    return tuple(tuple(round(share, 4) for share in token) for token in own.tolist())


def _pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What each token adds to the text; that of a character's first bytes comes with its last."""
    pieces, said = [], ""
    for end in range(1, len(ids) + 1):
        text = text_of(tokenizer, ids[:end])
        is_whole = end == len(ids) or (not text.endswith("\ufffd") and text.startswith(said))
        pieces.append(text[len(said) :] if is_whole else "")
        said = text if is_whole else said
    return pieces


Shares = tuple[tuple[str, ...], Float[Tensor, "rows length names"]]


@singledispatch
def shares(module: TranslationModule, batch: TranslationBatch) -> Shares | None:
    """Return names, and what share each has in every token: the mean over the model's layers.

    None for a strategy in which all tokens go through the same weights.
    """
    return None


@shares.register
def _(module: LoRALibrary, batch: TranslationBatch) -> Shares:
    adapters = batch.adapters or [None] * batch.rows
    return _whole_rows(module.adapters_of(adapters, batch.directions), batch)


@shares.register
def _(module: LoRASwitch, batch: TranslationBatch) -> Shares:
    return _whole_rows([module.adapter(direction) for direction in batch.directions], batch)


@shares.register
def _(module: LAG, batch: TranslationBatch) -> Shares:
    """By the strongest adapter of each layer."""
    traced = module.trace(batch).values()
    names = tuple(sorted({name for own, _ in traced for name in own}))
    values = torch.zeros(*batch.input_ids.shape, len(names))
    for own, strongest in traced:
        for position, name in enumerate(own):
            values[..., names.index(name)] += (strongest == position).cpu()
    return names, values / values.sum(-1, keepdim=True).clamp(min=1)


@shares.register
def _(module: MixMoE, batch: TranslationBatch) -> Shares:
    with module.routing(batch):
        module(batch)
    names = tuple(
        f"{g.upper()} {i + 1}" for g, own in module.groups().items() for i in range(len(own))
    )
    values = torch.zeros(batch.input_ids.numel(), len(names))
    for _, routing, _ in module.routings():
        weights = routing.weights.float() / routing.weights.float().sum(1, keepdim=True)
        values.scatter_add_(1, routing.indices.cpu(), weights.cpu())
    values /= values.sum(1, keepdim=True)
    return names, values.view(*batch.input_ids.shape, len(names))


@shares.register
def _(module: LANDeRMT, batch: TranslationBatch) -> Shares | None:
    """The gates' weights of general and of the direction's own neurons."""
    with module.routing(batch):
        module(batch)
        banks = neuron_banks(module.backbone).values()
        gates = [bank.gate_values.float().mean(-1) for bank in banks if bank.gates]
    if not gates:
        return None
    general = torch.stack(gates).mean(0).cpu()
    return ("general neurons", "own neurons"), torch.stack([general, 1 - general], -1)


def _whole_rows(adapters: Sequence[str], batch: TranslationBatch) -> Shares:
    names = tuple(dict.fromkeys(name or BASE for name in adapters))
    own = torch.tensor([names.index(name or BASE) for name in adapters])
    values = torch.nn.functional.one_hot(own, len(names)).float()
    return names, values[:, None].expand(-1, batch.input_ids.shape[1], -1)
