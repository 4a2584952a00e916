"""Files of text, tables, subtitles, memories and Markdown, translated within their form."""

from collections.abc import Callable
from pathlib import PurePath

from polylect.data.languages import split_direction
from polylect.did_you_mean import did_you_mean
from polylect.documents.document import Document
from polylect.documents.markdown import read_markdown
from polylect.documents.plain import read_table, read_text
from polylect.documents.subtitles import read_subtitles
from polylect.documents.tmx import read_tmx

_MARK = "\ufeff"  # of byte order, which some editors write, and tables for spreadsheets need
FORMATS: dict[str, Callable[..., Document]] = {
    "txt": read_text,
    "tsv": read_table,
    "tmx": read_tmx,
    "srt": read_subtitles,
    "md": read_markdown,
}


def read_document(name: str, content: str, direction: str, column: int = 0) -> Document:
    """Return the texts of a file by the end of its name.

    Args:
        direction: as en-de.
        column: of a table, from 0.

    Raises:
        ValueError: the format is not known, or the file is not of it.
    """
    ending = PurePath(name).suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        hint = did_you_mean(ending, list(FORMATS))
        raise ValueError(f"files .{ending} are not translated; {hint}")
    source, target = split_direction(direction)
    text = content.removeprefix(_MARK)
    document = FORMATS[ending](text, source=source, target=target, column=column)
    if text == content:
        return document
    return Document(document.texts, lambda texts: _MARK + document.write(texts))


def translated_name(name: str, direction: str) -> str:
    """Return the name of the translated file: with the target's code before its end."""
    path = PurePath(name)
    return f"{path.stem}.{split_direction(direction)[1]}{path.suffix}"
