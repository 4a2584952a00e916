"""The tables of the READMEs, made from the records.

    python experiments/tables.py             # bring all READMEs in step with the records
    python experiments/tables.py --check     # change nothing; exit 1 where one is not in step

A table stands between `<!-- table:NAME -->` and `<!-- /table -->`. NAME is one of

    bench/loop            experiments/bench/results/loop.json: a benchmark
    captions/bleu         a metric of the runs in experiments/captions/results/*.json
    captions/matrix/RUN   chrF++ of each of that run's adapters in every direction
    captions/nats         held-out nats per token in each language after each run
    mix_moe/targets       nats per target token of each direction after each run
    mix_moe/tongues/bleu  a table of the runs RUN_seedN.json in experiments/mix_moe/results/tongues,
                          with mean and standard deviation over the seeds
    lag/domains/bleu      a metric of test sets DOMAIN_DIRECTION: means over directions
    lag/oracle/bleu       the same, as shares of what the run `oracle` has
    lag/routing           how often the right adapter was chosen, or one of its direction or domain
    lag/layers/RUN        how often that run chose the right adapter, by layer
    lag/joint/routing     any of these of the records in lag/results/joint
    lag/readable/tokens   what tells of the right adapter
    lag/readable/routers  nats per target token under every router
    kilt/answers          scores of `polylect answer`, and how often each library's right adapter
                          was chosen

Runs from a changed working tree (`scratch`) stay out of the tables of experiments; a benchmark's
table says of itself what it comes from.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import routing_tables

from polylect.eval.metrics import TITLES
from polylect.eval.table import Table, matrix_table
from polylect.record import write_text

ROOT = Path(__file__).resolve().parents[1]
BEGIN = re.compile(r"^<!-- table:(?P<name>\S+) -->\n", re.MULTILINE)
BLOCK = re.compile(rf"({BEGIN.pattern})(?P<body>.*?)(^<!-- /table -->)", re.MULTILINE | re.DOTALL)
COLUMNS = (
    "case",
    "against",
    "its time / ours",
    "quartiles",
    "goal",
    "rounds",
)
Record = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    arguments = parser.parse_args()
    stale = update(arguments.root, write=not arguments.check)
    for name in stale:
        print(name)
    sys.exit(1 if arguments.check and stale else 0)


def update(root: Path, *, write: bool) -> list[str]:
    """ "README: table" for every table that is not in step with the records; mended if `write`.

    Raises ValueError for an unknown kind of table, FileNotFoundError for a missing record.
    """
    stale = []
    for readme in [root / "README.md", *sorted((root / "experiments").rglob("README.md"))]:
        text = readme.read_text(encoding="utf-8")

        def fresh(block: re.Match[str], readme: Path = readme) -> str:
            body = table(root / "experiments", block["name"])
            if body != block["body"]:
                stale.append(f"{readme.relative_to(root)}: {block['name']}")
            return f"{block[1]}{body}{block[4]}"

        new = BLOCK.sub(fresh, text)
        if len(BEGIN.findall(new)) != len(BLOCK.findall(new)):
            raise ValueError(f"{readme}: a table begins that does not end in <!-- /table -->")
        if write and new != text:
            write_text(readme, new)
    return stale


def table(experiments: Path, name: str) -> str:
    """The Markdown of one table."""
    folder, _, what = name.partition("/")
    results = experiments / folder / "results"
    if folder == "bench":
        return benchmark(read(results / f"{what}.json"))
    inner, _, rest = what.partition("/")
    if (results / inner).is_dir():
        results, what = results / inner, rest
    kind, _, detail = what.partition("/")
    makers: dict[str, Callable[[Mapping[str, Record]], Table]] = {
        "matrix": lambda runs: adapters(runs, detail),
        "nats": likelihoods,
        "targets": target_likelihoods,
        "domains": lambda runs: routing_tables.domains(runs, detail),
        "oracle": lambda runs: routing_tables.of_oracle(runs, detail),
        "routing": routing_tables.routing,
        "layers": lambda runs: routing_tables.layers(runs, detail),
        "tokens": routing_tables.readable,
        "routers": routing_tables.routed_likelihoods,
        "answers": routing_tables.answers,
        **{metric: lambda runs, metric=metric: scores(runs, metric) for metric in TITLES},
    }
    if kind not in makers:
        raise ValueError(f"there is no table {name}; known are {folder}/{', '.join(makers)}")
    make = makers[kind]
    if results.name == "tongues":
        return of_runs(results, "tongues", lambda runs: over_seeds(make(runs)))
    return of_runs(results, folder, make)


def read(path: Path) -> Record:
    return json.loads(path.read_text(encoding="utf-8"))


# Experiments


def of_runs(results: Path, experiment: str, make: Callable[[Mapping[str, Record]], Table]) -> str:
    """A table of those runs that count, and the names of those that do not."""
    runs = {path.stem.removeprefix(f"{experiment}_"): read(path) for path in _sorted(results)}
    counted = {n: r for n, r in runs.items() if r["status"] == "done" and not r["scratch"]}
    why: dict[str, list[str]] = {}
    for name in runs.keys() - counted.keys():
        why.setdefault(_why(runs[name]), []).append(name)
    notes = "".join(
        f"\nLeft out: {', '.join(sorted(names))} ({reason}).\n"
        for reason, names in sorted(why.items())
    )
    if not counted:
        return f"\nNo run yet.\n{notes}\n"
    return f"\n{make(counted).markdown()}{notes}\n"


def scores(runs: Mapping[str, Record], metric: str) -> Table:
    """Rows are runs, columns directions; signatures below."""
    tested = {name: record["metrics"].get("test", {}) for name, record in runs.items()}
    found = matrix_table(tested, metric)
    return replace(found, header=(TITLES[metric], *found.header[1:]))


def adapters(runs: Mapping[str, Record], run: str) -> Table:
    """Each adapter of a run in every direction."""
    if "matrix" not in runs.get(run, {}).get("analysis", {}):
        raise ValueError(f"there is no run {run!r} with a matrix; runs are {', '.join(runs)}")
    return matrix_table(runs[run]["analysis"]["matrix"])


def likelihoods(runs: Mapping[str, Record]) -> Table:
    """Rows are runs, with each of their adapters and the stage before; columns languages."""
    rows: dict[str, Mapping[str, float]] = {}
    for name, record in runs.items():
        for adapter, values in record.get("analysis", {}).get("nats_per_token", {}).items():
            rows[name if adapter == "none" else f"{name}, {adapter}"] = values
    return _nats("nats per token", rows)


def target_likelihoods(runs: Mapping[str, Record]) -> Table:
    """Rows are runs, columns directions: nats per target token."""
    rows = {
        name: record.get("analysis", {}).get("nats_per_target") for name, record in runs.items()
    }
    return _nats("nats per target token", {name: row for name, row in rows.items() if row})


def _nats(title: str, rows: Mapping[str, Mapping[str, float]]) -> Table:
    fullest = sorted(rows.values(), key=len, reverse=True)
    columns = list(dict.fromkeys(name for values in fullest for name in values))
    cells = [
        (name, *(f"{v[c]:.3f}" if c in v else "-" for c in columns)) for name, v in rows.items()
    ]
    return Table((title, *columns), tuple(cells))


def over_seeds(table: Table) -> Table:
    """Rows that differ in `_seedN` alone as one: mean and standard deviation of each column."""
    rows: dict[str, list[tuple[str, ...]]] = {}
    for name, *cells in table.rows:
        rows.setdefault(re.sub(r"_seed\d+", "", name), []).append(tuple(cells))
    merged = [
        (name, *(_spread(column) for column in zip(*found, strict=True)))
        for name, found in rows.items()
    ]
    counts = ", ".join(f"{name} {len(found)}" for name, found in rows.items())
    return replace(table, rows=tuple(merged), notes=(*table.notes, f"Seeds: {counts}"))


def _spread(cells: Sequence[str]) -> str:
    """Mean and standard deviation of numbers as they stand in a table, with as many digits."""
    if "-" in cells or len(cells) == 1:
        return cells[0] if len(set(cells)) == 1 else "-"
    digits = len(cells[0].partition(".")[2])
    values = [float(cell) for cell in cells]
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def _sorted(results: Path) -> list[Path]:
    return sorted(results.glob("*.json")) if results.is_dir() else []


def _why(record: Record) -> str:
    return record["status"] if record["status"] != "done" else "from a changed working tree"


# Benchmarks


def benchmark(record: Record) -> str:
    """A line for every variant that ours is compared with; below, where it comes from."""
    lines = tuple(line for row in record["rows"] for line in _compared(row))
    figures = [f"- {_case(r)}: {_figures(r)}\n" for r in record["rows"] if "figures" in r]
    listed = f"\n{''.join(figures)}" if figures else ""
    command = " ".join(record["command"])
    return f"\n{Table(COLUMNS, lines).markdown()}{listed}\n{_origin(record)}\n\n    {command}\n\n"


def _origin(record: Record) -> str:
    environment = record["environment"]
    versions = ", ".join(f"{k} {v}" for k, v in environment["packages"].items() if v)
    commit = (environment["commit"] or "none")[:10] + (
        " (changed working tree)" if record["scratch"] else ""
    )
    difference = max(row["largest_difference"] for row in record["rows"] if "rounds" in row)
    return (
        f"Largest relative difference of the results: {difference:.0e}. {environment['device']}, "
        f"{environment['threads']} threads, float32, load before {record['load_before']}; "
        f"{record['started'][:10]}, {record['seconds']:.0f} s; seed {record['seed']}; commit "
        f"{commit}; {versions}. GPU: {record['gpu']}."
    )


def _compared(row: Record) -> list[tuple[str, ...]]:
    """Lines of the table: one for every variant beside the reference."""
    reference = next((k.removeprefix("over_") for k in row if k.startswith("over_")), None)
    if reference is None:
        return []
    return [
        (
            _case(row),
            variant.replace("_", " "),
            _ratio(ratio["median"]),
            " to ".join(map(_ratio, ratio["quartiles"])),
            _goal(row.get("goals", {}).get(variant), ratio["median"]),
            str(row["rounds"]),
        )
        for variant, ratio in row[f"over_{reference}"].items()
        if variant != reference
    ]


def _case(row: Record) -> str:
    """What was timed: the entries that come before the figures."""
    named = takewhile(lambda item: item[0] not in ("rounds", "figures"), row.items())
    return ", ".join(
        f"{key} {value}" if key not in ("phase", "what") else value for key, value in named
    )


def _figures(row: Record) -> str:
    # A speed of this machine says nothing elsewhere; it stays in the record.
    figures = {k: v for k, v in row["figures"].items() if "per second" not in k}
    return "; ".join(f"{key} {_shown(value)}" for key, value in figures.items())


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(_shown, value))
    return f"{value:,}"


def _goal(goal: Mapping[str, float] | None, value: float) -> str:
    if goal is None:
        return ""
    ((kind, bound),) = goal.items()
    met = value >= bound if kind == "at_least" else value <= bound
    return f"{'≥' if kind == 'at_least' else '≤'} {bound:g} {'met' if met else 'MISSED'}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    main()
