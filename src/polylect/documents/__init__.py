"""Files of text, tables, subtitles, memories and Markdown, translated within their form."""

from collections.abc import Callable
from pathlib import PurePath

from polylect.data.languages import split_direction
from polylect.data.text import check_characters
from polylect.did_you_mean import did_you_mean
from polylect.documents.document import Document
from polylect.documents.markdown import read_markdown
from polylect.documents.plain import read_table, read_text
from polylect.documents.subtitles import read_subtitles
from polylect.documents.tmx import read_tmx, sample_memory

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
        ValueError: the format is not known, or the file is not of it, or no text.
    """
    check_characters(content)
    ending = PurePath(name).suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        hint = did_you_mean(ending, list(FORMATS))
        what = f"files .{ending}" if ending else f"files without an ending, as {name!r} is,"
        raise ValueError(f"{what} are not translated; {hint}")
    source, target = split_direction(direction)
    text = content.removeprefix(_MARK)
    document = FORMATS[ending](text, source=source, target=target, column=column)
    if text == content:
        return document
    return Document(document.texts, lambda texts: _MARK + document.write(texts))


def sample_document(name: str, content: str) -> str:
    """Return text of a file in which its language can be detected.

    Raises ValueError for what is not the memory that its name says, or no text.
    """
    check_characters(content)
    is_memory = PurePath(name).suffix.lower() == ".tmx"
    return sample_memory(content) if is_memory else content.removeprefix(_MARK)


def translated_name(name: str, direction: str) -> str:
    """Return the name of the translated file: with the target's code before its end."""
    path = PurePath(name)
    return f"{path.stem}.{split_direction(direction)[1]}{path.suffix}"
