"""Plain text and tables: a file is lines, of which some are translated."""

from collections.abc import Sequence

from polylect.documents.document import Document, lines_of


def read_text(content: str, **_: object) -> Document:
    """Read a text: each line that is not empty is translated, white space around it kept."""
    lines, ends = lines_of(content)
    at = [number for number, line in enumerate(lines) if line.strip()]

    def write(texts: Sequence[str]) -> str:
        new = list(lines)
        for number, text in zip(at, texts, strict=True):
            new[number] = with_space_of(lines[number], text)
        return joined(new, ends)

    return Document([lines[number].strip() for number in at], write)


def joined(lines: Sequence[str], ends: Sequence[str]) -> str:
    """Return a file of lines, each with its end."""
    return "".join(line + end for line, end in zip(lines, ends, strict=True))


def with_space_of(line: str, text: str) -> str:
    """Return the text with the white space that is around another line."""
    inner = line.strip()
    before, _, after = line.partition(inner) if inner else (line, "", "")
    return f"{before}{text}{after}"


def read_table(content: str, *, column: int, source: str, target: str, **_: object) -> Document:
    """Read a table with tabs: of one column all cells are translated, into a new one at its end.

    A first line with the source's code in that column is a header.

    Raises:
        ValueError: a line without that column.
    """
    lines, ends = lines_of(content)
    rows = [line.split("\t") for line in lines]
    texts, at = [], []
    has_header = len(rows[0]) > column and rows[0][column].strip().lower() == source
    for number, cells in enumerate(rows):
        if cells == [""]:
            continue
        if len(cells) <= column:
            raise ValueError(
                f"line {number + 1} has {len(cells)} columns, and column {column} (from 0) is to "
                "be translated."
            )
        if cells[column].strip() and not (has_header and number == 0):
            at.append(number)
            texts.append(cells[column].strip())

    def write(translations: Sequence[str]) -> str:
        new = {number: "" for number, cells in enumerate(rows) if cells != [""]}
        new |= {0: target} if has_header else {}
        new |= dict(zip(at, translations, strict=True))
        cells = ["\t".join([*row, new[n]]) if n in new else "" for n, row in enumerate(rows)]
        return joined(cells, ends)

    return Document(texts, write)
