"""Scores of runs on the same lines beside each other, and what differs by more than chance."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig

from polylect.config.roots import ConfigError
from polylect.did_you_mean import check_known
from polylect.eval.inference.verdict import Verdict, sentences, verdicts
from polylect.eval.metrics import TITLES
from polylect.eval.table import Table, diagnosis_table, scores_table
from polylect.programs.report.blocks import Block, Grid, Heading, Missing, Section, Text
from polylect.programs.report.folders import Run
from polylect.programs.report.pictures import drawn_by
from polylect.run.results.comparison import (
    System,
    all_runs,
    compare_systems,
    difference_table,
    read_groups,
    tables_by_metric,
)
from polylect.run.results.headline import headline_metric, uses_of_runs
from polylect.run.results.scored_run import ScoredRun, comparable_directions

MARKS = {"better": "▲", "worse": "▼", "equivalent": "≈"}
UNREADABLE = (ConfigError, FileNotFoundError, ValueError)
"""What keeps one part from being made and is said in its place."""


@dataclass(frozen=True)
class Scored:
    """Systems that were scored, and sentences on the runs that were not.

    Attributes:
        sets: systems by what they translated and how that was scored: only those of one set stand
            in one table.
        names: of runs in tables, by their folder.
    """

    sets: list[list[System]]
    names: Mapping[str, str]
    lacking: list[Missing]


def read_scored(runs: Sequence[Run], groups: Mapping[str, Sequence[str]]) -> Scored:
    """Return the systems of the runs: those of groups, jobs that differ in their seed, single ones.

    Raises:
        ConfigError: a group that cannot be one.
        FileNotFoundError, ValueError: a run of a group that has no scores.
    """
    lacking, scored = [], {}
    for run in runs:
        try:
            read = ScoredRun.read(run.path)
        except UNREADABLE as error:
            lacking.append(Missing(f"{run.name} has no scores: {error}"))
            continue
        if read.directions:
            scored[run.path.resolve()] = read
        elif not read.scores:
            lacking.append(Missing(f"{run.name} has no scores: its scores.json is empty."))
    systems = read_groups(groups) if groups else []
    grouped = {r.path.resolve() for system in systems for r in system.runs}
    families: dict[Any, list[Run]] = {}
    for run in runs:
        if run.path.resolve() in scored and run.path.resolve() not in grouped:
            families.setdefault(run.family or run.path, []).append(run)
    for family, members in families.items():
        systems += _systems_of(family, members, [scored[r.path.resolve()] for r in members])
    names = {str(run.path): run.name for run in runs}
    return Scored(_sets(systems), names, lacking)


def _systems_of(
    family: Any, members: Sequence[Run], scored: Sequence[ScoredRun]
) -> Iterator[System]:
    """Yield the runs as one system over seeds where each has a seed of its own, else one by one."""
    seeds = [run.seed for run in scored]
    if len(scored) > 1 and None not in seeds and len(set(seeds)) == len(seeds):
        settings = " ".join(part for part in family[1:] if part) or "all seeds"
        ordered = sorted(scored, key=lambda run: run.seed or 0)
        yield System(settings, tuple(ordered))
        return
    for run, own in zip(members, scored, strict=True):
        yield System(run.name, (own,))


def _sets(systems: Sequence[System]) -> list[list[System]]:
    sets: list[list[System]] = []
    for system in systems:
        for own in sets:
            if _is_comparable([*all_runs(own), *system.runs]):
                own.append(system)
                break
        else:
            sets.append([system])
    return sets


def _is_comparable(runs: Sequence[ScoredRun]) -> bool:
    """Return whether all translated the same lines and share a metric, each with one signature."""
    try:
        directions = comparable_directions(runs)
    except ConfigError:
        return False
    shared = [m for m in runs[0].metrics if all(m in run.metrics for run in runs)]
    signatures = {
        (metric, direction): {run.scores[direction][metric]["signature"] for run in runs}
        for metric in shared
        for direction in directions
    }
    return bool(shared) and all(len(own) == 1 for own in signatures.values())


def check_metric(scored: Scored, metric: str | None) -> None:
    """Raises ConfigError for a metric that no run was scored with."""
    known = {m for own in scored.sets for run in all_runs(own) for m in run.metrics}
    if metric is not None and known:
        check_known("metric", metric, known, ConfigError)


def scores_section(scored: Scored, runs: Sequence[Run], cfg: DictConfig) -> Section:
    """Return tables of systems with marks of significance, then all scores of each run."""
    section = Section("Scores")
    if not scored.sets:
        section.blocks.append(Missing("No run has scores of translations."))
    for number, systems in enumerate(scored.sets, 1):
        if len(scored.sets) > 1:
            section.blocks += [Heading(f"Set {number}"), Text(_why_apart(systems))]
        section.blocks += _of_set(systems, scored.names, cfg)
    section.blocks += scored.lacking
    for run in runs:
        section.blocks += _of_run(run)
    return section


def _why_apart(systems: Sequence[System]) -> str:
    names = ", ".join(system.name for system in systems)
    return (
        f"{names}: other lines, directions or signatures than in the other sets, with which these "
        "scores do not compare."
    )


def _of_set(
    systems: Sequence[System], names: Mapping[str, str], cfg: DictConfig
) -> Iterator[Block]:
    runs = all_runs(systems)
    uses = uses_of_runs(runs)
    tables = tables_by_metric(systems, uses, [names.get(str(r.path), str(r.path)) for r in runs])
    tested: str | None = None
    found: list[Verdict] = []
    after: list[Block] = []
    if len(systems) > 1:
        try:
            tested = headline_metric({str(r.path): r.metrics for r in runs}, uses, cfg.metric)
            compared = compare_systems(systems, tested, cfg.test, cfg.samples, cfg.packages)
            found = verdicts(compared, margin=cfg.margin, level=cfg.level)
        except UNREADABLE as error:
            after = [Missing(f"No test of significance: {error}")]
        else:
            table = difference_table(systems, compared, found)
            after = [Text(f"{sentence}.") for sentence in sentences(found, systems[0].name)]
            after.append(Grid(f"differences to {systems[0].name}", table))
    for metric, own in tables.items():
        for i, table in enumerate(own):
            caption = TITLES.get(metric, metric) + (" over seeds" if i else "")
            is_marked = metric == tested and i == len(own) - 1
            yield Grid(caption, _marked(table, found, systems[0].name) if is_marked else table)
    yield from after


def _marked(table: Table, found: Sequence[Verdict], baseline: str) -> Table:
    """Return the table with a sign at each score that differs from the baseline's, or is equal."""
    marks = {(v.name, v.direction): MARKS.get(v.word, "") for v in found}
    rows = tuple(
        (name, *(_with_mark(c, marks.get((name, d))) for c, d in zip(cells, header, strict=True)))
        for (name, *cells), header in ((row, table.header[1:]) for row in table.rows)
    )
    legend = (
        f"▲ better and ▼ worse than {baseline} by more than chance (p-values corrected over all "
        "tests), ≈ equivalent within the margin; without a sign it is undecided"
    )
    return replace(table, rows=rows, notes=(*table.notes, legend))


