"""Elements of a large XML file, one after the other, from whoever wrote it.

No other file and no address is ever read, whatever a document refers to. Entities that the file
itself declares are resolved, within bounds; memory is bounded by MAX_LINE_BYTES.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from polylect.data.corpora.lines import MAX_LINE_BYTES, open_binary


def read_elements(path: Path, tags: Sequence[str], form: str) -> Iterator[Any]:
    """Yield the lxml elements with these tags ("{*}tu"), each freed when the next one is asked for.

    Ancestors of an element keep their attributes; what stood before it is gone.

    Args:
        form: name of the format, for errors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: broken XML, an entity that is not declared in the file or grows out of bounds,
            an element of more than MAX_LINE_BYTES; each with the line.
    """
    # Resolving what the file declares, lxml before 6.1.3 also reads files that it refers to.
    for root in _elements(path, form, "start", None, resolve_entities=False):
        _check_declared(path, form, root)
        break
    yield from _elements(path, form, "end", tags, resolve_entities="internal")


def _check_declared(path: Path, form: str, root: Any) -> None:
    dtd = root.getroottree().docinfo.internalDTD
    for entity in dtd.iterentities() if dtd is not None else ():
        if entity.content is None:
            raise ValueError(
                f"{path}:{root.sourceline}: not valid {form} (the DOCTYPE declares the entity "
                f"{entity.name!r} as another file, which is not read); take it out"
            )


def _elements(
    path: Path,
    form: str,
    event: str,
    tags: Sequence[str] | None,
    resolve_entities: bool | str,
) -> Iterator[Any]:
    """Yield elements at their start or end; each is freed when the next one is asked for."""
    from lxml import etree

    parser = etree.XMLPullParser(
        [event], tag=tags, resolve_entities=resolve_entities, no_network=True, load_dtd=False
    )
    line, size = 1, 0
    try:
        with open_binary(path) as file:
            while chunk := file.read(2**16):
                parser.feed(chunk)
                size += len(chunk)
                # An unknown entity where a DTD is named: raised at the end only, and left out.
                for fault in parser.feed_error_log.filter_from_errors():
                    raise ValueError(_not_valid(path, form, fault.line, fault.message))
                for _, element in parser.read_events():
                    line, size = element.sourceline or line, 0
                    yield element
                    _forget(element)
                if size > MAX_LINE_BYTES:
                    raise ValueError(
                        f"{path}:{line}: after this line there are more than "
                        f"{MAX_LINE_BYTES // 2**20} MiB without the end of a translation unit"
                    )
            parser.close()
    except etree.XMLSyntaxError as error:
        reason = error.msg or str(error)
        raise ValueError(_not_valid(path, form, error.lineno or line, reason)) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}:{line}: broken gzip data ({error})") from None


def _not_valid(path: Path, form: str, line: int, reason: str) -> str:
    reason = reason.strip().partition(", line ")[0]
    advice = (
        "; only entities that the file itself declares are resolved: write the character"
        if "ntity" in reason
        else ""
    )
    return f"{path}:{line}: not valid {form} ({reason}){advice}"


def _forget(element: Any) -> None:
    """Free the element and those before it; the parser would keep the whole file in memory."""
    element.clear()
    while element.getprevious() is not None:
        del element.getparent()[0]
