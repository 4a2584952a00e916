"""Plain text, tables and subtitles: a file is lines, of which some are translated."""

import re
from collections.abc import Sequence

from polylect.data.languages import language
from polylect.programs.serve.documents.document import Document, line_end

_TIMES = re.compile(r"\s*\d+:\d\d:\d\d[,.]\d+\s*-->\s*\d+:\d\d:\d\d[,.]\d+")


def read_text(content: str, **_: object) -> Document:
    """Read a text: each line that is not empty is translated, white space around it kept."""
    end = line_end(content)
    lines = content.split(end)
    at = [number for number, line in enumerate(lines) if line.strip()]

    def write(texts: Sequence[str]) -> str:
        new = list(lines)
        for number, text in zip(at, texts, strict=True):
            new[number] = with_space_of(lines[number], text)
        return end.join(new)

    return Document([lines[number].strip() for number in at], write)


def with_space_of(line: str, text: str) -> str:
    """Return the text with the white space that is around another line."""
    inner = line.strip()
    before, _, after = line.partition(inner) if inner else (line, "", "")
    return f"{before}{text}{after}"


def read_table(content: str, *, column: int, target: str, **_: object) -> Document:
    """Read a table with tabs: of one column all cells are translated, into a new one at its end.

    A first line with a language's code in that column is a header.

    Raises:
        ValueError: a line without that column.
    """
    end = line_end(content)
    rows = [line.split("\t") for line in content.split(end)]
    texts, at = [], []
    for number, cells in enumerate(rows):
        if cells == [""]:
            continue
        if len(cells) <= column:
            raise ValueError(
                f"line {number + 1} has {len(cells)} columns, and column {column} (from 0) is to "
                "be translated."
            )
        if number == 0 and _is_code(cells[column]):
            continue
        if cells[column].strip():
            at.append(number)
            texts.append(cells[column].strip())

    def write(translations: Sequence[str]) -> str:
        new = {number: "" for number, cells in enumerate(rows) if cells != [""]}
        if rows and len(rows[0]) > column and _is_code(rows[0][column]):
            new[0] = target
        new |= dict(zip(at, translations, strict=True))
        lines = ["\t".join([*cells, new[n]]) if n in new else "" for n, cells in enumerate(rows)]
        return end.join(lines)

    return Document(texts, write)


def _is_code(cell: str) -> bool:
    try:
        language(cell.strip())
    except ValueError:
        return False
    return True


def read_subtitles(content: str, **_: object) -> Document:
    """Read SRT: the lines of each subtitle are one text, and as many lines again afterwards.

    Raises:
        ValueError: there are no times in it.
    """
    end = line_end(content)
    lines = content.split(end)
    blocks, is_text = [], False  # first and last line of each subtitle's text
    for number, line in enumerate(lines):
        if _TIMES.match(line):
            is_text = True
            blocks.append((number + 1, number + 1))
        elif not line.strip():
            is_text = False
        elif is_text:
            blocks[-1] = blocks[-1][0], number + 1
    if not blocks and content.strip():
        raise ValueError("no line of the file gives times, as 00:00:01,000 --> 00:00:02,500 does.")
    blocks = [(first, last) for first, last in blocks if first < last]
    texts = [" ".join(line.strip() for line in lines[first:last]) for first, last in blocks]

    def write(translations: Sequence[str]) -> str:
        new: list[str] = []
        done = 0
        for (first, last), text in zip(blocks, translations, strict=True):
            new += [*lines[done:first], *_in_lines(text, last - first)]
            done = last
        return end.join([*new, *lines[done:]])

    return Document(texts, write)


def _in_lines(text: str, count: int) -> list[str]:
    """Cut a text at spaces into at most so many lines of similar length."""
    words, lines = text.split(" "), []
    for left in range(count, 1, -1):
        share, line = len(" ".join(words)) / left, []
        while len(words) > 1 and (not line or len(" ".join([*line, words[0]])) <= share + 3):
            line.append(words.pop(0))
        if line:
            lines.append(" ".join(line))
    return [*lines, " ".join(words)]
