"""Tables of runs: scores, what each adapter does in every direction, likelihoods, seeds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev

from records import Record

from polylect.eval.metrics import TITLES
from polylect.eval.table import Table, matrix_table


def scores(runs: Mapping[str, Record], metric: str) -> Table:
    """Rows are runs that were scored, columns directions; signatures below."""
    tests = {name: record["metrics"].get("test") for name, record in runs.items()}
    results = {name: test for name, test in tests.items() if test}
    table = matrix_table(results, metric)
    return replace(table, header=(TITLES[metric], *table.header[1:]))


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


def characters(runs: Mapping[str, Record]) -> Table:
    """Rows are runs after training, and their bases before; columns languages."""
    rows: dict[str, Mapping[str, float]] = {}
    for name, record in runs.items():
        analysis = record.get("analysis", {})
        before = analysis.get("before", {}).get("nats_per_character")
        if before and before not in rows.values():  # runs on one base have the same
            rows[f"{name}, before"] = before
        for adapter, values in analysis.get("nats_per_character", {}).items():
            rows[name if adapter == "none" else f"{name}, {adapter}"] = values
    return _nats("nats per character", rows)


def together(runs: Mapping[str, Record]) -> Table:
    """Rows are a run's directions: trained with others, and alone on as many tokens."""
    header = ("chrF++", "together", "alone", "difference (95 %)", "p (Holm)", "tokens of each")
    cells, signatures = [], set()
    for name, record in runs.items():
        for direction, row in record.get("analysis", {}).get("alone", {}).items():
            values, tokens = row["chrf++"], row["target_tokens"]
            low, high = row["interval"]
            cells.append(
                (
                    f"{name}, {direction}",
                    f"{values['together']:.1f}",
                    f"{values['alone']:.1f}",
                    f"{row['difference']:+.1f} ({low:+.1f} to {high:+.1f})",
                    f"{row['p_holm']:.3f}",
                    f"{tokens['together']:,} / {tokens['alone']:,}",
                )
            )
            signatures.add(row["signature"])
    return Table(header, tuple(cells), tuple(sorted(signatures)))


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
        (name, *(_spread(column) for column in zip(*seeds, strict=True)))
        for name, seeds in rows.items()
    ]
    counts = ", ".join(f"{name} {len(seeds)}" for name, seeds in rows.items())
    return replace(table, rows=tuple(merged), notes=(*table.notes, f"Seeds: {counts}"))


def _spread(cells: Sequence[str]) -> str:
    """Mean and standard deviation of numbers as they stand in a table, with as many digits."""
    if "-" in cells or len(cells) == 1:
        return cells[0] if len(set(cells)) == 1 else "-"
    digits = len(cells[0].partition(".")[2])
    values = [float(cell) for cell in cells]
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def steps(runs: Mapping[str, Record]) -> Table:
    """Rows are starts of a new direction: steps to each chrF++, a number for each seed."""
    rows, goals = [], []
    for name, record in runs.items():
        metrics = record["metrics"]
        goals = list(metrics["steps"])
        for start, by_seed in metrics["chrf++"].items():
            nearness = metrics["similarities"].get(start)
            cells = [_seeds(metrics["steps"][goal][start]) for goal in goals]
            last = [list(curve.values())[-1] for curve in by_seed.values()]
            end = f"{mean(last):.1f}" + (f" ± {stdev(last):.1f}" if len(last) > 1 else "")
            near = "" if nearness is None else f"{nearness:.4f}"
            rows.append((f"{name}, {start}", near, *cells, end))
    header = ("start", "nearness", *(f"steps to {goal}" for goal in goals), "chrF++ at the end")
    return Table(header, tuple(rows))


def _seeds(values: Sequence[int | None]) -> str:
    return ", ".join("-" if value is None else str(value) for value in values)
