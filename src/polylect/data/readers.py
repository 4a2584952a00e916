"""Readers of text files: aligned lines, TSV and JSONL, plain or gzip-compressed, one row at a time.

Every error says file and line. A text is one line: white space at its ends is removed and line
breaks inside it (possible in JSON and XML) become spaces; nothing else is changed.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A sentence pair as read: its line (from 1), and its texts; no source if monolingual.

    `references` are the right translations given beside `target`, empty if there are none.
    """

    line: int
    source: str | None
    target: str
    references: tuple[str, ...] = ()


def one_line(text: str) -> str:
    """The text without white space at its ends and without line breaks."""
    lines = text.strip().splitlines()
    return lines[0] if len(lines) == 1 else " ".join(line.strip() for line in lines)


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, split at LF only, decompressed if its name ends in .gz.

    Raises:
        FileNotFoundError: there is no such file; the sentence names the nearest one beside it.
        ValueError: bytes that are not UTF-8, or a broken gzip stream, with the line.
    """
    check_exists(path)
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(
            f"{path}:{number}: byte 0x{byte:02x} at position {error.start + 1} of the line is not "
            "valid UTF-8; convert the file to UTF-8"
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}:{number + 1}: broken gzip data ({error})") from None


def check_exists(path: Path) -> None:
    """Raise FileNotFoundError in one sentence unless `path` is a file."""
    if path.is_file():
        return
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder, not a file")
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    if folder != path.parent:
        raise FileNotFoundError(f"{path} does not exist: {folder} has no {_step(path, folder)!r}")
    near = get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1)
    hint = f"; the nearest name there is {near[0]!r}" if near else ""
    raise FileNotFoundError(f"{path} does not exist{hint}")


def _step(path: Path, folder: Path) -> str:
    return path.relative_to(folder).parts[0]


def read_aligned(source: Path | None, target: Path, references: Sequence[Path]) -> Iterator[Row]:
    """Rows of files in which line i of each is the same sentence.

    Raises:
        ValueError: the files have unequal numbers of lines (and see `text_lines`).
    """
    paths = ([source] if source else []) + [target, *references]
    files = [text_lines(path) for path in paths]
    for number, texts in enumerate(zip_longest(*files), 1):
        if None in texts:
            counts = [
                number - 1 if text is None else number + sum(1 for _ in file)
                for text, file in zip(texts, files, strict=True)
            ]
            raise ValueError(_unequal(paths, counts))
        clean = [one_line(text) for text in texts]
        first = clean.pop(0) if source else None
        yield Row(number, first, clean[0], tuple(clean[1:]))


def _unequal(paths: Sequence[Path], counts: Sequence[int]) -> str:
    short, long = counts.index(min(counts)), counts.index(max(counts))
    return (
        f"{paths[short]}:{counts[short] + 1}: there is no such line: the file has {counts[short]} "
        f"lines but {paths[long]} has {counts[long]}; line i of aligned files must be one sentence"
    )


def read_tsv(
    path: Path, source: int | str | None, target: int | str, references: Sequence[int | str]
) -> Iterator[Row]:
    """Rows of a tab-separated file without quoting. Columns are counted from 0, or named.

    If any column is a name, the first line is the header.

    Raises:
        ValueError: a name that the header does not have, or a line with too few columns.
    """
    columns = ([] if source is None else [source]) + [target, *references]
    lines = enumerate(text_lines(path), 1)
    if any(isinstance(column, str) for column in columns):
        header = next(lines, (1, ""))[1].split("\t")
        columns = [_column(path, header, column) for column in columns]
    needed = max(columns) + 1
    for number, line in lines:
        cells = line.split("\t")
        if len(cells) < needed:
            raise ValueError(
                f"{path}:{number}: the line has {len(cells)} columns, but column {needed} "
                f"(counted from 1) is needed; columns are separated by one tab"
            )
        texts = [one_line(cells[column]) for column in columns]
        first = None if source is None else texts.pop(0)
        yield Row(number, first, texts[0], tuple(texts[1:]))


def _column(path: Path, header: list[str], column: int | str) -> int:
    if isinstance(column, int):
        return column
    if column in header:
        return header.index(column)
    raise ValueError(
        f"{path}:1: no column {column!r} in the header; it has {', '.join(map(repr, header))}"
    )


def read_jsonl(
    path: Path, source: Sequence[str], target: Sequence[str], references: Sequence[str]
) -> Iterator[Row]:
    """Rows of a file with one JSON object per line; empty lines are skipped.

    Each side is given as field names to try in order on the first record; see `row_of_record`.

    Raises:
        ValueError: bad JSON, a field that is missing, or a field that is not text.
    """
    fields = None
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: not valid JSON ({error.msg})") from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}:{number}: the line is not a JSON object with fields")
        where = f"{path}:{number}"
        fields = fields or choose_fields(record, (source, target, references), where)
        yield row_of_record(record, fields, number, where)


Fields = tuple[str | None, str, str | None]


def choose_fields(
    record: Mapping[str, Any], sides: tuple[Sequence[str], Sequence[str], Sequence[str]], where: str
) -> Fields:
    """The first of the candidate fields of source, target, references that the record has.

    No candidates for the source mean monolingual text.
    """
    found = [next((f for f in names if _lookup(record, f) is not None), None) for names in sides]
    for names, field in zip(sides[:2], found[:2], strict=True):
        if names and field is None:
            wanted = " or ".join(map(repr, names))
            raise ValueError(f"{where}: no field {wanted}; the record has {_known(record)}")
    return found[0], str(found[1]), found[2]


def row_of_record(record: Mapping[str, Any], fields: Fields, number: int, where: str) -> Row:
    """The row of a record; dots in a field's name go into nested objects and lists."""
    source, target, references = fields
    first = None if source is None else _text(record, source, where)
    texts = (_lookup(record, references) if references else None) or []
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{where}: field {references!r} is neither a text nor a list of texts")
    return Row(number, first, _text(record, target, where), tuple(map(one_line, texts)))


def _text(record: Mapping[str, Any], field: str, where: str) -> str:
    value = _lookup(record, field)
    if value is None:
        raise ValueError(f"{where}: no field {field!r}; the record has {_known(record)}")
    if not isinstance(value, str):
        raise ValueError(f"{where}: field {field!r} is {type(value).__name__}, not text")
    return one_line(value)


def _lookup(record: Any, field: str) -> Any:
    if isinstance(record, Mapping) and field in record:
        return record[field]
    head, dot, rest = field.partition(".")
    if isinstance(record, list) and head.isdigit() and int(head) < len(record):
        inner = record[int(head)]
    elif isinstance(record, Mapping) and dot and head in record:
        inner = record[head]
    else:
        return None
    return _lookup(inner, rest) if dot else inner


def _known(record: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, record)) or "no fields"
