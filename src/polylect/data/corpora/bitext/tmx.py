"""Reader of TMX 1.4 translation memories, one unit at a time."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polylect.data.corpora.bitext.elements import read_elements
from polylect.data.corpora.bitext.segments import languages_wanted, pick_languages, segment_text
from polylect.data.corpora.rows import Row

_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def read_tmx(
    path: Path, source: str | None, target: str, skipped: Counter[str] | None = None
) -> Iterator[Row]:
    """Yield rows of the units that have both languages.

    A language matches its variants, see `pick_languages`; of several texts in one the first is
    taken. The text of a segment is what `segment_text` says.

    Args:
        source, target: codes as the file has them; no source for text in one language.
        skipped: gets as "other_languages" the number of units that lack a language.

    Raises:
        ValueError: as `read_elements`, or no unit with both languages.
    """
    sides = {"target": target} | ({"source": source} if source is not None else {})
    skipped = Counter() if skipped is None else skipped
    languages: set[str] = set()
    has_rows = False
    for unit in read_elements(path, ["{*}tu"], "TMX"):
        texts = _variants(unit)
        languages |= texts.keys()
        language_of = pick_languages(texts.keys(), sides)
        if len(language_of) < len(sides):
            skipped["other_languages"] += 1
            continue
        has_rows = True
        first = texts[language_of["source"]] if source is not None else None
        yield Row(unit.sourceline or 0, first, texts[language_of["target"]])
    if not has_rows:
        both = "" if source is None else "both "
        has = ", ".join(sorted(languages)) or "no language at all"
        raise ValueError(
            f"{path}: no translation unit has {both}{languages_wanted(sides)}; the file has {has}"
        )


def _variants(unit: Any) -> dict[str, str]:
    """Return the first text in each language, as the file calls it."""
    texts: dict[str, str] = {}
    for variant in unit.iterfind("{*}tuv"):
        segment = variant.find("{*}seg")
        lang = variant.get(_LANG) or variant.get("lang")
        if segment is not None and lang:
            texts.setdefault(lang, segment_text(segment))
    return texts
