"""Translates prompts: length-sorted batches through `generate`, order kept.

A row comes out as if it were alone, up to float error: no neighbour decides how long it may be,
and nothing that the base model was shipped with (penalties, forced tokens, sampling) takes part.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from polylect.data.batch import Example, TranslationBatch
from polylect.data.text import decoded, one_line
from polylect.layers.context import RoutingContext
from polylect.models.context import UNLIMITED, Context, context_of
from polylect.strategies.decoding.together import Decoding
from polylect.strategies.decoding.translation import UNWATCHED, Translation, Watch


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

    def cap(self, prompt: int, context: float | int = math.inf) -> int:
        """Return the most new tokens for a prompt of so many tokens, in a context of so many."""
        most = min(self.limit, int(self.ratio * prompt) + self.extra, context - prompt)
        return int(max(1, most))


@runtime_checkable
class Generator(Protocol):
    """What `translate` needs of a strategy."""

    backbone: nn.Module
    tokenizer: Any
    generation: Generation
    context: RoutingContext

    def routing(self, batch: TranslationBatch) -> AbstractContextManager: ...

    def hold(
        self, named: Sequence[str | None], directions: Sequence[str]
    ) -> AbstractContextManager: ...

    def can_join(self, named: Sequence[str | None], directions: Sequence[str]) -> bool: ...


def batches(
    lengths: Sequence[int], generation: Generation, context: Context = UNLIMITED
) -> Iterator[list[int]]:
    """Yield the indices of the prompts of each batch, longest first, within rows and tokens.

    The longest prompt of a batch and the longest translation that one of its rows may have fit
    into the context together, for some models have no positions beyond it, not even for padding.
    """
    order = list(range(len(lengths)))
    if generation.sort:
        order.sort(key=lambda i: -lengths[i])
    caps = [generation.cap(length, context.length) for length in lengths]
    batch: list[int] = []
    longest = cap = 0
    for index in order:
        longest, cap = max(longest, lengths[index]), max(cap, caps[index])
        cost = (len(batch) + 1) * generation.beams * (longest + generation.cap(longest))
        is_full = len(batch) == generation.rows or cost > generation.tokens
        if batch and (is_full or longest + cap > context.shared):
            yield batch
            batch, longest, cap = [], lengths[index], caps[index]
        batch.append(index)
    if batch:
        yield batch


def check_room(module: Generator, prompts: Mapping[int, Example]) -> None:
    """Raises ValueError, with its number from 1, for a prompt without room in the context."""
    context = context_of(module.backbone.config)
    for index, prompt in prompts.items():
        if not context.has_room(len(prompt.prompt)):
            raise ValueError(
                f"text {index + 1} has {len(prompt.prompt)} tokens with its prompt, and the model "
                f"takes {context.length}: split it into sentences."
            )


@torch.no_grad()
def translate(
    module: Generator,
    prompts: Sequence[Example],
    ends: Sequence[int],
    watch: Watch = UNWATCHED,
) -> Iterator[tuple[int, Translation]]:
    """Yield (index of the prompt, its translation), a batch at a time, in order of decoding.

    Those of prompts without room in the model's context come first: empty, and marked `too_long`.

    Args:
        watch: is told of tokens and of translations while their batch goes on.

    Raises:
        ValueError: the model's scores of a next token are NaN or infinite.
    """
    context = context_of(module.backbone.config)
    fitting = []
    for index, prompt in enumerate(prompts):
        if context.has_room(len(prompt.prompt)):
            fitting.append(index)
        else:
            yield index, Translation("", 0, capped=False, too_long=True)
    lengths = [len(prompts[index].prompt) for index in fitting]
    for batch in batches(lengths, module.generation, context):
        indices = [fitting[i] for i in batch]
        decoding = Decoding(module, indices, ends, watch)
        yield from decoding.run([prompts[index] for index in indices])


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of a translation's tokens, one line."""
    return one_line(decoded(tokenizer, ids))
