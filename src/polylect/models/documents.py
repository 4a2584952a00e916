"""Texts as rows of tokens, in batches of like lengths, to train a base model on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Documents:
    """Token ids of all documents end to end; document i is ids[starts[i]:starts[i + 1]]."""

    ids: np.ndarray
    starts: np.ndarray
    pad: int

    @classmethod
    def encode(
        cls,
        texts: Mapping[str, Sequence[str]],
        tokenizer: PreTrainedTokenizerBase,
        context: int,
        draw: np.random.Generator,
        tagged: float | int,
    ) -> "Documents":
        """Tokenise, add begin, tag and end, and cut what is longer than the context."""
        rows: list[list[int]] = []
        for language, lines in texts.items():
            tag = [tokenizer.convert_tokens_to_ids(f"<2{language}>")] if language else []
            encoded = tokenizer(list(lines), add_special_tokens=False)["input_ids"]
            for ids, has_tag in zip(encoded, draw.random(len(lines)) < tagged, strict=True):
                begin = [tokenizer.bos_token_id, *(tag if has_tag else [])]
                row = [*begin, *ids, tokenizer.eos_token_id]
                # Pieces overlap by one token, so that every token but the first is predicted.
                pieces = range(0, len(row) - 1, context - 1)
                rows += [row[start : start + context] for start in pieces]
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        return cls(
            np.fromiter((i for row in rows for i in row), np.int64, count=int(lengths.sum())),
            np.concatenate([[0], np.cumsum(lengths)]),
            tokenizer.pad_token_id,
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def epoch(
        self, batch_tokens: int, draw: np.random.Generator
    ) -> Iterator[tuple[Int[Tensor, "rows length"], Int[Tensor, "rows length"]]]:
        """Yield every document once: batches of (ids, labels), similar lengths together.

        Documents of one length and the batches themselves come in a new order each time.
        """
        lengths = np.diff(self.starts)
        order = draw.permutation(len(self))
        order = order[np.argsort(lengths[order], kind="stable")]
        cuts, first = [], 0
        for last in range(1, len(order) + 1):
            longest = lengths[order[min(last, len(order) - 1)]]
            if last == len(order) or (last - first + 1) * longest > batch_tokens:
                cuts.append(order[first:last])
                first = last
        for index in draw.permutation(len(cuts)):
            yield self._batch(cuts[index])

    def _batch(
        self, rows: np.ndarray
    ) -> tuple[Int[Tensor, "rows length"], Int[Tensor, "rows length"]]:
        lengths = self.starts[rows + 1] - self.starts[rows]
        at = np.arange(lengths.max())
        real = at < lengths[:, None]
        position = np.where(real, self.starts[rows][:, None] + at, 0)
        ids = self.ids[position]
        return (
            torch.from_numpy(np.where(real, ids, self.pad)),
            torch.from_numpy(np.where(real, ids, -100)),
        )
