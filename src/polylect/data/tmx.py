"""Reader of TMX 1.4 translation memories, one unit at a time."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polylect.data.readers import Row, check_exists, one_line

_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# Inline elements whose content is markup of the original document, not text.
_NATIVE_CODES = {"bpt", "ept", "it", "ph", "ut"}


def read_tmx(path: Path, source: str | None, target: str) -> Iterator[Row]:
    """Rows of the units that have both languages; units without one of them are passed over.

    A language matches its variants: `en` also takes "en-US", `pt_BR` takes only "pt-BR".

    Raises:
        ValueError: broken XML (with the line), or no unit with both languages.
    """
    from lxml import etree

    check_exists(path)
    seen: set[str] = set()
    found = False
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        units = etree.iterparse(file, tag="{*}tu", resolve_entities=False, huge_tree=True)
        try:
            for _, unit in units:
                texts = _variants(unit)
                seen |= texts.keys()
                first = None if source is None else _pick(texts, source)
                second = _pick(texts, target)
                if second is not None and (source is None or first is not None):
                    found = True
                    yield Row(unit.sourceline or 0, first, second)
                _forget(unit)
        except (etree.XMLSyntaxError, gzip.BadGzipFile, EOFError) as error:
            line = getattr(error, "lineno", None) or 1
            reason = str(getattr(error, "msg", None) or error)
            raise ValueError(f"{path}:{line}: not valid TMX ({reason})") from None
    if not found:
        wanted = repr(target) if source is None else f"both {source!r} and {target!r}"
        has = ", ".join(sorted(seen)) or "no language at all"
        raise ValueError(f"{path}: no translation unit has {wanted}; the file has {has}")


def _variants(unit: Any) -> dict[str, str]:
    texts = {}
    for variant in unit.iterfind("{*}tuv"):
        segment = variant.find("{*}seg")
        lang = variant.get(_LANG) or variant.get("lang")
        if segment is not None and lang:
            texts.setdefault(lang, one_line(_text(segment)))
    return texts


def _text(element: Any) -> str:
    parts = [element.text or ""]
    for child in element:
        name = child.tag.rpartition("}")[2] if isinstance(child.tag, str) else "ph"
        if name not in _NATIVE_CODES:
            parts.append(_text(child))
        parts.append(child.tail or "")
    return "".join(parts)


def _pick(texts: dict[str, str], code: str) -> str | None:
    wanted = _subtags(code)
    matches = [lang for lang in texts if _subtags(lang)[: len(wanted)] == wanted]
    return texts[min(matches, key=len)] if matches else None


def _subtags(code: str) -> list[str]:
    return code.lower().replace("_", "-").split("-")


def _forget(unit: Any) -> None:
    """Free the unit and those before it; iterparse would keep the whole file in memory."""
    unit.clear()
    while unit.getprevious() is not None:
        del unit.getparent()[0]
