"""The record to commit of each run: what is bulk is condensed, and the record says what was.

    python experiments/tools/publish.py --out experiments/kilt/results runs/kilt_small/TIME/lag
    python experiments/tools/publish.py --out experiments/bench/results out/loop.json

A RUN is the folder of a run, or the JSON file of a benchmark or an analysis. Its record is named
after the run's `name`, or after the file. Configuration, command, commit, versions, hashes of the
data and scores with their signatures stay as they are. What is condensed:

- routing row by row (library, layer, direction, side, the share of every adapter): tokens and
  agreement by layer and by direction, and the shares over all layers;
- shares of every adapter by test set: their means over the test sets;
- numbers of the lines that a diagnosis counted: how many there are stays;
- paths from the root of a machine: the last part stays, as in "…/captions".

The record's `published` names what was condensed, and the SHA-256 of the file it was made from. The
same run always gives the same bytes; a published record gives itself.
"""

import argparse
import copy
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import records
from records import Record

DIGITS = 6
ROWS = {
    "rows": "a row for each library, layer, direction and side, with the share of every adapter; "
    "here tokens and agreement by layer and by direction, and the shares over all layers",
    "layers": "a row for each library, layer and side, with the share of every adapter; "
    "here tokens and agreement by layer, and the shares over all layers",
}
CHOSEN = "shares of every adapter by side and test set; here their means over the test sets"
LINES = "numbers of the first lines that each diagnosis counted; here their count and rate"
PATHS = "paths from the root of the machine; here their last part"
ABSOLUTE = re.compile(r"(?<![^\s=,:'\"(\[{])(?:/[\w.@+={}*-]+)+(?=/)(/[\w.@+={}*-]+)")
NEEDED = ("command", "environment", "started", "scratch")


@dataclass(frozen=True)
class Run:
    """A run to be published: where its record is, what that says, and its name."""

    file: Path
    source: bytes
    record: Record
    name: str


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder or JSON file")
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--name", default="{}", help="of a record; {} is the name of the run")
    parser.add_argument(
        "--outputs", type=Path, help="folder for the translations, if their text may be given away"
    )
    parser.add_argument(
        "--scratch", action="store_true", help="also runs that no table counts; they stay marked"
    )
    parser.add_argument("--replace", action="store_true", help="a record of that name, if another")
    options = parser.parse_args(arguments)
    try:
        publish(options)
    except (OSError, ValueError) as error:
        sys.exit(f"publish: {error}")


def publish(options: argparse.Namespace) -> None:
    """Write the records, or none of them: all runs are checked first."""
    runs = [read(path, options.name) for path in options.runs]
    targets = [options.out / f"{run.name}.json" for run in runs]
    texts = [records.layout(condensed_record(run.record, run.source)) + "\n" for run in runs]
    for run, target, text in zip(runs, targets, texts, strict=True):
        check(run, target, text, options)
        if targets.count(target) > 1:
            raise ValueError(f"several runs would be {target}: give each its own --name.")
    for run, target, text in zip(runs, targets, texts, strict=True):
        records.write_text(target, text)
        before = len(run.source.splitlines())
        print(f"{target}: {len(text.splitlines()):,} lines, {before:,} before")
        if options.outputs:
            copy_outputs(run, options.outputs / run.name)


def read(path: Path, name: str) -> Run:
    """A run with its record; raises ValueError or FileNotFoundError that name the file."""
    file = path / "record.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist: give run folders or JSON files.")
    source = file.read_bytes()
    try:
        record = json.loads(source)
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    missing = [key for key in NEEDED if not isinstance(record, dict) or key not in record]
    if missing:
        raise ValueError(f"{file} is no record of a run: it lacks {', '.join(missing)}.")
    name = name.replace("{}", own_name(path, record))
    if not name or Path(name).name != name:
        raise ValueError(f"{file}: {name!r} is no name of a file; give another with --name.")
    return Run(file, source, record, name)


def own_name(path: Path, record: Record) -> str:
    """A run folder is called after its time; its name is in the configuration."""
    if path.is_file():
        return path.stem
    return str((record.get("config") or {}).get("name") or path.resolve().name)


def check(run: Run, target: Path, text: str, options: argparse.Namespace) -> None:
    """Raise ValueError where a run must not be published, or not over what is there."""
    reason = records.proves_nothing(run.record)
    if reason and not options.scratch:
        raise ValueError(
            f"{run.file} proves nothing ({reason}): commit and run again, or give --scratch."
        )
    if target.is_file() and not options.replace and target.read_text(encoding="utf-8") != text:
        raise ValueError(
            f"{target} holds something else: give another --name, or --replace to lose it."
        )
    if options.outputs and not list(run.file.parent.glob("outputs/*.txt")):
        raise ValueError(f"{run.file.parent} has no translations in outputs/.")


