"""The runs of which folders hold results: of single runs, of sweeps and of recipes."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from polylect.config.roots import SCHEMAS, ConfigError
from polylect.eval.table import Table
from polylect.files import folders_meant
from polylect.programs.report.blocks import Block, Code, Grid, Heading, Missing
from polylect.run.record import Record
from polylect.run.results.scored_run import path_ends
from polylect.run.sweep.folder import FILE
from polylect.run.sweep.job import last_lines
from polylect.run.sweep.ledger import LEDGER, Attempt, read_jobs, unfinished

_TIME = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?")  # the name of a run folder


@dataclass(frozen=True)
class Run:
    """A run that the report is on.

    Attributes:
        name: by which tables call it.
        family: what makes it one of the runs of a system: its sweep and its settings but the seed;
            None for a run by itself.
    """

    path: Path
    name: str
    record: Record
    family: tuple[str, ...] | None = None

    @property
    def program(self) -> str:
        """The program that made it, as "train": the one that has the settings of its record."""
        settings = set(self.record.config)
        return min(
            SCHEMAS, key=lambda name: len(settings ^ {f.name for f in fields(SCHEMAS[name])})
        )


@dataclass(frozen=True)
class Found:
    """Runs in the order of the folders, and what sweeps and recipes tell of their jobs."""

    runs: list[Run]
    history: list[Block]


def read_folders(folders: Sequence[str]) -> Found:
    """Return the runs that folders of runs, sweeps and recipes hold, each once.

    Raises:
        ConfigError: a folder is none of these, or none of them holds a run.
        ValueError: a record or ledger that cannot be read.
    """
    families: dict[Path, tuple[str, ...] | None] = {}
    seen: set[Path] = set()
    history: list[Block] = []
    for folder in folders:
        for path, family in _runs_in(Path(folder), history):
            if path.resolve() not in seen:
                families[path] = family
            seen.add(path.resolve())
    if not families:
        raise ConfigError(
            f"no run in {' and '.join(folders)} has a record yet: wait for one, or see what has "
            "failed with polylect sweep status FOLDER."
        )
    names = run_names(list(families))
    runs = [
        Run(path, name, Record.read(path), family)
        for name, (path, family) in zip(names, families.items(), strict=True)
    ]
    return Found(runs, history)


def run_names(paths: Sequence[Path]) -> list[str]:
    """Return the end of each path that tells it from the others; or of NAME/TIME the name."""
    parents = [path.resolve().parent.name for path in paths]
    names = []
    for end, parent in zip(path_ends(paths), parents, strict=True):
        is_time = _TIME.fullmatch(end) is not None
        alone = parents.count(parent) == 1
        names.append(parent if is_time and alone else f"{parent}/{end}" if is_time else end)
    return names if len(set(names)) == len(names) else path_ends(paths)


def _runs_in(folder: Path, history: list[Block]) -> Iterator[tuple[Path, tuple[str, ...] | None]]:
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder: give those of runs, sweeps or recipes.")
    if (folder / FILE).is_file():
        yield from _of_sweep(folder, history)
    elif (folder / LEDGER).is_file():
        yield from _of_recipe(folder, history)
    elif (folder / "record.json").is_file():
        yield folder, None
    else:
        raise ConfigError(
            f"{folder} is no folder of a run, a sweep or a recipe, with record.json or {LEDGER}"
            + folders_meant(folder, FILE, LEDGER, "record.json")
        )


def _of_sweep(folder: Path, history: list[Block]) -> Iterator[tuple[Path, tuple[str, ...] | None]]:
    try:
        jobs = read_jobs(folder)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{folder / LEDGER} is no ledger of a sweep: {error}.") from error
    history += [Heading(f"Sweep {folder}"), Grid("jobs of the sweep", _jobs_table(jobs))]
    history += [Code(f"last lines of {job.log}", _tail(job)) for job in unfinished(jobs)]
    for job in jobs:
        path = _found(job.folder, folder)
        if path is None or not _holds_run(path):
            history.append(
                Missing(f"Job {job.job} ({job.status}) has left no run in {job.folder}.")
            )
            continue
        settings = [o for o in job.overrides if not o.startswith("seed=")]
        for run, _ in _runs_in(path, history):
            of_stage = run.name if run != path else ""
            yield run, (str(folder), *settings, of_stage)


def _tail(job: Attempt) -> str:
    return "\n".join(last_lines(job)) if Path(job.log).is_file() else "The log is gone."


def _jobs_table(jobs: Sequence[Attempt]) -> Table:
    rows = [
        (
            str(job.job),
            job.status,
            " ".join(job.overrides) or "-",
            "-" if job.objective is None else f"{job.objective:.2f}",
            "-" if job.seconds is None else f"{job.seconds:,.0f}",
            "-" if job.resumed is None else job.resumed,
        )
        for job in jobs
    ]
    counts = [f"{sum(j.status == s for j in jobs)} {s}" for s in sorted({j.status for j in jobs})]
    header = ("job", "status", "settings", "objective", "seconds", "went on from")
    return Table(header, tuple(rows), (f"{len(jobs)} jobs: {', '.join(counts) or 'none'}",))


def _of_recipe(folder: Path, history: list[Block]) -> Iterator[tuple[Path, tuple[str, ...] | None]]:
    lines = _ledger_lines(folder / LEDGER)
    rows = tuple(
        (
            str(line["stage"]),
            str(line["exit"]),
            f"{float(line['seconds']):,.0f}",
            str(line["folder"]),
            " ".join(line["overrides"]),
        )
        for line in lines
    )
    table = Table(("stage", "exit", "seconds", "folder", "settings"), rows)
    history += [Heading(f"Recipe {folder}"), Grid("stages of the recipe, as they ended", table)]
    for line in lines:
        path = _found(line["folder"], folder)
        if path is not None and _holds_run(path):
            yield path, None
        else:
            history.append(
                Missing(f"Stage {line['stage']} has left no record of a run in {line['folder']}.")
            )


def _ledger_lines(path: Path) -> list[Mapping[str, Any]]:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            float(line["seconds"]), line["stage"], line["exit"], line["folder"], line["overrides"]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no ledger of a recipe: {error!r}.") from error
    return lines


def _found(stored: str, parent: Path) -> Path | None:
    """Return the folder of a job, also where the sweep was moved; None if it is gone."""
    for path in (Path(stored), parent / Path(stored).name):
        if path.is_dir():
            return path
    return None


def _holds_run(path: Path) -> bool:
    return any((path / name).is_file() for name in (FILE, LEDGER, "record.json"))
