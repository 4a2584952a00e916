"""Compares a trimmed vocabulary with the whole on held-out text: tokens, lines, likelihood."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from polylect.data.prompt import begin_ids
from polylect.models.vocabulary.selection import encode
from polylect.models.vocabulary.tokens import Vocabulary

_ROWS = 4  # of a batch: the logits of the whole vocabulary take a megabyte a token


@dataclass(frozen=True)
class Fit:
    """How a cut tokenizer does on texts of one language.

    Attributes:
        lines: number of texts.
        same: share of them that have the same tokens as before.
        before, after: tokens per character.
        bytes_before, bytes_after: share of tokens that are only a part of a character, or unknown.
    """

    lines: int
    same: float
    before: float
    after: float
    bytes_before: float
    bytes_after: float


def compare_tokens(
    whole: PreTrainedTokenizerBase,
    cut: PreTrainedTokenizerBase,
    kept_ids: Sequence[int],
    texts: Sequence[str],
) -> Fit:
    """Return how the cut tokenizer, whose entries are `kept_ids` of the whole one, splits texts."""
    before, after = encode(whole, texts), encode(cut, texts)
    same = sum(
        [kept_ids[i] if i < len(kept_ids) else -1 for i in new] == old
        for new, old in zip(after, before, strict=True)
    )
    parts = Vocabulary(whole).fallback_ids()
    parts_after = frozenset(new for new, old in enumerate(kept_ids) if old in parts)
    characters = sum(map(len, texts))
    return Fit(
        len(texts),
        same / len(texts),
        sum(map(len, before)) / characters,
        sum(map(len, after)) / characters,
        _share(before, parts),
        _share(after, parts_after),
    )


def fitting(
    texts: Sequence[str], tokenizers: Sequence[PreTrainedTokenizerBase], length: float | int
) -> list[str]:
    """Return the texts of at most so many tokens in each tokenizer, a begin token included."""
    counts = [
        [len(begin_ids(tokenizer)) + len(ids) for ids in encode(tokenizer, texts)]
        for tokenizer in tokenizers
    ]
    return [
        text for text, n in zip(texts, zip(*counts, strict=True), strict=True) if max(n) <= length
    ]


def _share(rows: Sequence[Sequence[int]], ids: frozenset[int]) -> float:
    total = sum(map(len, rows))
    return sum(token in ids for row in rows for token in row) / max(1, total)


@torch.no_grad()
def nats_per_character(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> float:
    """Return the negative log-likelihood per character of texts, each after the begin token.

    It compares vocabularies, which nats per token do not. Without a begin token the first token of
    a text is not counted; NaN where nothing is left to count.
    """
    begin = begin_ids(tokenizer)
    rows = sorted(([*begin, *ids] for ids in encode(tokenizer, texts)), key=len)
    rows = [row for row in rows if len(row) > 1]
    total = 0.0
    for start in range(0, len(rows), _ROWS):
        batch = [torch.tensor(row) for row in rows[start : start + _ROWS]]
        ids = pad_sequence(batch, batch_first=True, padding_value=-1).to(model.device)
        attention = (ids >= 0).long()
        logits = model(input_ids=ids.clamp(min=0), attention_mask=attention).logits[:, :-1]
        total += functional.cross_entropy(
            logits.flatten(0, 1).float(), ids[:, 1:].flatten(), ignore_index=-1, reduction="sum"
        ).item()
    return total / sum(map(len, texts)) if rows else math.nan


@torch.no_grad()
def next_token_logits(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return the logits after each token of each row, (tokens, entries) in float32."""
    return [
        model(input_ids=torch.tensor([list(row)], device=model.device)).logits[0].float().cpu()
        for row in rows
    ]
