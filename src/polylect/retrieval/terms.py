"""Texts as tokens that can be counted and compared in every script.

Words where spaces part them; single letters with their marks where they do not, or where, as in
Korean, what stands between spaces is more than a word.
"""

import unicodedata
from itertools import pairwise

import regex

_UNSPACED = (
    "".join(
        rf"\p{{{script}}}"
        for script in (
            *("Han", "Hiragana", "Katakana", "Bopomofo", "Hangul", "Yi"),
            *("Thai", "Lao", "Khmer", "Myanmar", "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet"),
            *("Javanese", "Balinese"),
        )
    )
    + "\u30fc"
)  # the mark of a long vowel, which belongs to Hiragana and Katakana alike
_LETTER = regex.compile(rf"[{_UNSPACED}]\p{{M}}*")
_PART = regex.compile(
    rf"(?P<run>(?:[{_UNSPACED}]\p{{M}}*)+)"
    rf"|(?P<word>[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+)"
    r"|(?P<mark>\S)",
    regex.V1,
)
_JOINERS = dict.fromkeys(map(ord, "\u00ad\u200c\u200d"))


def tokens_of_text(text: str) -> list[str]:
    """Return words, letters of scripts without spaces, and punctuation marks, in lower case.

    One text in two Unicode forms has the same tokens.
    """
    tokens: list[str] = []
    for part in _PART.finditer(_fold(text)):
        tokens += _LETTER.findall(part["run"]) if part["run"] else [part[0]]
    return tokens


def terms(text: str) -> list[str]:
    """Return the terms of a search: words, and pairs of letters where words have no spaces.

    Pairs stand for words there, as single letters are found everywhere (the usual way for Chinese,
    Japanese and Korean); a letter alone is its own term. Punctuation is left out.
    """
    words: list[str] = []
    for part in _PART.finditer(_fold(text)):
        if part["word"]:
            words.append(part["word"])
        elif part["run"]:
            letters = _LETTER.findall(part["run"])
            pairs = [one + other for one, other in pairwise(letters)]
            words += pairs or letters
    return words


def _fold(text: str) -> str:
    """Return the text in lower case and one Unicode form, without invisible joiners."""
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_JOINERS)
    return unicodedata.normalize("NFKC", folded)
