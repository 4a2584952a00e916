"""Systems beside each other: what they scored on the same lines, and whether that is by chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from polylect.config.roots import ConfigError
from polylect.eval.inference.seeds import SeedOutputs, compare_seeds, seeds_table
from polylect.eval.inference.verdict import Verdict
from polylect.eval.metrics import TITLES
from polylect.eval.significance import Comparison, Outputs, compare
from polylect.eval.table import Table, comparison_table, matrix_table
from polylect.plots.figures import Figure
from polylect.plots.forest import Row, forest
from polylect.run.results.headline import Uses
from polylect.run.results.scored_run import (
    ScoredRun,
    check_outputs,
    comparable_directions,
    names_of,
    pairs_of,
    references_of,
)


@dataclass(frozen=True)
class System:
    """Scored runs of one system, which differ in their seed; mostly there is one."""

    name: str
    runs: tuple[ScoredRun, ...]

    @property
    def seeds(self) -> list[int | None]:
        """The seed of each run's training."""
        return [run.seed for run in self.runs]


def systems_of(runs: Sequence[ScoredRun]) -> list[System]:
    """Return a system for each run, named by the end of its path."""
    return [System(name, (run,)) for name, run in zip(names_of(runs), runs, strict=True)]


def read_groups(groups: Mapping[str, Sequence[str]]) -> list[System]:
    """Return the systems whose runs are given by name, each with its runs in the order of seeds.

    Raises:
        ConfigError: a group without runs or with one seed twice, or a run that is in two groups.
        FileNotFoundError, ValueError: a run that has no scores.
    """
    systems = [_read_group(name, paths) for name, paths in groups.items()]
    names_of(all_runs(systems))  # which refuses a run that is given twice
    return systems


def _read_group(name: str, paths: Sequence[str]) -> System:
    if not paths:
        raise ConfigError(f"groups.{name} has no runs: give their folders, as in [RUN, RUN].")
    runs = [ScoredRun.read(path) for path in paths]
    seeds = [run.seed for run in runs if run.seed is not None]
    twice = [seed for seed in seeds if seeds.count(seed) > 1]
    if twice:
        raise ConfigError(
            f"groups.{name} has the seed {twice[0]} twice: the runs of a system differ in their "
            "seed, else they say nothing of what seeds do."
        )
    if len(seeds) == len(runs):
        runs.sort(key=lambda run: run.seed or 0)
    return System(name, tuple(runs))


def all_runs(systems: Sequence[System]) -> list[ScoredRun]:
    """Return the runs of all systems, the baseline's first."""
    return [run for system in systems for run in system.runs]


def compare_systems(
    systems: Sequence[System],
    metric: str,
    test: Literal["bootstrap", "randomization", "both"] = "bootstrap",
    samples: int = 1000,
    packages: Sequence[str] = (),
) -> list[Comparison]:
    """Tests each system against the first one, in every direction that all of them translated.

    Where each has one run the test is a paired one over lines, else Student's t over seeds and
    lines. Raises ConfigError, FileNotFoundError or ValueError where that cannot be done, as with
    translations that are not those that were scored.
    """
    runs = all_runs(systems)
    baseline, *others = systems
    directions = comparable_directions(runs)
    pairs = pairs_of(runs, directions, packages)
    references = {direction: references_of(pairs[direction]) for direction in directions}
    for run in runs:
        for direction in directions:
            check_outputs(run, direction, references[direction], metric)
    if len(runs) == len(systems):
        outputs = {
            direction: Outputs(
                baseline.runs[0].hypotheses(direction),
                {system.name: system.runs[0].hypotheses(direction) for system in others},
                references[direction],
            )
            for direction in directions
        }
        return compare(outputs, metric=metric, test=test, samples=samples)
    paired = frozenset(s.name for s in others if is_paired(s, baseline))
    of_runs = {
        direction: SeedOutputs(
            [run.hypotheses(direction) for run in baseline.runs],
            {s.name: [run.hypotheses(direction) for run in s.runs] for s in others},
            references[direction],
            paired,
        )
        for direction in directions
    }
    return compare_seeds(of_runs, metric=metric)


