"""The text of tokens."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_WRITTEN = ("\n", "\u010a", "<0x0A>")
"""How vocabularies write a line feed: as it is, by the letter of byte-level ones, as a byte."""


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of tokens, without special ones."""
    # Some tokenizers would "clean up" by taking the space before a question mark.
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def line_feed_ids(tokenizer: Any) -> list[int]:
    """Return the tokens that have a line feed in their text, among other characters or alone."""
    return list(_line_feed_ids(tokenizer, len(tokenizer)))


@lru_cache(maxsize=4)  # a vocabulary has up to 262,144 entries
def _line_feed_ids(tokenizer: Any, size: int) -> tuple[int, ...]:
    written = [i for token, i in tokenizer.get_vocab().items() if any(w in token for w in _WRITTEN)]
    return tuple(sorted(i for i in written if "\n" in decoded(tokenizer, [i])))
