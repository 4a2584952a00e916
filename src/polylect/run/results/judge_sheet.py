"""The sheet on which human judges compare two systems, blind, and how their marks are read."""

import csv
import hashlib
import io
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polylect.config.roots import ConfigError
from polylect.eval.inference.marks import Marks, marks_table, most_different
from polylect.eval.table import Table
from polylect.files import read_json, write_json, write_text
from polylect.run.results.scored_run import (
    ScoredRun,
    comparable_directions,
    pairs_of,
    references_of,
)

COLUMNS = ("line", "source", "output 1", "output 2", "reference", "better (1, 2, or 0 for a tie)")
_SIGNS = {"1": 1, "2": -1, "0": 0}  # 1: the output that stands first is better


def key_path(sheet: Path) -> Path:
    """Return the file that says which system each output of a sheet is of."""
    return sheet.with_name(f"{sheet.stem}.key.json")


def write_sheet(
    path: Path,
    names: Sequence[str],
    runs: Sequence[ScoredRun],
    *,
    count: int,
    seed: int,
    packages: Sequence[str] = (),
) -> int:
    """Write the lines on which two runs differ most, and beside the sheet its key.

    The rows, and which output stands first in each, are in random order. The sheet names no
    system; the key, which judges are not to see, has the order and a hash of every row.

    Args:
        names: of the two systems, the baseline first.
        count: of lines of each direction.

    Returns:
        How many lines there are.
    """
    directions = comparable_directions(runs)
    pairs = pairs_of(runs, directions, packages)
    chosen = [
        (direction, *line_and_likeness)
        for direction in directions
        for line_and_likeness in most_different(*(run.hypotheses(direction) for run in runs), count)
    ]
    draw = random.Random(seed)
    swaps = [i % 2 == 1 for i in range(len(chosen))]  # each system stands first in half of the rows
    draw.shuffle(swaps)
    rows: list[list[str]] = []
    key: dict[str, dict[str, Any]] = {}
    for (direction, line, alike), swapped in zip(chosen, swaps, strict=True):
        name = f"{direction}:{line + 1}"
        outputs = [run.hypotheses(direction)[line] for run in (runs[::-1] if swapped else runs)]
        pair = pairs[direction][line]
        rows.append([name, pair.source or "", *outputs, " / ".join(*references_of([pair])), ""])
        key[name] = {"swapped": swapped, "alike": alike, "sha256": _hash(rows[-1])}
    if not rows:
        raise ConfigError("the two runs wrote the same everywhere: there is nothing to judge.")
    draw.shuffle(rows)
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    write_text(path, text.getvalue())
    systems = {"systems": list(names), "runs": [str(run.path) for run in runs], "seed": seed}
    write_json(key_path(path), systems | {"lines": key})
    return len(rows)


def _hash(row: Sequence[str]) -> str:
    """Return the hash of what a judge sees of a line, without the mark."""
    return hashlib.sha256("\x00".join(row[:4]).encode()).hexdigest()


def read_marks(paths: Sequence[Path], *, level: float, power: float) -> Table:
    """Return what the marks of one or several judges of the same sheet prove.

    Where judges of a line disagree, the majority decides; an even split is a tie. A line without
    a mark is left out.

    Raises:
        ConfigError: a sheet without a key, with other rows than it was written with, with a mark
            that is none, or without any.
    """
    keys = [_key(path, paths[0]) for path in paths]
    signs: dict[str, list[int]] = {}
    for path, key in zip(paths, keys, strict=True):
        if key["lines"] != keys[0]["lines"]:
            raise ConfigError(f"marks: {path} is not a copy of the sheet {paths[0]}.")
        for line, sign in _signs(path, key["lines"]).items():
            signs.setdefault(line, []).append(sign)
    if not signs:
        raise ConfigError(f"marks: {paths[0]} has no marks yet: fill its last column.")
    by_direction: dict[str, list[int]] = {}
    for line, of_judges in signs.items():
        by_direction.setdefault(line.rpartition(":")[0], []).append(sum(of_judges))
    marks = {
        direction: Marks(
            wins=sum(total > 0 for total in totals),
            losses=sum(total < 0 for total in totals),
            ties=sum(total == 0 for total in totals),
        )
        for direction, totals in sorted(by_direction.items())
    }
    note = f"{len(signs)} of {len(keys[0]['lines'])} lines marked{_agreement(signs)}"
    return marks_table(marks, keys[0]["systems"], level=level, power=power, note=note)


def _agreement(signs: Mapping[str, Sequence[int]]) -> str:
    """Say how often two judges gave a line the same mark."""
    pairs = [
        first == second
        for of_judges in signs.values()
        for i, first in enumerate(of_judges)
        for second in of_judges[:i]
    ]
    return f"; two judges agree on {sum(pairs) / len(pairs):.0%}" if pairs else ""


def _key(path: Path, first: Path) -> dict[str, Any]:
    """Return the key beside a sheet; copies for several judges share that of the first."""
    own = key_path(path)
    file = own if own.is_file() else key_path(first)
    if not path.is_file() or not file.is_file():
        missing = file if path.is_file() else path
        raise ConfigError(f"marks: {missing} does not exist; judge=… writes a sheet and its key.")
    key = read_json(file, "the key of a sheet")
    if not isinstance(key, dict) or not {"systems", "lines"} <= key.keys():
        raise ConfigError(f"marks: {file} is no key of a sheet.")
    return key


def _signs(path: Path, lines: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Return the sign of each line that is marked: above zero where the second system is better."""
    with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets add a mark in front
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    signs: dict[str, int] = {}
    for row in filter(any, rows):
        where = f"marks: {path}, line {row[0]}"
        known = lines.get(row[0])
        if known is None or len(row) < 5 or _hash(row) != known["sha256"]:
            raise ConfigError(f"{where}: this row is not as it was written: mark the sheet alone.")
        mark = row[5].strip() if len(row) > 5 else ""
        if not mark:
            continue
        if mark not in _SIGNS:
            raise ConfigError(f"{where}: {mark!r} is no mark: give 1, 2, or 0 for a tie.")
        if row[0] in signs:
            raise ConfigError(f"{where}: this row is there twice.")
        signs[row[0]] = _SIGNS[mark] if known["swapped"] else -_SIGNS[mark]
    return signs
