"""Tables of benchmarks: ours against every other variant, and where the figures come from."""

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from records import Record

from polylect.eval.table import Table

COLUMNS = ("case", "against", "its time / ours", "quartiles", "goal", "rounds")


def benchmark(record: Record) -> str:
    """A line for every variant that ours is compared with; below, where it comes from."""
    lines = tuple(line for row in record["rows"] for line in _comparison_lines(row))
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


def _comparison_lines(row: Record) -> list[tuple[str, ...]]:
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
    return "; ".join(f"{key} {_figure_text(value)}" for key, value in figures.items())


def _figure_text(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(map(_figure_text, value))
    return f"{value:,}"


def _goal(goal: Mapping[str, float] | None, value: float) -> str:
    if goal is None:
        return ""
    ((kind, bound),) = goal.items()
    met = value >= bound if kind == "at_least" else value <= bound
    return f"{'≥' if kind == 'at_least' else '≤'} {bound:g} {'met' if met else 'MISSED'}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"
