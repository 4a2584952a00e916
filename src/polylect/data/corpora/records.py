"""Records with named fields as rows: JSON lines, JSON arrays, and what else has fields."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from polylect.data.corpora.headers import SideNames
from polylect.data.corpora.lines import text_lines
from polylect.data.corpora.rows import Row
from polylect.data.text import one_line

MAX_ARRAY_CHARACTERS = 256 * 2**20
"""Of a JSON array, which has to be in memory whole; JSON lines have no such bound."""


@dataclass
class Fields:
    """Which fields of a record are its sides; chosen on the first record.

    Attributes:
        candidates: by side the fields to try in order; no "source" means monolingual text.
        references: the field with more right translations; it may be missing.
        names: find the sides in `named` where none of the candidates is there.
        chosen: by side the field, once there was a record.
    """

    candidates: Mapping[str, Sequence[str]]
    references: str
    names: SideNames
    named: Sequence[str]
    chosen: dict[str, str] = field(default_factory=dict)

    def row(self, record: Any, number: int, where: str) -> Row:
        """Return the row of a record; dots in a field's name go into nested objects and lists.

        Raises:
            ValueError: no record with fields, or a field that is missing, null, or not text.
        """
        if not isinstance(record, Mapping):
            raise ValueError(f"{where}: the line is not a JSON object with fields")
        if not self.chosen:
            fields = {side: self._choose(record, side, where) for side in self.candidates}
            if len(set(fields.values())) < len(fields):
                raise ValueError(f"{where}: source and target are one field, {fields['target']!r}")
            self.chosen = fields
        texts = {side: _text_of(record, name, where) for side, name in self.chosen.items()}
        others = _lookup(record, self.references) or []
        others = [others] if isinstance(others, str) else others
        if not isinstance(others, list) or not all(isinstance(text, str) for text in others):
            raise ValueError(
                f"{where}: field {self.references!r} is neither a text nor a list of texts"
            )
        references = tuple(_clean(text, self.references, where) for text in others)
        if references and texts["target"] not in references:
            references = (texts["target"], *references)
        return Row(number, texts.get("source"), texts["target"], references)

    def _choose(self, record: Mapping[str, Any], side: str, where: str) -> str:
        tried = self.candidates[side]
        present = [name for name in tried if _lookup(record, name) is not None]
        if not present and side in self.named:
            inner = record.get("translation")
            inner = inner if isinstance(inner, Mapping) else {}
            fields = [*record, *(f"translation.{name}" for name in inner)]
            best = self.names.best(side, fields)
            present = [] if best is None else [fields[best]]
        if not present:
            null = [name for name in tried if name in record]
            has = f"field {null[0]!r} is null" if null else f"the record has {_field_names(record)}"
            raise ValueError(f"{where}: no field {' or '.join(map(repr, tried))}; {has}")
        return present[0]


def read_json(path: Path, fields: Fields) -> Iterator[Row]:
    """Yield rows of a file with one JSON object per line (empty lines are skipped), or of an array.

    Objects of an array are counted instead of lines.

    Raises:
        ValueError: bad JSON, a field that an object has twice (and see `Fields.row`).
    """
    for number, record in _objects(path):
        yield fields.row(record, number, f"{path}:{number}")


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    lines = ((n, line) for n, line in enumerate(text_lines(path), 1) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    lines = chain([first], lines)
    if path.name.removesuffix(".gz").endswith(".json") and first[1].lstrip().startswith("["):
        yield from enumerate(_array(path, lines), 1)
        return
    for number, line in lines:
        yield number, parse_json(line, f"{path}:{number}")


def _array(path: Path, lines: Iterator[tuple[int, str]]) -> list[Any]:
    parts, length = [], 0
    for number, line in lines:
        parts.append(line)
        length += len(line)
        if length > MAX_ARRAY_CHARACTERS:
            raise ValueError(
                f"{path}:{number}: a JSON array of more than {MAX_ARRAY_CHARACTERS // 2**20} "
                "million characters has no room in memory; make it one object per line (.jsonl)"
            )
    return parse_json("\n".join(parts), f"{path}:1")


def parse_json(text: str, where: str) -> Any:
    """Return what the text says in JSON.

    Raises:
        ValueError: with `where`: bad JSON, a field that an object has twice, too deep nesting.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise ValueError(f"{where}: the JSON is nested too deep") from None
    except ValueError as error:  # a field twice, a number of too many digits
        raise ValueError(f"{where}: not valid JSON ({error})") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"an object has the field {twice!r} twice")
    return record


def _text_of(record: Mapping[str, Any], name: str, where: str) -> str:
    value = _lookup(record, name)
    if value is None:
        why = (
            f"field {name!r} is null"
            if name in record
            else f"the record has {_field_names(record)}"
        )
        raise ValueError(f"{where}: no field {name!r}; {why}")
    if not isinstance(value, str):
        raise ValueError(f"{where}: field {name!r} is {type(value).__name__}, not text")
    return _clean(value, name, where)


def _clean(text: str, name: str, where: str) -> str:
    try:
        return one_line(text)
    except ValueError as error:
        raise ValueError(f"{where}: field {name!r}: {error}") from None


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


def _field_names(record: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, record)) or "no fields"
