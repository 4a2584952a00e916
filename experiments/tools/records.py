"""Committed records: how they are read and laid out, and which of them prove nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polylect.files import write_text

Record = Mapping[str, Any]

WIDTH = 200
"""Characters of a line: a layer's agreements fit, and a data set's counts with its hash."""


def read(path: Path) -> Record:
    """The record in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, record: Record) -> None:
    """Write a record as `layout` has it; the file is either whole or not there."""
    write_text(path, layout(record) + "\n")


def layout(value: Any, indent: int = 0, before: int = 0) -> str:
    """The value as JSON; what fits into a line, or holds nothing but plain values, is one line.

    Args:
        indent: spaces before the line that it begins in.
        before: characters between these and the value.
    """
    line = json.dumps(value, ensure_ascii=False, default=str)
    if not isinstance(value, Mapping | list | tuple) or not value:
        return line
    parts = value.values() if isinstance(value, Mapping) else value
    nested = any(isinstance(part, Mapping | list | tuple) for part in parts)
    if not nested or indent + before + len(line) < WIDTH:  # a comma may follow
        return line
    if isinstance(value, Mapping):
        labels = [json.dumps(str(key), ensure_ascii=False) + ": " for key in value]
    else:
        labels = [""] * len(value)
    body = ",\n".join(
        " " * (indent + 1) + label + layout(part, indent + 1, len(label))
        for label, part in zip(labels, parts, strict=True)
    )
    begin, end = "{}" if isinstance(value, Mapping) else "[]"
    return f"{begin}\n{body}\n{' ' * indent}{end}"


def proves_nothing(record: Record) -> str | None:
    """Why no number may come from this record; None if it counts."""
    status = record.get("status", "done")  # a benchmark that does not end well writes no record
    if status != "done":
        return status
    return "from a changed working tree" if record["scratch"] else None
