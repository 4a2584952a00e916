"""Normalises texts: one rule for all that is learned, translated, asked, searched and shown.

A text is one line. Of what it had when it came:

- White space at its ends is removed, zero-width spaces and word joiners there included.
- A run of white space with a line break or a tab in it becomes one space. Line breaks are LF, CR,
  VT, FF, the separators U+001C to U+001F, NEL (U+0085), U+2028 and U+2029.
- Removed wherever they stand: other control characters (U+0000 to U+001F, U+007F to U+009F), the
  byte order mark U+FEFF and the soft hyphen U+00AD.
- A text in which nothing can be seen is empty.
- Half of a surrogate pair is no character, and an error.

All else stays as it is: other white space between words (non-breaking and ideographic spaces,
several spaces), joiners and non-joiners (U+200C, U+200D), zero-width spaces between words, marks of
writing direction, variation selectors, and the Unicode form, composed or not.

`decoded` and `line_feed_ids` are about the text of tokens, before that rule.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_BREAKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029"
_ENDS = "".join(c for c in map(chr, range(0x3001)) if c.isspace()) + "\u200b\u2060"
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
_REMOVED = {code: None for code in [*_CONTROLS, 0xAD, 0xFEFF] if chr(code) not in _BREAKS}
_SPACE = re.compile(r"\s+")
_BREAK = re.compile(f"[{_BREAKS}]")
_HALF_PAIR = re.compile("[\ud800-\udfff]")

_LINE_FEEDS = ("\n", "\u010a", "<0x0A>")
"""How vocabularies write a line feed: as it is, by the letter of byte-level ones, as a byte."""


def one_line(text: str) -> str:
    """Return the text by the rule of this module; applied again it changes nothing.

    Raises:
        ValueError: half of a surrogate pair, with its position (from 1).
    """
    text = text.strip(_ENDS)
    if text.isprintable():  # no other white space than U+0020, and nothing that cannot be seen
        return text
    check_characters(text)
    text = _SPACE.sub(_break_or_space, text.translate(_REMOVED)).strip(_ENDS)
    return text if any(map(_is_visible, text)) else ""


def check_characters(text: str) -> None:
    """Raises ValueError for half of a surrogate pair, with its position (from 1)."""
    if half := _HALF_PAIR.search(text):
        raise ValueError(
            f"character {half.start() + 1}, U+{ord(half[0]):04X}, is half of a surrogate pair and "
            "no character: the text was cut or decoded wrongly"
        )


def clean_texts(texts: Sequence[Any]) -> list[str]:
    """Return each text by the rule of this module.

    Raises:
        ValueError: what is no text, or half of a surrogate pair, with the number of the text.
    """
    cleaned = []
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise ValueError(f"text {number} is {type(text).__name__}, not text")
        try:
            cleaned.append(one_line(text))
        except ValueError as error:
            raise ValueError(f"text {number}: {error}") from None
    return cleaned


def clean_lines(text: str) -> str:
    """Return the text with each of its lines as `one_line` makes it,
    parted by LF, without empty ones.
    """
    return "\n".join(filter(None, map(one_line, text.splitlines())))


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of tokens, without special ones."""
    # Some tokenizers would "clean up" by taking the space before a question mark.
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def line_feed_ids(tokenizer: Any) -> list[int]:
    """Return the tokens that have a line feed in their text, among other characters or alone."""
    return list(_line_feed_ids(tokenizer, len(tokenizer)))


@lru_cache(maxsize=4)  # a vocabulary has up to 262,144 entries
def _line_feed_ids(tokenizer: Any, size: int) -> tuple[int, ...]:
    written = [
        i for token, i in tokenizer.get_vocab().items() if any(w in token for w in _LINE_FEEDS)
    ]
    return tuple(sorted(i for i in written if "\n" in decoded(tokenizer, [i])))


def _break_or_space(space: re.Match[str]) -> str:
    return " " if _BREAK.search(space[0]) else space[0]


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) not in ("Cf", "Zs")
