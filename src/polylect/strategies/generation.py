"""From prompts to translations: length-sorted batches through `generate`, order kept."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor, nn

from polylect.data.batch import Example, TranslationBatch, collate, pad_id


@dataclass(frozen=True)
class Generation:
    """How translations are decoded.

    A hypothesis may have at most `ratio` times the prompt's tokens plus `extra`, and never more
    than `limit`; one that gets there is reported as capped.
    """

    beams: int = 1
    length_penalty: float | int = 1.0
    ratio: float | int = 2.0
    extra: int = 20
    limit: int = 256
    rows: int = 64  # rows in a batch, before beams
    tokens: int = 16384  # rows x (prompt + cap) in a batch, beams counted
    sort: bool = True  # batches of similar length; false keeps the input order

    def __post_init__(self) -> None:
        for name in ("beams", "limit", "rows", "tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"generation.{name} must be at least 1, got {getattr(self, name)}")
        if self.ratio < 0 or self.extra < 0 or self.ratio + self.extra == 0:
            raise ValueError("generation.ratio and generation.extra leave no token to generate.")

    def cap(self, prompt: int) -> int:
        """Most new tokens for a prompt of so many tokens."""
        return max(1, min(self.limit, int(self.ratio * prompt) + self.extra))


@dataclass(frozen=True)
class Translation:
    """One hypothesis: its text, its number of tokens, and whether it ran into the length cap."""

    text: str
    tokens: int
    capped: bool


@runtime_checkable
class Generator(Protocol):
    """What `translate` needs of a strategy."""

    backbone: nn.Module
    tokenizer: Any
    generation: Generation

    def routing(self, batch: TranslationBatch) -> AbstractContextManager: ...


def batches(lengths: Sequence[int], generation: Generation) -> Iterator[list[int]]:
    """Indices of the prompts of each batch, longest prompts first, within rows and tokens."""
    order = list(range(len(lengths)))
    if generation.sort:
        order.sort(key=lambda i: -lengths[i])
    batch: list[int] = []
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        cost = (len(batch) + 1) * generation.beams * (longest + generation.cap(longest))
        if batch and (len(batch) == generation.rows or cost > generation.tokens):
            yield batch
            batch, longest = [], lengths[index]
        batch.append(index)
    if batch:
        yield batch


@torch.no_grad()
def translate(
    module: Generator, prompts: Sequence[Example], ends: Sequence[int]
) -> Iterator[tuple[int, Translation]]:
    """Yield (index of the prompt, its translation), a batch at a time, in order of decoding.

    Raises ValueError where a prompt leaves no room in the model's context.
    """
    context = getattr(module.backbone.config, "max_position_embeddings", None)
    for number, prompt in enumerate(prompts):
        if context is not None and len(prompt.prompt) >= context:
            raise ValueError(
                f"text {number + 1} has {len(prompt.prompt)} tokens with its prompt, and the model "
                f"takes {context}: split it into sentences."
            )
    for indices in batches([len(p.prompt) for p in prompts], module.generation):
        batch = collate([prompts[i] for i in indices], pad_id(module.tokenizer), "left")
        yield from zip(indices, translate_batch(module, batch, ends), strict=True)


@torch.no_grad()
def translate_batch(
    module: Generator, batch: TranslationBatch, ends: Sequence[int]
) -> list[Translation]:
    """Greedy or beam translations of one left-padded batch of prompts, in its order."""
    generation, backbone = module.generation, module.backbone
    batch = batch.to(next(backbone.parameters()).device)
    width = batch.input_ids.shape[1]
    cap = generation.cap(width)
    context = getattr(backbone.config, "max_position_embeddings", None)
    if context is not None:
        cap = min(cap, context - width)
    with module.routing(batch):
        output = backbone.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=cap,
            num_beams=generation.beams,
            length_penalty=generation.length_penalty,
            do_sample=False,
            eos_token_id=list(ends),
            pad_token_id=pad_id(module.tokenizer),
        )
    # Each row has its own cap, so that its neighbours do not decide how long it may be.
    caps = [min(cap, generation.cap(int(n))) for n in batch.attention_mask.sum(dim=1)]
    rows = zip(output, caps, strict=True)
    return [_finish(module, row[width : width + own], ends) for row, own in rows]


def _finish(module: Generator, ids: Int[Tensor, " new"], ends: Sequence[int]) -> Translation:
    stops = torch.isin(ids, torch.tensor(list(ends), device=ids.device)).nonzero()
    capped = len(stops) == 0
    kept = ids if capped else ids[: int(stops[0])]
    text = module.tokenizer.decode(kept, skip_special_tokens=True).strip()
    # A reader gets one line per sentence, so a hypothesis is one line.
    return Translation(" ".join(text.split()), len(kept), capped)
