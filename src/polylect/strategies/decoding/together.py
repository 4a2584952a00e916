"""Prompts that are decoded together, and those that join them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from polylect.data.batch import Example, TranslationBatch, collate, pad_id
from polylect.data.text import decoded, one_line
from polylect.finite import unusable_scores
from polylect.models.context import context_of
from polylect.strategies.decoding.batch import GreedyBatch, Prompts, decode_with_beams
from polylect.strategies.decoding.translation import Translation, Watch

if TYPE_CHECKING:
    from polylect.strategies.generation import Generator


class Decoding:
    """One batch from its prompts to their translations.

    Args:
        numbers: of its prompts, by which `watch` knows them.
        ends: token ids at which a translation stops.
    """

    def __init__(
        self, module: "Generator", numbers: Sequence[int], ends: Sequence[int], watch: Watch
    ) -> None:
        self._module, self._numbers, self._ends = module, list(numbers), ends
        self._watch = watch.by_place(self._numbers)
        self._padding = pad_id(module.tokenizer)
        self._context = context_of(module.backbone.config)
        self._examples: list[Example] = []
        self._caps: list[int] = []
        self._translations: dict[int, Translation] = {}
        self._enough = module.generation.rows  # with so many rows nobody is asked to join

    def run(self, examples: Sequence[Example]) -> Iterator[tuple[int, Translation]]:
        """Decode the prompts; yields them by number when all have ended, who joined as well.

        Raises:
            ValueError: scores of a next token were NaN or infinite.
        """
        self._add(examples)
        if self._module.generation.beams > 1:
            self._decode_with_beams()
        else:
            self._decode_greedily()
        self._check_finite()
        for row, number in enumerate(self._numbers):
            yield number, self._translations[row]

    def _add(self, examples: Iterable[Example]) -> None:
        for example in examples:
            self._examples.append(example)
            self._caps.append(self._cap(example))

    def _cap(self, example: Example) -> int:
        cap = self._module.generation.cap(len(example.prompt), self._context.length)
        return cap if example.limit is None else min(cap, example.limit)

    def _decode_with_beams(self) -> None:
        generation, rows = self._module.generation, range(len(self._examples))
        with self._route(rows):
            decode_with_beams(
                self._module.backbone, self._module.context, self._prompts(rows), self._end,
                generation.beams, generation.length_penalty,
            )  # fmt: skip

    def _decode_greedily(self) -> None:
        """A row's adapter stays as it is from its first token to its last, over several routes."""
        batch = self._begin(range(len(self._examples)))
        with ExitStack() as held:
            held.enter_context(self._module.hold(*_adapters_asked_for(self._examples)))
            while batch.rows:
                with self._route(batch.rows):
                    batch.advance()
                    while batch.rows and not self._others_may_join(batch):
                        batch.advance()
                if batch.rows:
                    self._let_join(batch, held)

    def _begin(self, rows: Sequence[int]) -> GreedyBatch:
        batch = GreedyBatch(
            self._module.backbone,
            self._module.context,
            self._prompts(rows),
            rows,
            self._end,
            self._watch.token,
            lambda: self._others_may_join(batch),
        )
        return batch

    def _others_may_join(self, batch: GreedyBatch) -> bool:
        has_room = len(batch.rows) < self._enough
        return has_room and not batch.is_broken and self._watch.waits()

    def _let_join(self, batch: GreedyBatch, held: ExitStack) -> None:
        """Ask for prompts, read them up to their first token, and go on with them."""
        accepted: list[Example] = []

        def accept(prompt: Example) -> bool:
            fits = self._fits(batch, [*accepted, prompt])
            if fits:
                accepted.append(prompt)
            return fits

        joining = self._watch.join(accept)
        self._enough = self._module.generation.rows if joining else len(batch.rows)
        if not joining:
            return
        rows, prompts = zip(*joining, strict=True)
        self._add(prompts)
        held.enter_context(self._module.hold(*_adapters_asked_for(prompts)))
        fresh = self._begin(rows)
        with self._route(rows):
            fresh.advance(1)
        batch.join(fresh)

    def _fits(self, batch: GreedyBatch, joining: Sequence[Example]) -> bool:
        """Return whether these are few and short enough to be decoded with the batch."""
        generation = self._module.generation
        rows = len(batch.rows) + len(joining)
        longest = max(batch.longest, *(len(prompt.prompt) for prompt in joining))
        length = longest + max(batch.room, *map(self._cap, joining))
        if rows > generation.rows or rows * length > generation.tokens:
            return False
        return length <= self._context.shared and self._module.can_join(
            *_adapters_asked_for(joining)
        )

    def _batch(self, rows: Iterable[int]) -> TranslationBatch:
        batch = collate([self._examples[row] for row in rows], self._padding, "left")
        return batch.to(next(self._module.backbone.parameters()).device)

    def _route(self, rows: Iterable[int]) -> AbstractContextManager:
        return self._module.routing(self._batch(rows))

    def _prompts(self, rows: Sequence[int]) -> Prompts:
        batch, caps = self._batch(rows), [self._caps[row] for row in rows]
        return Prompts(batch.input_ids, batch.attention_mask, caps, self._ends, self._padding)

    def _end(self, row: int, tokens: Int[Tensor, " new"], is_broken: bool) -> None:
        if is_broken:
            return
        tokens = tokens[: self._caps[row]]
        self._translations[row] = finish(self._module.tokenizer, tokens, self._ends)
        if self._watch.end is not None:
            self._watch.end(row, self._translations[row])

    def _check_finite(self) -> None:
        """Raises ValueError where a row has no translation: its scores were not finite."""
        broken = [
            f"{number + 1} ({self._examples[row].direction})"
            for row, number in sorted(enumerate(self._numbers), key=lambda item: item[1])
            if row not in self._translations
        ]
        if broken:
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            where = f"text {', '.join(broken[:3])}{more}"
            dtype = next(self._module.backbone.parameters()).dtype
            raise ValueError(unusable_scores(where, dtype))


def _adapters_asked_for(
    examples: Sequence[Example],
) -> tuple[list[str | None], list[str]]:
    return [e.adapter for e in examples], [e.direction for e in examples]


def finish(tokenizer: Any, ids: Int[Tensor, " new"], ends: Sequence[int]) -> Translation:
    """Return the translation that these tokens begin with, up to the first end token."""
    stops = torch.isin(ids, torch.tensor(list(ends), device=ids.device)).nonzero()
    capped = len(stops) == 0
    end = len(ids) if capped else int(stops[0])
    text = decoded(tokenizer, ids[:end].tolist())
    if not capped:  # a token may hold a line's last characters and its end: ".\n"
        last, line_end, _ = decoded(tokenizer, ids[end : end + 1].tolist()).partition("\n")
        text += last if line_end else ""
    return Translation(one_line(text), end, capped)
