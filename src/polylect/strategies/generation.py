"""Translates prompts: length-sorted batches through `generate`, order kept.

A row comes out as if it were alone, up to float error: no neighbour decides how long it may be,
and nothing that the base model was shipped with (penalties, forced tokens, sampling) takes part.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor, nn

from polylect.data.batch import Example, TranslationBatch, collate, pad_id
from polylect.data.text import decoded, one_line
from polylect.finite import unusable_scores
from polylect.layers.context import RoutingContext
from polylect.models.context import UNLIMITED, Context, context_of
from polylect.strategies.decoding.batch import Prompts, decode_greedily, decode_with_beams


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


@dataclass(frozen=True)
class Translation:
    """One hypothesis.

    Attributes:
        text: one line.
        tokens: number of its tokens, without the end token.
        capped: whether it ran into the length cap.
        too_long: whether the prompt left no room in the model's context, and there is no text.
    """

    text: str
    tokens: int
    capped: bool
    too_long: bool = False


@dataclass(frozen=True)
class Watch:
    """Who is told, within the route of a batch, of what becomes of its prompts, by their numbers.

    Attributes:
        token: of each token but for those that end a translation; where it returns True, that
            translation ends there. Not called in beam search.
        end: of each translation when it leaves its batch, which may go on with others.
    """

    token: Callable[[int, int], bool] | None = None
    end: Callable[[int, Translation], None] | None = None

    def by_place(self, numbers: Sequence[int]) -> "Watch":
        """Return one that takes a prompt's place among these numbers for its number."""
        token, end = self.token, self.end
        return Watch(
            token and (lambda place, newest: token(numbers[place], newest)),
            end and (lambda place, translation: end(numbers[place], translation)),
        )


UNWATCHED = Watch()


@runtime_checkable
class Generator(Protocol):
    """What `translate` needs of a strategy."""

    backbone: nn.Module
    tokenizer: Any
    generation: Generation
    context: RoutingContext

    def routing(self, batch: TranslationBatch) -> AbstractContextManager: ...


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
        examples = [prompts[index] for index in indices]
        own = [module.generation.cap(lengths[i], context.length) for i in batch]
        caps = [
            cap if example.limit is None else min(cap, example.limit)
            for cap, example in zip(own, examples, strict=True)
        ]
        decoding = _Decoding(module, indices, caps, ends, watch)
        decoding.run(examples)
        if decoding.broken:
            broken = sorted(decoding.broken)
            texts = [f"{index + 1} ({prompts[index].direction})" for index in broken]
            more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
            where = f"text {', '.join(texts[:3])}{more}"
            raise ValueError(unusable_scores(where, next(module.backbone.parameters()).dtype))
        yield from ((index, decoding.translations[index]) for index in indices)


class _Decoding:
    """One batch, as it is decoded.

    Args:
        indices: the numbers of its prompts.
        caps: most new tokens of each.

    Attributes:
        translations: by the number of the prompt.
        broken: numbers of prompts that have none, as scores were not finite.
    """

    def __init__(
        self,
        module: Generator,
        indices: Sequence[int],
        caps: Sequence[int],
        ends: Sequence[int],
        watch: Watch,
    ) -> None:
        self._module, self._indices, self._caps = module, indices, caps
        self._ends, self._watch = ends, watch.by_place(indices)
        self.translations: dict[int, Translation] = {}
        self.broken: list[int] = []

    def run(self, examples: Sequence[Example]) -> None:
        """Decode the prompts, greedily or with beams."""
        generation, backbone = self._module.generation, self._module.backbone
        padding = pad_id(self._module.tokenizer)
        batch = collate(examples, padding, "left").to(next(backbone.parameters()).device)
        prompts = Prompts(batch.input_ids, batch.attention_mask, self._caps, self._ends, padding)
        given = backbone, self._module.context, prompts, self._end
        with self._module.routing(batch):
            if generation.beams > 1:
                decode_with_beams(*given, generation.beams, generation.length_penalty)
            else:
                decode_greedily(*given, self._watch.token)

    def _end(self, row: int, tokens: Int[Tensor, " new"], is_broken: bool) -> None:
        if is_broken:
            self.broken.append(self._indices[row])
            return
        translation = _finish(self._module, tokens[: self._caps[row]], self._ends)
        self.translations[self._indices[row]] = translation
        if self._watch.end is not None:
            self._watch.end(row, translation)


def _finish(module: Generator, ids: Int[Tensor, " new"], ends: Sequence[int]) -> Translation:
    stops = torch.isin(ids, torch.tensor(list(ends), device=ids.device)).nonzero()
    capped = len(stops) == 0
    end = len(ids) if capped else int(stops[0])
    text = decoded(module.tokenizer, ids[:end].tolist())
    if not capped:  # a token may hold a line's last characters and its end: ".\n"
        last, line_end, _ = decoded(module.tokenizer, ids[end : end + 1].tolist()).partition("\n")
        text += last if line_end else ""
    return Translation(one_line(text), end, capped)


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of a translation's tokens, one line."""
    return one_line(decoded(tokenizer, ids))