def _with_mark(cell: str, mark: str | None) -> str:
    return f"{cell} {mark}" if mark else cell


def _of_run(run: Run) -> Iterator[Block]:
    """Yield all that a run was scored with, and what was wrong with its translations."""
    metrics = run.record.metrics
    parts = [(part, metrics.get(part)) for part in ("test", "base") if metrics.get(part)]
    if not parts:
        return
    yield Heading(f"All scores of {run.name}")
    for part, scores in parts:
        what = "scores on the test set" if part == "test" else "scores of the untouched base"
        try:
            yield from _tables_of(what, scores)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            yield Missing(f"The {what} of {run.name} cannot be shown: {error}")
    yield from drawn_by(run, ("scores",), title=False)


def _tables_of(what: str, scores: Mapping[str, Mapping[str, Any]]) -> Iterator[Block]:
    translated = {d: row for d, row in scores.items() if "sentences" in row}
    if translated:
        yield Grid(what, scores_table(translated))
        diagnoses = {d: row["diagnosis"] for d, row in translated.items() if "diagnosis" in row}
        if diagnoses:
            yield Grid(f"{what}: what can be wrong with translations", diagnosis_table(diagnoses))
    texts = {d: row["nats_per_token"] for d, row in scores.items() if "nats_per_token" in row}
    if texts:
        rows = tuple((d, f"{value:.4f}") for d, value in texts.items())
        yield Grid(f"{what}: likelihood of text", Table(("language", "nats per token"), rows))
