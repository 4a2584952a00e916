"""Matrices of a report, and the ledgers of what directions do to each other."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence

from polylect.eval.table import Table
from polylect.plots.interference import ALL, read_cosines
from polylect.programs.report.blocks import Block, Grid, Missing, Section, Text
from polylect.programs.report.folders import Run
from polylect.programs.report.pictures import drawn_by
from polylect.run.interference.history import FOLDER as LEDGER
from polylect.run.results.matrices import read_matrices


def matrices_section(runs: Sequence[Run]) -> Section:
    """Return the matrices that runs have left: of scores, losses and adapters that were chosen."""
    section, lacking = Section("Matrices"), []
    for run in runs:
        own = _guarded(run, _matrices)
        section.blocks += own
        lacking += [] if own else [run.name]
    if lacking:
        why = (
            "scores by language come from several source and several target languages, cosines of "
            "gradients from callbacks=ledger, adapters by direction from lora_switch with several "
            "adapters, tokens by adapter from polylect evaluate of lag."
        )
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


def _matrices(run: Run) -> Iterator[Block]:
    for own in read_matrices(run.path, run.record.metrics):
        caption = f"{run.name}: {own.caption}"
        low, high = own.ends or (None, None)
        yield matrix(caption, own.title, own.columns, own.rows, low=low, high=high)


def _ledger(run: Run) -> Iterator[Block]:
    pairs = {pair: points for pair, points in read_cosines(run.path)[ALL].items() if points}
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
    return matrix(caption, title, columns, rows)


def matrix(
    caption: str,
    title: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[float | None]],
    *,
    digits: int = 2,
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
