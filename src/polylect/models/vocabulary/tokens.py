"""The parts of a tokenizer of the `tokenizers` library, and the entries it cannot do without.

Two kinds can be cut so that a text whose tokens are all kept is tokenised exactly as before:

- BPE with byte fallback or over bytes, if every token that stands on the merge path of a kept one
  is kept too. The merges that made a text's tokens are then all there, and since merges are only
  taken away, each of them is still the first in rank when its turn comes.
- Unigram: the best segmentation of a text is still there, and it has fewer rivals. The characters
  of kept tokens are kept, from which other words are written.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

_SPACE = "▁"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_PLACEHOLDER = re.compile(r"<\|?(unused|reserved)\D*\d+\D*>")
"""Special tokens without a meaning, which some vocabularies hold by the thousand."""


class Vocabulary:
    """The entries of a fast tokenizer.

    Attributes:
        state: of the tokenizer, as tokenizer.json holds it; not to be changed.
        ids: by token, added tokens included.

    Raises:
        ValueError: a tokenizer that is not of a kind that can be cut.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ValueError(
                f"a {type(tokenizer).__name__} cannot be cut: only tokenizers with a tokenizer.json"
                " can."
            )
        self.state: dict[str, Any] = json.loads(backend.to_str())
        self.ids: dict[str, int] = tokenizer.get_vocab()
        self._names = set(tokenizer.special_tokens_map.values())
        model, kind = self.state["model"], self.state["model"].get("type")
        self.byte_level = '"ByteLevel"' in json.dumps(
            [self.state.get(part) for part in ("pre_tokenizer", "normalizer", "decoder")]
        )
        affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
        complete = kind == "Unigram" or self.byte_level or model.get("byte_fallback")
        if kind not in ("BPE", "Unigram") or affixes or not complete:
            how = f"{kind}{' without bytes' if kind == 'BPE' and not complete else ''}"
            raise ValueError(
                f"a tokenizer of the kind {how} cannot be cut: it takes BPE with byte fallback or "
                "over bytes, or Unigram."
            )

    @cached_property
    def tokens(self) -> dict[int, str]:
        """The tokens by id."""
        return {index: token for token, index in self.ids.items()}

    def text(self, token: str) -> str | None:
        """Return what a token writes, with a plain space; None for a part of a character."""
        if not self.byte_level:
            return token.replace(_SPACE, " ")
        try:
            return bytes(self._byte_of[c] for c in token).decode("utf-8")
        except (KeyError, UnicodeDecodeError):
            return None

    def required_ids(self) -> set[int]:
        """Return the ids of special and added tokens, bytes, digits and punctuation marks.

        Special tokens that are only placeholders, such as <unused17>, are left out.
        """
        required = {
            token["id"]
            for token in self.state["added_tokens"]
            if token["content"] in self._names or not _PLACEHOLDER.fullmatch(token["content"])
        }
        for token, index in self.ids.items():
            byte = _BYTE.fullmatch(token) or (self.byte_level and len(token) == 1)
            if byte or _is_mark((self.text(token) or "").removeprefix(" ")):
                required.add(index)
        unknown = self.state["model"].get("unk_id")
        if unknown is not None:
            required.add(unknown)
        if (token := self.state["model"].get("unk_token")) in self.ids:
            required.add(self.ids[token])
        return required | ({self.ids[_SPACE]} if _SPACE in self.ids else set())

    def fallback_ids(self) -> frozenset[int]:
        """Return the ids that stand where no token fits: parts of characters, or unknown."""
        if self.byte_level:
            return frozenset(i for token, i in self.ids.items() if self.text(token) is None)
        unknown = self.state["model"].get("unk_id")
        bytes_ = frozenset(i for token, i in self.ids.items() if _BYTE.fullmatch(token))
        return bytes_ if unknown is None else bytes_ | {unknown}

    def closure(self, ids: Iterable[int]) -> set[int]:
        """Return the ids with those on the way to them: tokens that are merged, or characters."""
        result = set(ids)
        is_bpe = self.state["model"]["type"] == "BPE"
        for token in [self.tokens[index] for index in result]:
            result |= self.merge_path(token) if is_bpe else self._characters(token)
        return result

    def _characters(self, token: str) -> set[int]:
        return {self.ids[character] for character in token if character in self.ids}

    def merge_path(self, token: str) -> set[int]:
        """Return the ids of the parts from which BPE makes a token,
        the characters and the token included.

        Of an added token, or one that no merges lead to, what they lead to.
        """
        parts = list(token)
        path = self._characters(token)
        while len(parts) > 1:
            ranks = [self._ranks.get(pair) for pair in pairwise(parts)]
            merge_ranks = [rank for rank in ranks if rank is not None]
            if not merge_ranks:
                break
            first = ranks.index(min(merge_ranks))
            parts[first : first + 2] = [parts[first] + parts[first + 1]]
            path.add(self.ids[parts[first]])
        return path

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        return {pair: rank for rank, pair in enumerate(merges(self.state))}

    @cached_property
    def _byte_of(self) -> dict[str, int]:
        return {character: byte for byte, character in bytes_to_unicode().items()}


def merges(state: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the merges of a BPE in their order; old files write them as one text with a space."""
    listed = state["model"]["merges"]
    return [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in listed]


def _is_mark(text: str) -> bool:
    return len(text) == 1 and unicodedata.category(text)[0] in "NP"
