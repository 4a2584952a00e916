"""Comparisons of systems of which there are several runs, which differ in their seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from polylect.eval.inference.estimate import Estimate, difference_over_seeds, over_seeds, with_lines
from polylect.eval.inference.resampling import resampled_scores
from polylect.eval.metrics import TITLES, reference_streams, sacrebleu_metric
from polylect.eval.significance import Comparison, attainable, check_lengths, corrected
from polylect.eval.table import Results, Table, matrix_table

Runs = Sequence[Sequence[str]]
"""The translations of each run of a system, a line for each source."""


@dataclass(frozen=True)
class SeedOutputs:
    """What the runs of a baseline and of other systems made of the same sources in a direction.

    Attributes:
        paired: the systems whose runs have the seeds of the baseline's, in their order: each
            pair began alike, so what seeds do is taken from the differences of pairs.
    """

    baseline: Runs
    systems: Mapping[str, Runs]
    references: Sequence[Sequence[str]]
    paired: frozenset[str] = frozenset()


def compare_seeds(outputs: Mapping[str, SeedOutputs], *, metric: str) -> list[Comparison]:
    """Tests in every direction whether the mean of each system's runs differs from the baseline's.

    The error of a difference of means has two parts, added as variances: over seeds, by what the
    runs differ (paired, or Welch's), and over lines, by bootstrap resampling of lines that are the
    same for all runs. The test is Student's t; p-values are corrected by Holm's method over
    directions and systems.

    Args:
        outputs: by direction, such as ``"en-de"``.
        metric: a metric that `polylect.eval.metrics.score` knows.

    Raises:
        ValueError: an unknown metric, or outputs of unequal lengths.
    """
    return corrected(
        [
            _compare(direction, name, own, metric)
            for direction, own in outputs.items()
            for name in own.systems
        ]
    )


def _compare(direction: str, name: str, outputs: SeedOutputs, metric: str) -> Comparison:
    """Return one comparison, whose p-value is not corrected yet."""
    first, runs = outputs.baseline[0], outputs.systems[name]
    streams = reference_streams(first, outputs.references)
    for lines in (*outputs.baseline, *runs):
        check_lengths(direction, name, len(lines), len(first))
    scorer = sacrebleu_metric(metric, direction.split("-")[-1])
    everything = [*outputs.baseline, *runs]
    scores = [float(scorer.corpus_score(list(lines), streams).score) for lines in everything]
    baseline, system = scores[: len(outputs.baseline)], scores[len(outputs.baseline) :]
    resampled = resampled_scores(scorer, everything, streams)
    of_baseline, of_system = np.split(resampled, [len(baseline)])
    line_error = float((of_system.mean(0) - of_baseline.mean(0)).std(ddof=1))
    paired = name in outputs.paired
    seeds = difference_over_seeds(system, baseline, paired=paired)
    means = [sum(values) / len(values) for values in (baseline, system)]
    estimate: Estimate = with_lines(seeds, means[1] - means[0], line_error)
    p = attainable(estimate.p_difference(), everything)
    design = "paired" if paired else "unpaired"
    return Comparison(
        direction=direction,
        name=name,
        metric=metric,
        baseline=means[0],
        system=means[1],
        p=p,
        p_holm=p,
        signature=f"{scorer.get_signature().format()}|t:{design}",
        interval=estimate.interval(),
        estimate=estimate,
        runs=(len(baseline), len(system)),
    )


def seeds_table(systems: Mapping[str, Sequence[Mapping[str, Results]]], metric: str) -> Table:
    """Return systems by directions: mean over the runs, and its 95 % interval over seeds.

    Args:
        systems: for each run of each system the scores of each direction, as `scores.json` has
            them, all with the same directions.

    Raises:
        ValueError: several signatures in one column, or no such scores.
    """
    flat = {f"{name} {i}": run for name, runs in systems.items() for i, run in enumerate(runs, 1)}
    checked = matrix_table(flat, metric, title="system")
    rows = []
    for name, runs in systems.items():
        columns = [
            [float(run[direction][metric]["value"]) for run in runs]
            for direction in checked.header[1:]
        ]
        rows.append((name, *map(_mean_and_interval, columns)))
    counts = ", ".join(f"{name} {len(runs)}" for name, runs in systems.items())
    title = TITLES.get(metric, metric)
    notes = (*checked.notes, f"{title}: mean and 95 % interval over seeds; runs: {counts}")
    return replace(checked, rows=tuple(rows), notes=notes)


def _mean_and_interval(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f}"
    estimate = over_seeds(values)
    low, high = estimate.interval()
    return f"{estimate.value:.1f} [{low:.1f}, {high:.1f}]"
