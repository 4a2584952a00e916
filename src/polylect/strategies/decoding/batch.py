"""Decodes one left-padded batch of prompts: greedily, dropping rows that end, or with beams."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional
from transformers import (
    Cache,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from polylect.layers.context import RoutingContext
from polylect.models.cache import empty_cache
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

    @property
    def limits(self) -> Int[Tensor, " rows"]:
        """The length at which each row ends, prompt and padding counted."""
        return self.ids.shape[1] + torch.tensor(self.caps, device=self.ids.device)

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


def decode_greedily(
    backbone: Any,
    context: RoutingContext,
    prompts: Prompts,
    on_end: RowListener,
    on_token: TokenListener | None = None,
) -> None:
    """Decode a batch within an open route; rows that have ended leave it as others go on.

    A step costs as much for a row that has ended as for one that goes on, and `generate` carries
    all rows to the end of the longest. So it is stopped now and then, and called again with the
    rows that are left, their tokens and their part of the cache.
    """
    width, broken = prompts.ids.shape[1], set()
    ids, mask, limits = prompts.ids, prompts.mask, prompts.limits
    rows, cache = list(range(len(ids))), empty_cache(backbone)
    while rows:
        scores = ScoreWatch(limits, [*prompts.ends, prompts.padding])
        going = OpenRows(context, limits, prompts.ends, on_token, rows)
        settings = prompts.settings(int(limits.max()) - ids.shape[1])
        inputs = {"input_ids": ids, "attention_mask": mask, **cache}
        output = _generate(backbone, inputs, settings, scores, going)
        broken.update(rows[place] for place in scores.broken_rows())
        left = going.open & going.has_paused
        for place in (~left).nonzero().flatten().tolist():
            on_end(rows[place], output[place, width:], rows[place] in broken)
        kept = left.nonzero().flatten()
        rows, limits, ids = [rows[place] for place in kept.tolist()], limits[kept], output[kept]
        if rows:
            mask = functional.pad(mask[kept], (0, ids.shape[1] - mask.shape[1]), value=1)
            _keep_rows(cache.values(), context, kept)


def decode_with_beams(
    backbone: Any,
    context: RoutingContext,
    prompts: Prompts,
    on_end: RowListener,
    beams: int,
    length_penalty: float,
) -> None:
    """Decode a batch within an open route; the best hypothesis of each row."""
    scores = ScoreWatch(prompts.limits, [*prompts.ends, prompts.padding])
    with report_finished_beams(backbone, context, beams):
        inputs = {"input_ids": prompts.ids, "attention_mask": prompts.mask}
        settings = prompts.settings(
            max(prompts.caps), num_beams=beams, length_penalty=length_penalty
        )
        output = _generate(backbone, inputs, settings, scores, AtOwnLimit(prompts.limits))
    broken = scores.broken_rows()
    for row, ids in enumerate(output):
        on_end(row, ids[prompts.ids.shape[1] :], row in broken)


def _keep_rows(
    caches: Iterable[Cache], context: RoutingContext, kept: Int[Tensor, " rows"]
) -> None:
    for cache in caches:
        cache.batch_select_indices(kept)
    context.keep(kept.tolist())


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
