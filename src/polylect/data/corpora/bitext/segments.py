"""Shared by TMX and XLIFF: the text of a segment, and the languages that a file names."""

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

import regex

from polylect.data.languages import CHINESE_SCRIPTS, find_language
from polylect.data.text import one_line

# Inline elements whose content is markup of the original document, not text, or that have none.
_NATIVE_CODES = {
    "bpt", "ept", "it", "ph", "ut",  # of both formats, the last one of TMX
    "x", "bx", "ex",  # of XLIFF 1.2
    "sc", "ec", "sm", "em", "cp",  # of XLIFF 2
}  # fmt: skip
_TAG = "\0"  # stands for an inline tag; XML cannot have it in its text
_BREAKS = {"lb", "pb", "xlf:lb", "xlf:pb"}
_LINE_BREAK = regex.compile(r"\s*(<\s*/?\s*(br|p)\b[^>]*>|\\[nr]|\s)\s*", regex.IGNORECASE)
# Two tags and more between words, in scripts that part words by spaces.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_GLUED = regex.compile(
    rf"(?<=[[\p{{L}}\p{{M}}\p{{N}}.,;:!?…।]--{_UNSPACED}])"
    rf"\x00\x00+(?=[[\p{{L}}\p{{N}}]--{_UNSPACED}])",
    regex.VERSION1,
)


def segment_text(segment: Any) -> str:
    """Return the text of an lxml element: what stands outside of markup, as one line.

    Markup are native codes (`bpt`, `ept`, `it`, `ph`, …) with all that is in them, subflows
    included, comments and processing instructions; the content of other elements (`hi`, `g`, `pc`,
    `mrk`) is text. Two tags side by side between words leave a space, as does a line break in
    native code; one tag leaves nothing, since it may stand within a word.
    """
    text = "".join(_parts(segment))
    return one_line(_GLUED.sub(" ", text).replace(_TAG, ""))


def _parts(element: Any) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if isinstance(child.tag, str):  # else a comment or a processing instruction
            if child.tag.rpartition("}")[2] in _NATIVE_CODES:
                yield "\n" if _breaks_line(child) else _TAG
            else:
                yield _TAG
                yield from _parts(child)
                yield _TAG
        yield child.tail or ""


def _breaks_line(code: Any) -> bool:
    if {code.get("type"), code.get("ctype"), code.get("subType")} & _BREAKS:
        return True
    contents = ("".join(code.itertext()), code.get("equiv-text", ""), code.get("equiv", ""))
    return any(_LINE_BREAK.fullmatch(content) for content in contents)


def pick_languages(languages: Collection[str], sides: Mapping[str, str]) -> dict[str, str]:
    """Return by side the language of the file that it takes; no two sides take the same.

    A language matches its variants: `en` also takes "en-US" and "eng", `pt_BR` takes only "pt-BR",
    `zh_Hans` also takes "zh-CN". Of several variants the one with the shortest code is taken.
    """
    language_of: dict[str, str] = {}
    # The side that asks for a variant first, so that the other does not take it away.
    for side, code in sorted(sides.items(), key=lambda item: -len(_subtags(item[1]))):
        subtags = _subtags(code)
        matches = [lang for lang in languages if _subtags(lang)[: len(subtags)] == subtags]
        left = [lang for lang in matches if lang not in language_of.values()]
        if left:
            language_of[side] = min(left, key=len)
    return language_of


def languages_wanted(sides: Mapping[str, str]) -> str:
    """Return the languages that are looked for, for errors."""
    return " and ".join(repr(sides[side]) for side in ("source", "target") if side in sides)


@cache
def _subtags(code: str) -> tuple[str, ...]:
    """Return language, script and region; of Chinese also the script that a region implies."""
    base, *variant = code.strip().lower().replace("_", "-").split("-")
    base = find_language(base) or base
    script = CHINESE_SCRIPTS.get(variant[0].upper()) if base == "zh" and variant else None
    return (base, script.lower(), *variant) if script else (base, *variant)
