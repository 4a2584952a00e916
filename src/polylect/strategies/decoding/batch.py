"""Decodes one left-padded batch of prompts: greedily, dropping rows that end, or with beams."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from polylect.layers.context import RoutingContext
from polylect.models.cache import empty_cache, joined_cache
from polylect.strategies.decoding.beams import AtOwnLimit, report_finished_beams
from polylect.strategies.decoding.open_rows import OpenRows, TokenListener
from polylect.strategies.decoding.scores import ScoreWatch


@dataclass(frozen=True)
class Prompts:
    """A left-padded batch of prompts, and where each translation ends.

    Attributes:
        mask: zero on padding.
        caps: most new tokens of each row.
        ends: token ids at which a translation stops.
        padding: token id of it.
    """

    ids: Int[Tensor, "rows width"]
    mask: Int[Tensor, "rows width"]
    caps: Sequence[int]
    ends: Sequence[int]
    padding: int

    def settings(self, room: int, **more: Any) -> GenerationConfig:
        """Return how to go on for at most so many tokens: by the highest score."""
        return GenerationConfig(
            max_new_tokens=room,
            do_sample=False,
            eos_token_id=list(self.ends),
            pad_token_id=self.padding,
            **more,
        )


RowListener = Callable[[int, Tensor, bool], None]
"""Is told of a row that has ended: its number, its new tokens with whatever follows the end, and
whether scores were NaN or infinite."""


class GreedyBatch:
    """Rows that are decoded together; those that have ended leave, and others may join.

    A step costs as much for a row that has ended as for one that goes on, and `generate` carries
    all rows to the end of the longest. So it is stopped now and then, and called again with the
    rows that are left, their tokens and their part of the cache.

    Args:
        rows: the numbers by which listeners know the prompts.
        on_end: is told of each row that ends.
        on_token: is told of each token, but for ends.
        others_wait: whether others are ready to join.

    Attributes:
        rows: those that go on.
    """

    def __init__(
        self,
        backbone: Any,
        context: RoutingContext,
        prompts: Prompts,
        rows: Sequence[int],
        on_end: RowListener,
        on_token: TokenListener | None = None,
        others_wait: Callable[[], bool] = lambda: False,
    ) -> None:
        self._backbone, self._context, self._prompts = backbone, context, prompts
        self._on_end, self._on_token, self._others_wait = on_end, on_token, others_wait
        self.rows = list(rows)
        self._ids, self._mask = prompts.ids, prompts.mask
        self._begins = [prompts.ids.shape[1]] * len(self.rows)  # of the translations
        self._rooms = torch.tensor(prompts.caps, device=prompts.ids.device)
        self._cache = empty_cache(backbone)
        self._broken: set[int] = set()

    @property
    def length(self) -> int:
        """Tokens of each row until now, padding counted."""
        return self._ids.shape[1]

    @property
    def longest(self) -> int:
        """Tokens of the longest row until now, without padding."""
        return int(self._mask.sum(1).max())

    @property
    def room(self) -> int:
        """How many tokens a row may still get at most."""
        return int(self._rooms.max())

    @property
    def is_broken(self) -> bool:
        """Whether scores of a row were NaN or infinite."""
        return bool(self._broken)

    def advance(self, most: int | None = None) -> None:
        """Decode, within an open route of the rows, until all end or some have.

        Args:
            most: tokens for each row; the rows that are left then go on.
        """
        limits = self.length + self._rooms
        scores = ScoreWatch(limits, [*self._prompts.ends, self._prompts.padding])
        going = OpenRows(
            self._context, limits, self._prompts.ends, self._on_token, self.rows, self._others_wait
        )
        inputs = {"input_ids": self._ids, "attention_mask": self._mask, **self._cache}
        settings = self._prompts.settings(self.room if most is None else most)
        output = _generate(self._backbone, inputs, settings, scores, going)
        self._broken.update(self.rows[place] for place in scores.broken_rows())
        left = going.open & (going.has_paused or most is not None)
        for place in (~left).nonzero().flatten().tolist():
            tokens = output[place, self._begins[place] :]
            self._on_end(self.rows[place], tokens, self.rows[place] in self._broken)
        self._rooms = self._rooms - (output.shape[1] - self.length)
        self._mask = functional.pad(self._mask, (0, output.shape[1] - self.length), value=1)
        self._ids = output
        self._keep(left.nonzero().flatten())

    def _keep(self, places: Int[Tensor, " kept"]) -> None:
        """Go on with the rows at these places alone."""
        kept = places.tolist()
        self.rows = [self.rows[place] for place in kept]
        self._begins = [self._begins[place] for place in kept]
        self._ids, self._mask = self._ids[places], self._mask[places]
        self._rooms = self._rooms[places]
        if kept:
            for cache in self._cache.values():
                cache.batch_select_indices(places)
            self._context.keep(kept)

    def join(self, other: "GreedyBatch") -> None:
        """Take the rows of another batch, both of which have advanced, outside a route.

        All end at the same place; padding that no row needs is dropped.
        """
        self._broken |= other._broken
        if not other.rows:
            return
        parts = self, other
        length = max(part.longest for part in parts)
        caches = [cache for part in parts for cache in part._cache.values()]
        self._cache = joined_cache(self._backbone, caches, length - 1)
        self._begins = [begin + length - part.length for part in parts for begin in part._begins]
        self._ids = torch.cat([_last(p._ids, length, self._prompts.padding) for p in parts])
        self._mask = torch.cat([_last(part._mask, length, 0) for part in parts])
        self._rooms = torch.cat([part._rooms for part in parts])
        self.rows = self.rows + other.rows


def _last(
    tokens: Int[Tensor, "rows width"], length: int, padding: int
) -> Int[Tensor, "rows length"]:
    """Return the last tokens of each row, with padding before them where there are fewer."""
    return functional.pad(tokens[:, -length:], (max(0, length - tokens.shape[1]), 0), value=padding)


def decode_with_beams(
    backbone: Any,
    context: RoutingContext,
    prompts: Prompts,
    on_end: RowListener,
    beams: int,
    length_penalty: float,
) -> None:
    """Decode a batch within an open route; the best hypothesis of each row."""
    limits = prompts.ids.shape[1] + torch.tensor(prompts.caps, device=prompts.ids.device)
    scores = ScoreWatch(limits, [*prompts.ends, prompts.padding])
    with report_finished_beams(backbone, context, beams):
        inputs = {"input_ids": prompts.ids, "attention_mask": prompts.mask}
        settings = prompts.settings(
            max(prompts.caps), num_beams=beams, length_penalty=length_penalty
        )
        output = _generate(backbone, inputs, settings, scores, AtOwnLimit(limits))
    broken = scores.broken_rows()
    for row, ids in enumerate(output):
        on_end(row, ids[prompts.ids.shape[1] :], row in broken)


def _generate(
    backbone: Any,
    inputs: Mapping[str, Any],
    settings: GenerationConfig,
    scores: ScoreWatch,
    stopping: StoppingCriteria,
) -> Any:
    """Call `generate` without the model's own settings, which it would add to those given."""
    own, backbone.generation_config = backbone.generation_config, GenerationConfig()
    try:
        return backbone.generate(
            **inputs,
            generation_config=settings,
            logits_processor=LogitsProcessorList([scores]),
            stopping_criteria=StoppingCriteriaList([stopping]),
        )
    finally:
        backbone.generation_config = own