def is_paired(system: System, baseline: System) -> bool:
    """Return whether the runs of two systems have the same seeds."""
    seeds = system.seeds
    return len(seeds) > 1 and None not in seeds and seeds == baseline.seeds


def score_tables(systems: Sequence[System], uses: Uses) -> list[Table]:
    """Return the tables of all metrics, those of `tables_by_metric`, in one list."""
    by_metric = tables_by_metric(systems, uses, _row_names(systems))
    return [table for tables in by_metric.values() for table in tables]


def tables_by_metric(
    systems: Sequence[System], uses: Uses, names: Sequence[str] | None = None
) -> dict[str, list[Table]]:
    """Return a table of runs by directions for each metric that all scored.

    Of several runs of a system another one follows, with means and intervals over seeds. What a
    metric was used for, which makes it no evidence, stands below its table.

    Args:
        names: of the runs, in the order of `all_runs`; None for the ends of their paths.

    Raises ValueError where signatures differ, which makes scores incomparable.
    """
    runs = all_runs(systems)
    directions = comparable_directions(runs)
    results = {
        name: {direction: run.scores[direction] for direction in directions}
        for name, run in zip(names or names_of(runs), runs, strict=True)
    }
    by_system = {s.name: [{d: r.scores[d] for d in directions} for r in s.runs] for s in systems}
    shared = [m for m in runs[0].metrics if all(m in run.metrics for run in runs)]
    tables = {}
    for metric in shared:
        made = [matrix_table(results, metric, title="run", mean=True)]
        if len(runs) > len(systems):
            made.append(seeds_table(by_system, metric))
        notes = tuple(uses.get(metric, ()))
        tables[metric] = [replace(table, notes=(*table.notes, *notes)) for table in made]
    return tables


def _row_names(systems: Sequence[System]) -> list[str]:
    """Return a name for each run: its system's, with the seed where the system has several."""
    ends = iter(names_of(all_runs(systems)))
    names = []
    for system in systems:
        for run, end in zip(system.runs, ends, strict=False):
            which = end if run.seed is None else f"seed {run.seed}"
            names.append(system.name if len(system.runs) == 1 else f"{system.name}, {which}")
    return names


def difference_table(
    systems: Sequence[System], comparisons: Sequence[Comparison], verdicts: Sequence[Verdict]
) -> Table:
    """Return the table of differences to the first system, with what they prove."""
    note = f"baseline: {systems[0].name}"
    margin = verdicts[0].margin if verdicts else None
    if margin is not None:
        note += f"; equivalent: within {margin:g}"
    return comparison_table(comparisons, verdicts, note=note)


def difference_figure(
    systems: Sequence[System], comparisons: Sequence[Comparison], verdicts: Sequence[Verdict]
) -> Figure:
    """Return the picture of the same: an interval for each system, a panel for each direction."""
    panels: dict[str, list[Row]] = {}
    for c, verdict in zip(comparisons, verdicts, strict=True):
        margin = None if verdict.margin is None else (-verdict.margin, verdict.margin)
        row = Row(c.name, c.difference, *c.interval, margin, verdict.word)
        unit = f"{c.direction}: {TITLES.get(c.metric, c.metric)} above that of {systems[0].name}"
        panels.setdefault(unit, []).append(row)
    return forest(panels, "differences that do not matter")


def as_json(
    systems: Sequence[System], comparisons: Sequence[Comparison], verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Return all that the tables say, unrounded."""
    runs = all_runs(systems)
    pairs = zip(names_of(runs), runs, strict=True)
    return {
        "runs": {name: {"path": str(run.path), "scores": run.scores} for name, run in pairs},
        "systems": {s.name: [str(Path(run.path)) for run in s.runs] for s in systems},
        "comparisons": [_comparison_json(c) for c in comparisons],
        "verdicts": [asdict(v) | {"text": v.text()} for v in verdicts],
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return all of a comparison; degrees of freedom without end, which JSON lacks, are null."""
    freedom = comparison.estimate.freedom
    estimate = asdict(comparison.estimate) | {
        "freedom": freedom if math.isfinite(freedom) else None
    }
    return asdict(comparison) | {"difference": comparison.difference, "estimate": estimate}
