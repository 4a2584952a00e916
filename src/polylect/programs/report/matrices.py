"""Matrices of a report: adapter by direction, gradient cosines, and shares of routed tokens."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from polylect.eval.table import Table
from polylect.files import read_json
from polylect.plots.interference import ALL, read_cosines
from polylect.programs.report.blocks import Block, Grid, Missing, Section, Text
from polylect.programs.report.folders import Run
from polylect.programs.report.pictures import drawn_by
from polylect.run.interference.history import FOLDER as LEDGER

Cells = Sequence[Sequence[float | None]]


def matrices_section(runs: Sequence[Run]) -> Section:
    """Return the matrices that runs have left: of losses and of adapters that were chosen."""
    section, lacking = Section("Matrices"), []
    for run in runs:
        own = [*_guarded(run, _transfer), *_guarded(run, _routed)]
        section.blocks += own
        lacking += [] if own else [run.name]
    if lacking:
        why = "adapters by direction are measured by lora_switch with several adapters, adapters"
        why += " that were chosen by polylect evaluate of lag."
        section.blocks.append(Missing(f"No matrices of {', '.join(lacking)}: {why}"))
    return section


def ledger_section(runs: Sequence[Run]) -> Section:
    """Return what the ledgers say of the directions' gradients, over the steps."""
    section, lacking = Section("What directions do to each other"), []
    for run in runs:
        if (run.path / LEDGER / "cosines.csv").is_file():
            section.blocks += _guarded(run, _ledger)
        elif run.program == "train":
            lacking.append(run.name)
    if lacking:
        names = ", ".join(lacking)
        section.blocks.append(Missing(f"No ledger of {names}: train with callbacks=ledger."))
    if not section.blocks:
        section.blocks.append(Text("None of the runs has trained, so none has kept a ledger."))
    return section


def _guarded(run: Run, make: Callable[[Run], Iterator[Block]]) -> list[Block]:
    """Return blocks made of a run's files, or a sentence if these are damaged."""
    try:
        return list(make(run))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        return [Missing(f"A file of {run.name} cannot be shown: {error!r}")]


def _transfer(run: Run) -> Iterator[Block]:
    path = run.path / "transfer.json"
    if not path.is_file():
        return
    measured = read_json(path, "losses of adapters")
    rows = {"no adapter": measured["base"]} if measured.get("base") else {}
    rows |= dict(zip(measured["adapters"], measured["loss"], strict=True))
    caption = f"{run.name}: loss of each direction with each adapter, nats per target token"
    yield matrix(caption, "adapter", measured["directions"], rows, digits=2)


def _routed(run: Run) -> Iterator[Block]:
    """Yield which adapters tokens were given, in the mean over layers, by library and side."""
    counted = (run.record.metrics.get("routing") or {}).get("rows") or []
    kinds = dict.fromkeys((row["library"], row["side"]) for row in counted)
    for library, side in kinds:
        own = [row for row in counted if (row["library"], row["side"]) == (library, side)]
        adapters = sorted({name for row in own for name in row["shares"]})
        rows = {
            direction: _mean_shares([r for r in own if r["direction"] == direction], adapters)
            for direction in dict.fromkeys(row["direction"] for row in own)
        }
        caption = f"{run.name}: % of {side} tokens by adapter, mean over layers ({library})"
        yield matrix(caption, "direction", adapters, rows, digits=1)


def _mean_shares(rows: Sequence[Mapping[str, Any]], adapters: Sequence[str]) -> list[float]:
    return [100 * sum(row["shares"].get(a, 0.0) for row in rows) / len(rows) for a in adapters]


def _ledger(run: Run) -> Iterator[Block]:
    pairs = {pair: points for pair, points in read_cosines(run.path)[ALL].items() if points}
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    means = {pair: sum(v for _, v in points) / len(points) for pair, points in pairs.items()}
    cosines = {
        one: [1.0 if one == other else means.get((one, other), means.get((other, one)))
              for other in names]
        for one in names
    }  # fmt: skip
    caption = f"{run.name}: cosine of the directions' gradients, all layers, mean over the steps"
    yield matrix(caption, "direction", names, cosines, digits=2, low=-1.0, high=1.0)
    steps = {" / ".join(pair): points for pair, points in pairs.items()}
    yield _history(f"{run.name}: cosines over the training", "pair", steps)
    yield _history(
        f"{run.name}: share of each direction's update that the others take back",
        "direction", _cancelled(run),
    )  # fmt: skip
    yield from drawn_by(run, ("interference",), title=False)


def _cancelled(run: Run) -> dict[str, list[tuple[int, float]]]:
    lines: dict[str, list[tuple[int, float]]] = {}
    path = run.path / LEDGER / "updates.csv"
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["layer"] == ALL and row["cancelled"]:
                points = lines.setdefault(row["direction"], [])
                points.append((int(row["step"]), float(row["cancelled"])))
    return lines


def _history(caption: str, title: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> Grid:
    """Return values at the first and last step, at three between them, and their mean."""
    steps = sorted({step for points in lines.values() for step, _ in points})
    shown = sorted({steps[i * (len(steps) - 1) // 4] for i in range(5)}) if steps else []
    rows = {}
    for name, points in lines.items():
        at, values = dict(points), [value for _, value in points]
        rows[name] = [*(at.get(step) for step in shown), sum(values) / len(values)]
    columns = [*(f"step {step}" for step in shown), "mean"]
    return matrix(caption, title, columns, rows, digits=2)


def matrix(
    caption: str,
    title: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[float | None]],
    *,
    digits: int,
    low: float | None = None,
    high: float | None = None,
) -> Grid:
    """Return a table of numbers in which larger ones are darker.

    Args:
        title: of the column of names.
        digits: behind the point.
        low, high: what has no colour and what has most; None for the ends of the values.
    """
    values = [value for row in rows.values() for value in row if value is not None]
    low = min(values, default=0.0) if low is None else low
    high = max(values, default=0.0) if high is None else high
    width = (high - low) or 1.0
    cells = tuple(
        (name, *("-" if v is None else f"{v:.{digits}f}" for v in row))
        for name, row in rows.items()
    )
    shades = [[None if v is None else (v - low) / width for v in row] for row in rows.values()]
    return Grid(caption, Table((title, *columns), cells), shades)
