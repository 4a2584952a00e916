"""Readers of tables of text: tab-separated lines without quoting, and CSV with it."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from polylect.data.corpora.headers import SideNames
from polylect.data.corpora.lines import text_lines
from polylect.data.corpora.rows import Row
from polylect.data.text import one_line

Column = int | str
Line = tuple[int, list[str]]


def tsv_lines(path: Path) -> Iterator[Line]:
    """Yield the number and cells of each line. There is no quoting: a quotation mark is a letter.

    Raises:
        ValueError: CR within a line, which may be the end of another one (and see `text_lines`).
    """
    for number, line in enumerate(text_lines(path), 1):
        if "\r" in line:
            raise ValueError(
                f"{path}:{number}: the line has CR in it, while lines of this file end with LF; "
                "if it ends a line, make it LF, otherwise a space"
            )
        yield number, line.split("\t")


def csv_lines(path: Path, delimiter: str) -> Iterator[Line]:
    """Yield the number of the first line and cells of each record; blank lines are none.

    Cells are text, whatever they look like. They may be in double quotes and then hold delimiters,
    line breaks and doubled quotes. Spaces between a delimiter and a cell are not part of it.

    Raises:
        ValueError: wrong quoting, or a cell of more than `csv.field_size_limit()` characters.
    """
    records = csv.reader(
        (f"{line}\n" for line in text_lines(path)),
        delimiter=delimiter,
        strict=True,
        skipinitialspace=delimiter != " ",
    )
    while True:
        number = records.line_num + 1
        try:
            cells = next(records, None)
        except csv.Error as error:
            raise ValueError(
                f"{path}:{number}: not valid CSV ({error}); is a quotation mark left open, or not "
                "doubled within quotes?"
            ) from None
        if cells is None:
            return
        if cells:
            yield number, cells


_QUOTED = re.compile(r'"(?:[^"]|"")+"')


def are_quoted(cells: Sequence[str]) -> bool:
    """Return whether cells that were read as they are seem to be quoted as in CSV: one of them with
    doubled quotation marks within, or all.
    """
    quoted = [cell for cell in cells if _QUOTED.fullmatch(cell)]
    return any('""' in cell[1:-1] for cell in quoted) or len(quoted) == len(cells) > 2


def table_rows(
    path: Path,
    lines: Iterator[Line],
    columns: Mapping[str, Column],
    defaults: Mapping[str, int],
    references: Sequence[Column],
    header: bool | None,
    names: SideNames,
) -> Iterator[Row | None]:
    """Yield rows of a table.

    Args:
        columns: by side, counted from 0, or named as in the header.
        defaults: columns of the sides that have none, if there is no header.
        header: whether the first line is one; None finds out by `names`, which also give the
            columns of the sides that have none.

    Yields:
        a row for each line; None for a header that only `names` has recognised.

    Raises:
        ValueError: a column that the header does not have, a line with too few columns, or with
            more than the first one.
    """
    number, first = next(lines, (0, []))
    if not number:
        return
    where = f"{path}:{number}"
    announced = header or any(isinstance(c, str) for c in [*columns.values(), *references])
    recognised = header is None and bool(names.header(first) or names.lacks_a_side(first))
    has_header = announced or recognised
    column_of = dict(columns)
    for side, default in defaults.items():
        if side not in column_of:
            column_of[side] = _find_column(where, first, side, names) if has_header else default
    if len(set(column_of.values())) < len(column_of):
        raise ValueError(f"{where}: source and target are one column, {column_of['target']!r}")
    positions = [_column(where, first, column_of[side]) for side in defaults]
    others = [_column(where, first, column) for column in references]
    if others and positions[-1] not in others:  # the target is a reference, too
        others.insert(0, positions[-1])
    positions += others
    if not has_header:
        yield _row(path, number, first, positions, "source" in defaults)
    elif not announced:
        yield None
    for number, cells in lines:
        if any(cells[len(first) :]):
            raise ValueError(_too_many(path, number, len(cells), len(first)))
        yield _row(path, number, cells, positions, "source" in defaults)


def _too_many(path: Path, number: int, columns: int, expected: int) -> str:
    return (
        f"{path}:{number}: the line has {columns} columns, and the first one has {expected}: is "
        "the delimiter in a text? Then put the text in quotes (CSV), or make the tab a space "
        "(TSV); columns that the first line lacks stand there as empty cells"
    )


def _row(path: Path, number: int, cells: list[str], positions: list[int], has_source: bool) -> Row:
    if len(cells) <= max(positions):
        raise ValueError(
            f"{path}:{number}: the line has {len(cells)} columns, but column {max(positions) + 1} "
            "(counted from 1) is needed"
        )
    texts = [one_line(cells[column]) for column in positions]
    first = texts.pop(0) if has_source else None
    return Row(number, first, texts[0], tuple(texts[1:]))


def _column(where: str, header: list[str], column: Column) -> int:
    if isinstance(column, int):
        return column
    if column in header:
        return _only(where, header, header.index(column))
    raise ValueError(f"{where}: no column {column!r} in the header; it has {_column_names(header)}")


def _find_column(where: str, header: list[str], side: str, names: SideNames) -> int:
    column = names.best(side, header)
    if column is not None:
        return _only(where, header, column)
    code = names.corpus_codes[side]
    advice = (
        f"give the column with the key {side}, or header: false if the line is no header"
        if len(header) > 1
        else "is delimiter the right one?"
    )
    raise ValueError(
        f"{where}: no column of the header names the {side} {code!r}; it has "
        f"{_column_names(header)}; {advice}"
    )


def _only(where: str, header: list[str], column: int) -> int:
    """The column; raises ValueError where another one has the same name."""
    same = [str(i) for i, name in enumerate(header) if name == header[column]]
    if len(same) > 1:
        raise ValueError(
            f"{where}: the header has {header[column]!r} {len(same)} times: name the one that is "
            f"meant by its number, which is {' or '.join(same)}, with header: true"
        )
    return column


def _column_names(header: list[str]) -> str:
    return ", ".join(map(repr, header))
