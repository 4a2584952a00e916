"""Reader of XLIFF 1.2 and 2 (2.0, 2.1, 2.2), one unit at a time.

Specifications: OASIS XLIFF 1.2 (2008) and XLIFF 2.1 (2018).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from polylect.data.corpora.bitext.elements import read_elements
from polylect.data.corpora.bitext.segments import languages_wanted, pick_languages, segment_text
from polylect.data.corpora.rows import Row

_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_UNDONE = {"new", "needs-translation", "initial"}
"""States of a target that nobody has translated: the first two of 1.2, the last one of 2."""


def read_xliff(
    path: Path, source: str | None, target: str, skipped: Counter[str] | None = None
) -> Iterator[Row]:
    """Yield rows of the translated segments, in either orientation of the file.

    A segment is a `trans-unit` of 1.2, or each `mrk` with mtype="seg" within it where source and
    target are segmented, and a `segment` of 2. Proposals (`alt-trans`) and notes are not read. A
    language matches its variants, see `pick_languages`; the text of a segment is what
    `segment_text` says.

    Args:
        source, target: codes as the file has them; no source for text in one language.
        skipped: gets as "untranslated" the number of segments whose target (or source) is missing,
            empty, or marked as not translated yet, and as "other_languages" those of files within
            the document that are in others.

    Raises:
        ValueError: as `read_elements`, or no translated segment with both languages.
    """
    sides = {"target": target} | ({"source": source} if source is not None else {})
    skipped = Counter() if skipped is None else skipped
    known_languages: set[str] = set()
    has_rows, before = False, skipped["untranslated"]
    for unit in read_elements(path, ["{*}trans-unit", "{*}unit"], "XLIFF"):
        languages = _languages(unit)
        known_languages |= set(languages.values())
        ends = _ends(languages, sides)
        for element, pair in _segments(unit):
            if not ends:
                skipped["other_languages"] += 1
                continue
            texts = {side: segment_text(pair[end]) for side, end in ends.items() if end in pair}
            if len(texts) < len(sides) or not all(texts.values()):
                skipped["untranslated"] += 1
                continue
            has_rows = True
            yield Row(element.sourceline or 0, texts.get("source"), texts["target"])
    if not has_rows:
        raise ValueError(
            f"{path}: {_why_none(sides, known_languages, skipped['untranslated'] - before)}"
        )


def _why_none(sides: Mapping[str, str], known_languages: set[str], untranslated: int) -> str:
    if untranslated:
        return f"none of {untranslated} segments in {languages_wanted(sides)} is translated"
    both = "both " if len(sides) == 2 else ""
    has = ", ".join(sorted(known_languages)) or "no language at all"
    return f"no segment has {both}{languages_wanted(sides)}; the file has {has}"


def _languages(unit: Any) -> dict[str, str]:
    """Return the languages of "source" and "target" at this unit, as the file calls them."""
    names = {
        "source": ("source-language", "srcLang"),
        "target": ("target-language", "trgLang"),
    }
    languages = {}
    for end, attributes in names.items():
        element = unit.find(f"{{*}}{end}")
        own = None if element is None else element.get(_LANG)
        above = (a.get(name) for a in unit.iterancestors() for name in attributes)
        if language := own or next(filter(None, above), None):
            languages[end] = language
    return languages


def _ends(languages: Mapping[str, str], sides: Mapping[str, str]) -> dict[str, str]:
    """Return the element that holds each side of the direction; empty if a language is missing."""
    language_of = pick_languages(list(languages.values()), sides)
    held_by = {language: end for end, language in languages.items()}
    ends = {side: held_by[language] for side, language in language_of.items()}
    if "target" not in languages and len(ends) == 1 and len(sides) == 2:
        (side,) = sides.keys() - ends.keys()
        ends[side] = "target"  # 1.2 need not name its language
    return ends if len(ends) == len(sides) else {}


def _segments(unit: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield each segment of a unit, with its translated elements "source" and "target"."""
    if unit.tag.rpartition("}")[2] == "unit":
        for segment in unit.iterfind("{*}segment"):
            yield segment, _pair(segment.find("{*}source"), segment.find("{*}target"), segment)
        return
    source, target = unit.find("{*}source"), unit.find("{*}target")
    segmented = unit.find("{*}seg-source")
    marks, translated = _marks(segmented), _marks(target)
    if not marks or (target is not None and not translated and segment_text(target)):
        yield unit, _pair(source, target, target)
        return
    for number, mark in marks.items():
        yield mark, _pair(mark, translated.get(number), target)


def _pair(source: Any, target: Any, stated: Any) -> dict[str, Any]:
    is_undone = stated is not None and stated.get("state") in _UNDONE
    pair = {"source": source, "target": None if is_undone else target}
    return {end: element for end, element in pair.items() if element is not None}


def _marks(element: Any) -> dict[str, Any]:
    """Return the segments that a source or target of 1.2 is cut into, by their numbers."""
    if element is None:
        return {}
    marks = element.iter("{*}mrk")
    return {mark.get("mid"): mark for mark in marks if mark.get("mtype") == "seg"}
