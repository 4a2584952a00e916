"""The text of a translation that grows token by token, in pieces that stay as they are."""

import re
from collections.abc import Sequence
from typing import Any

from polylect.data.text import one_line
from polylect.strategies.generation import text_of

_INCOMPLETE = "\ufffd"  # what decoders write for bytes of a character whose rest is to come
_BYTE = re.compile("<0x[0-9A-F]{2}>")


class TextPieces:
    """Cuts a growing translation into pieces which, put together, are its whole text.

    Held back are bytes of a character that is not whole, and all bytes that some tokenizers write
    one by one ("<0xE0>"): these decode a run of them together, and to nothing but U+FFFD where it
    turns out to be no text.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)  # which decoding leaves out
        self._ids: list[int] = []
        self._said = ""

    def add(self, token: int) -> str:
        """Take the next token; returns what of the text is certain now and has not been said."""
        self._ids.append(token)
        if token in self._special or _BYTE.fullmatch(self._tokenizer.convert_ids_to_tokens(token)):
            return ""
        text = one_line(text_of(self._tokenizer, self._ids).rstrip(_INCOMPLETE))
        return self._say(text) if text.startswith(self._said) else ""

    def rest(self, whole: str) -> str:
        """Return what has not been said of the whole text.

        Raises:
            ValueError: what has been said is not its beginning.
        """
        if not whole.startswith(self._said):
            raise ValueError(
                "this tokenizer rewrites what it has written: ask again without stream."
            )
        return self._say(whole)

    def again(self) -> None:
        """Begin with the first token again, as when a batch is repeated; what is said stays so."""
        self._ids.clear()

    def _say(self, text: str) -> str:
        piece, self._said = text[len(self._said) :], text
        return piece


class StopTexts:
    """Ends a growing text where one of some other texts begins.

    Held back is what one of them may begin with.

    Attributes:
        found: whether the text has ended so.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held = stops, ""
        self.found = False

    def add(self, text: str) -> str:
        """Take what the text has grown by; returns what of it is certain now."""
        if self.found:
            return ""
        text = self._held + text
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        self.found = bool(places)
        certain = min(places) if places else len(text) - self._beginning(text)
        self._held = "" if places else text[certain:]
        return text[:certain]

    def rest(self) -> str:
        """Return what was held back, when the text does not grow any more."""
        rest, self._held = self._held, ""
        return rest

    def _beginning(self, text: str) -> int:
        """Return how many characters at the text's end one of the stops begins with."""
        lengths = [
            n for stop in self._stops for n in range(1, len(stop)) if text.endswith(stop[:n])
        ]
        return max(lengths, default=0)
