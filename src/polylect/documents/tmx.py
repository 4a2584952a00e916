"""TMX: a translation is added to each unit that has the source language and not the target."""

from collections.abc import Sequence

from lxml import etree

from polylect.documents.document import Document

_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def read_tmx(content: str, *, source: str, target: str, **_: object) -> Document:
    """Read a translation memory; markup within a segment is part of its text.

    Raises:
        ValueError: it is no TMX, or has nothing in the source language.
    """
    root = _root(content)
    units = [(unit, _segment(unit, source)) for unit in root.iter("{*}tu")]
    if units and not any(segment is not None for _, segment in units):
        raise ValueError(f"no unit of the file is in {source}, from which it is to be translated.")
    open_units = [
        (unit, segment)
        for unit, segment in units
        if segment is not None and _segment(unit, target) is None
    ]

    def write(texts: Sequence[str]) -> str:
        for (unit, segment), text in zip(open_units, texts, strict=True):
            added = etree.SubElement(unit, segment.getparent().tag, {_LANGUAGE: target})
            added.append(_with_inner(segment.tag, text))
        declaration = '<?xml version="1.0" encoding="UTF-8"?>\n'
        return declaration + etree.tostring(root.getroottree(), encoding="unicode") + "\n"

    return Document([_inner(segment) for _, segment in open_units], write)


def sample_memory(content: str) -> str:
    """Return the segments in the language that a memory says it is from, or all if it says none.

    Raises ValueError where it is no TMX.
    """
    root = _root(content)
    header = root.find("{*}header")
    source = "*all*" if header is None else header.get("srclang", "*all*")
    units = list(root.iter("{*}tu"))
    segments = [_segment(unit, source.replace("-", "_")) for unit in units]
    if not any(segment is not None for segment in segments):
        segments = list(root.iter("{*}seg"))
    return "\n".join("".join(s.itertext()) for s in segments if s is not None)


def _root(content: str) -> etree._Element:
    # The text was decoded already, whatever encoding its first line names.
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, encoding="utf-8"
    )
    try:
        root = etree.fromstring(content.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"the file is no TMX: {error.msg}") from None
    if etree.QName(root).localname != "tmx":
        raise ValueError(f"the file is no TMX: it begins with <{etree.QName(root).localname}>.")
    return root


def _segment(unit: etree._Element, code: str) -> etree._Element | None:
    for variant in unit.iterfind("{*}tuv"):
        said = variant.get(_LANGUAGE) or variant.get("lang") or ""
        if said.lower().replace("_", "-").split("-")[0] == code.lower().split("_")[0]:
            return variant.find("{*}seg")
    return None


def _inner(segment: etree._Element) -> str:
    """Return what is between the tags, as XML in one line."""
    whole = etree.tostring(segment, encoding="unicode", with_tail=False)
    inner = whole[whole.index(">") + 1 : whole.rindex("<")] if "</" in whole else ""
    return " ".join(inner.split())


def _with_inner(tag: str, text: str) -> etree._Element:
    """Return a segment of this XML; of the text alone where a model has written none that is."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        inner = etree.fromstring(f"<seg>{text}</seg>".encode(), parser)
    except etree.XMLSyntaxError:
        inner = etree.Element("seg")
        inner.text = text
    inner.tag = tag
    return inner
