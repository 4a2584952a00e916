"""Translates prompts: length-sorted batches through `generate`, order kept.

A row comes out as if it were alone, up to float error: no neighbour decides how long it may be,
and nothing that the base model was shipped with (penalties, forced tokens, sampling) takes part.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from polylect.data.batch import Example, TranslationBatch, collate, pad_id
from polylect.data.text import decoded, one_line
from polylect.finite import unusable_scores
from polylect.layers.context import RoutingContext
from polylect.models.context import UNLIMITED, Context, context_of
from polylect.strategies.loop.finished_sequences import (
    FinishedSequencesReporter,
    TokenReporter,
    Watch,
    report_finished_beams,
)


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
    watch: Watch | None = None,
) -> Iterator[tuple[int, Translation]]:
    """Yield (index of the prompt, its translation), a batch at a time, in order of decoding.

    Those of prompts without room in the model's context come first: empty, and marked `too_long`.

    Args:
        watch: is told of each token as it is decoded, without beams: see `TokenReporter`.

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
        rows = collate([prompts[i] for i in indices], pad_id(module.tokenizer), "left")
        own = [
            (module.generation.cap(lengths[i], context.length), prompts[fitting[i]].limit)
            for i in batch
        ]
        caps = [cap if limit is None else min(cap, limit) for cap, limit in own]
        telling = None if watch is None else (watch, indices)
        translations, broken = _translate_batch(module, rows, caps, ends, telling)
        if broken:
            texts = [f"{indices[row] + 1} ({rows.directions[row]})" for row in broken]
            more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
            where = f"text {', '.join(texts[:3])}{more}"
            raise ValueError(unusable_scores(where, next(module.backbone.parameters()).dtype))
        yield from zip(indices, translations, strict=True)


def _translate_batch(
    module: Generator,
    batch: TranslationBatch,
    caps: Sequence[int],
    ends: Sequence[int],
    watch: tuple[Watch, Sequence[int]] | None,
) -> tuple[list[Translation], list[int]]:
    """Return greedy or beam translations of one left-padded batch of prompts, in its order.

    Args:
        caps: most new tokens of each row.
        watch: what is told of tokens, and the number by which it knows each row.

    Returns them, and the rows whose scores were not finite, which have no translation.
    """
    generation, backbone = module.generation, module.backbone
    batch = batch.to(next(backbone.parameters()).device)
    width = batch.input_ids.shape[1]
    limits = width + torch.tensor(caps, device=batch.input_ids.device)
    beams = {"num_beams": generation.beams, "length_penalty": generation.length_penalty}
    settings = GenerationConfig(
        max_new_tokens=max(caps),
        do_sample=False,
        eos_token_id=list(ends),
        pad_token_id=pad_id(module.tokenizer),
        **(beams if generation.beams > 1 else {}),
    )
    stopping: list[StoppingCriteria] = [_AtOwnCap(limits)]
    telling = nullcontext()
    if generation.beams == 1:
        stopping.append(FinishedSequencesReporter(module.context, width, ends, limits))
        if watch is not None:
            stopping.append(TokenReporter(*watch, ends, limits))
    else:
        telling = report_finished_beams(backbone, module.context, generation.beams)
    watch = _ScoreWatch(limits, [*ends, pad_id(module.tokenizer)])
    with module.routing(batch), _own_settings_aside(backbone), telling:
        output = backbone.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            generation_config=settings,
            logits_processor=LogitsProcessorList([watch]),
            stopping_criteria=StoppingCriteriaList(stopping),
        )
    rows = zip(output, caps, strict=True)
    translations = [_finish(module, row[width : width + cap], ends) for row, cap in rows]
    return translations, watch.broken_rows()


@contextmanager
def _own_settings_aside(backbone: Any) -> Iterator[None]:
    """Within it the model has no generation settings: `generate` adds them to those it is given."""
    own, backbone.generation_config = backbone.generation_config, GenerationConfig()
    try:
        yield
    finally:
        backbone.generation_config = own


class _ScoreWatch(LogitsProcessor):
    """Remembers in which rows scores of the next token were NaN or infinite.

    An argmax over NaN is a token like any other, so nothing else would tell. The largest score
    stands for all: NaN wins every maximum, and minus infinity may be a model's own mask. What
    comes after a row's end, while its neighbours go on, does not count.
    """

    def __init__(self, limits: Int[Tensor, " rows"], ends: Sequence[int]) -> None:
        self._limits, self._ends = limits, torch.tensor(ends, device=limits.device)
        self._broken = torch.zeros_like(limits, dtype=torch.bool)
        self._is_first = True

    def __call__(
        self,
        input_ids: Int[Tensor, "rows_and_beams length"],
        scores: Float[Tensor, "rows_and_beams vocabulary"],
    ) -> Float[Tensor, "rows_and_beams vocabulary"]:
        broken = ~scores.amax(dim=-1).isfinite()
        if not self._is_first:  # before that the last token is the prompt's
            broken &= ~torch.isin(input_ids[:, -1], self._ends)
        self._is_first = False
        is_open = input_ids.shape[1] < self._limits
        self._broken |= broken.view(len(is_open), -1).any(dim=1) & is_open
        return scores

    def broken_rows(self) -> list[int]:
        """Return the numbers of those rows; waits for the device."""
        return self._broken.nonzero().flatten().tolist()


class _AtOwnCap(StoppingCriteria):
    """Ends each row at its own limit, prompt and padding counted, while its neighbours go on.

    In beam search every hypothesis that is open there counts as finished, as at `max_new_tokens`
    if the row were alone, and what is left of the row's beams falls to a score of -1e9: below all
    that are finished, at the same length, so no length penalty ever brings them back.
    """

    def __init__(self, limits: Int[Tensor, " rows"]) -> None:
        self._limits = limits

    def __call__(
        self, input_ids: Int[Tensor, "rows_and_beams length"], scores: Any, **_: Any
    ) -> Bool[Tensor, " rows_and_beams"]:
        own = self._limits.repeat_interleave(len(input_ids) // len(self._limits))
        return input_ids.shape[1] >= own


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