def copy_outputs(run: Run, folder: Path) -> None:
    """Copy the translations of a run in place of those that were there."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.txt"):
        file.unlink()
    for file in sorted(run.file.parent.glob("outputs/*.txt")):
        shutil.copyfile(file, folder / file.name)


def write_published(path: Path, record: Record, source: bytes | None = None) -> None:
    """Write the record to commit of one that a script has made; see `condensed_record`."""
    records.write(path, condensed_record(record, source))


def condensed_record(record: Record, source: bytes | None = None) -> dict[str, Any]:
    """The record with what is bulk condensed, and a note "published" of what that was.

    Args:
        record: of a run or a benchmark; it is not changed.
        source: the file that held it, whose hash goes into the note; None if there was none.
    """
    shorter = copy.deepcopy(dict(record))
    former = shorter.pop("published", None)
    note = dict(former or ({"sha256": hashlib.sha256(source).hexdigest()} if source else {}))
    note["condensed"] = note.get("condensed", {}) | dict(
        shorten_metrics(shorter.get("metrics") or {})
    )
    without_paths = shorten_paths(shorter)
    if without_paths != shorter:
        note["condensed"] |= {"*": PATHS}
    return without_paths | {"published": note}


def shorten_paths(value: Any) -> Any:
    """The value, with "…" for the folders in which this machine keeps what it names."""
    if isinstance(value, str):
        return ABSOLUTE.sub(r"…\1", value)
    if isinstance(value, Mapping):
        return {key: shorten_paths(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shorten_paths(part) for part in value]
    return value


def shorten_metrics(metrics: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Shorten the metrics in place; yields where they were, and what stood there."""
    routing = metrics.get("routing", {})
    for key, rows_were in ROWS.items():
        if isinstance(routing.get(key), list):
            routing |= routing_sums(routing.pop(key))
            yield f"metrics.routing.{key}", rows_were
    by_side = routing.get("chosen", {})
    for side, tests in by_side.items():
        if all(isinstance(shares, Mapping) for shares in tests.values()):
            by_side[side] = means(list(tests.values()))
            yield "metrics.routing.chosen", CHOSEN
    for part, scores in metrics.items():
        rates = list(diagnosis_rates(scores))
        for rate in rates:
            del rate["lines"]
        if rates:
            yield f"metrics.{part}.*.diagnosis.*.lines", LINES


def routing_sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums of the rows that a router's choices are counted in, all by library and side.

    Returns:
        "layers" and, where rows have one, "directions": tokens, and the share of the right adapter
        in those for which one is known, None without any; "shares": of each adapter, over all.
    """
    parts: dict[str, Any] = {"layers": sums(rows, "layer")}
    if all("direction" in row for row in rows):
        parts["directions"] = sums(rows, "direction")
    return parts | {"shares": shares(rows)}


def sums(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """Tokens and agreement by library, `key` and side."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["library"], row[key], row["side"]), []).append(row)
    nested: dict[str, Any] = {}
    for (library, place, side), group in groups.items():
        scored = [row for row in group if row["agreement"] is not None]
        tokens = sum(row["tokens"] for row in scored)
        right = sum(row["tokens"] * row["agreement"] for row in scored)
        nested.setdefault(library, {}).setdefault(place, {})[side] = {
            "tokens": sum(row["tokens"] for row in group),
            "agreement": round(right / tokens, DIGITS) if tokens else None,
        }
    return nested


def shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares of the adapters by library and side, weighed by tokens."""
    weights: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        weight = weights.setdefault(row["library"], {}).setdefault(row["side"], {})
        for adapter, share in row["shares"].items():
            weight[adapter] = weight.get(adapter, 0.0) + share * row["tokens"]
    return {
        library: {side: normalise(weight) for side, weight in sides.items()}
        for library, sides in weights.items()
    }


def normalise(weight: Mapping[str, float]) -> dict[str, float]:
    """Shares of the sum, by name."""
    total = sum(weight.values())
    return {name: round(weight[name] / total, DIGITS) for name in sorted(weight)}


def means(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the tables; what one of them lacks is zero there."""
    names = sorted({name for table in tables for name in table})
    return {n: round(sum(t.get(n, 0.0) for t in tables) / len(tables), DIGITS) for n in names}


def diagnosis_rates(scores: Any) -> Iterator[dict[str, Any]]:
    """The rates in the diagnoses of a part of the metrics that still list their lines."""
    for score in scores.values() if isinstance(scores, dict) else ():
        diagnosis = score.get("diagnosis", {}) if isinstance(score, dict) else {}
        for rate in diagnosis.values():
            if isinstance(rate, dict) and "lines" in rate:
                yield rate


if __name__ == "__main__":
    main()
