"""Examples as token ids, and batches of them as the model takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

# What cross-entropy leaves out, in torch and in transformers.
IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """One sentence as token ids: `target` ends in the end token, and is empty for generation.

    `adapter` names one of a library, "" the base alone; None takes the one that serves `direction`.
    `limit` is the most tokens that are generated, where that is less than `Generation` says.
    """

    prompt: list[int]
    target: list[int]
    direction: str
    source: str = ""
    references: tuple[str, ...] = ()
    adapter: str | None = None
    limit: int | None = None

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.prompt) + len(self.target)

    @property
    def target_tokens(self) -> int:
        """Number of tokens that are learned: the first of all is predicted from nothing."""
        return len(self.target) - (not self.prompt and bool(self.target))


def pad_id(tokenizer: Any) -> int:
    """Return the id that fills up short rows; any would do, since padding is masked."""
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(index for index in ids if index is not None)


@dataclass(eq=False)
class TranslationBatch:
    """Rows of one or several directions, padded to the longest.

    Treat it as immutable. It is not frozen because Lightning rebuilds batches field by field when
    it trains in half or double precision, and refuses frozen dataclasses there.

    Attributes:
        labels: the ids that are learned, at their own positions (the model shifts them); -100 on
            prompt and padding, and everywhere if the batch is for generation.
        directions: one per row.
        sources, references: one per row; empty where unknown.
        adapters: one per row, see `Example`; or none at all.
    """

    input_ids: Int[Tensor, "rows length"]
    attention_mask: Int[Tensor, "rows length"]
    labels: Int[Tensor, "rows length"]
    directions: tuple[str, ...]
    sources: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    adapters: tuple[str | None, ...] = ()

    @property
    def rows(self) -> int:
        """Number of the examples."""
        return self.input_ids.shape[0]

    @cached_property
    def target_tokens(self) -> int:
        """Number of tokens that are learned."""
        return int((self.labels != IGNORED).sum())

    def to(self, device: torch.device | str | int) -> "TranslationBatch":
        """Return the batch on another device."""
        # Towards the host a copy that is not waited for would be read before it has come.
        asynchronous = torch.device(device).type == "cuda"
        batch = TranslationBatch(
            self.input_ids.to(device, non_blocking=asynchronous),
            self.attention_mask.to(device, non_blocking=asynchronous),
            self.labels.to(device, non_blocking=asynchronous),
            self.directions,
            self.sources,
            self.references,
            self.adapters,
        )
        # Counted before the move: counting on a GPU would wait for it in every step.
        batch.__dict__["target_tokens"] = self.target_tokens
        return batch


def collate(
    examples: Sequence[Example], pad_id: int, side: Literal["right", "left"]
) -> TranslationBatch:
    """Return a padded batch of examples.

    Args:
        side: "right" joins prompt and target, for learning; "left" takes the prompts alone, padded
            on the left, for generation.

    Raises:
        ValueError: there are no examples.
    """
    if not examples:
        raise ValueError("a batch needs at least one example")
    learn = side == "right"
    ids = [example.prompt + example.target if learn else example.prompt for example in examples]
    length = max(map(len, ids))
    input_ids, mask, labels = [], [], []
    for example, tokens in zip(examples, ids, strict=True):
        pad = length - len(tokens)
        before, after = (0, pad) if learn else (pad, 0)
        target_length = example.target_tokens if learn else 0
        input_ids.append([pad_id] * before + tokens + [pad_id] * after)
        mask.append([0] * before + [1] * len(tokens) + [0] * after)
        hidden = length - after - target_length
        labels.append(
            [IGNORED] * hidden + tokens[len(tokens) - target_length :] + [IGNORED] * after
        )
    return TranslationBatch(
        torch.tensor(input_ids, dtype=torch.long),
        torch.tensor(mask, dtype=torch.long),
        torch.tensor(labels, dtype=torch.long),
        tuple(example.direction for example in examples),
        tuple(example.source for example in examples),
        tuple(example.references for example in examples),
        tuple(example.adapter for example in examples),
    )
