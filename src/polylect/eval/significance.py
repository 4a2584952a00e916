"""Paired significance tests of systems against a baseline in several directions, Holm-corrected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from polylect.eval.inference.estimate import Estimate
from polylect.eval.inference.resampling import resampled_scores
from polylect.eval.metrics import reference_streams, sacrebleu_metric

_KINDS = {"bootstrap": ("bs",), "randomization": ("ar",), "both": ("bs", "ar")}


@dataclass(frozen=True)
class Outputs:
    """What the baseline and other systems, by name, made of the same sources in one direction."""

    baseline: Sequence[str]
    systems: Mapping[str, Sequence[str]]
    references: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Comparison:
    """A system and the baseline in one direction.

    Attributes:
        name: of the system.
        baseline, system: their scores; of several runs the means.
        p: p-value of the difference by itself.
        p_holm: p-value corrected for the number of tests made together, over directions and
            systems.
        signature: sacreBLEU's, with the test, its sample size and its seed.
        interval: of the difference, 95 %; of two runs by paired bootstrap resampling, whatever
            the test.
        estimate: the difference with its standard error over lines and, of several runs, seeds.
        runs: how many of the baseline and of the system.
    """

    direction: str
    name: str
    metric: str
    baseline: float
    system: float
    p: float
    p_holm: float
    signature: str
    interval: tuple[float, float]
    estimate: Estimate
    runs: tuple[int, int] = (1, 1)

    @property
    def difference(self) -> float:
        """The system's score less the baseline's."""
        return self.system - self.baseline


def compare(
    outputs: Mapping[str, Outputs],
    *,
    metric: str = "chrf++",
    test: Literal["bootstrap", "randomization", "both"] = "bootstrap",
    samples: int = 1000,
) -> list[Comparison]:
    """Tests in every direction whether each system differs from the baseline.

    Paired bootstrap resampling (Koehn 2004) or paired approximate randomisation (Riezler and
    Maxwell 2005), both as sacreBLEU does them, two-sided, but for few lines (`attainable`); the
    seed is its SACREBLEU_SEED, 12345 by default. p-values are corrected over directions and systems
    by Holm's method.

    Args:
        outputs: by direction, such as ``"en-de"``.
        metric: a metric that `polylect.eval.metrics.score` knows.
        test: "both" takes the larger of the two p-values.
        samples: resamples or trials; the smallest possible p-value is 1 / (samples + 1).

    Raises:
        ValueError: an unknown metric or test, no samples, or outputs of unequal lengths.
    """
    if test not in _KINDS:
        raise ValueError(f"unknown test {test!r}; known are {', '.join(_KINDS)}")
    if samples < 1:
        raise ValueError(f"a {test} test needs samples of at least 1 and got {samples}")
    return corrected(
        [
            _paired_test(direction, name, own, metric, test, samples)
            for direction, own in outputs.items()
            for name in own.systems
        ]
    )


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with their p-values corrected together."""
    p_values = holm([comparison.p for comparison in comparisons])
    return [replace(c, p_holm=p) for c, p in zip(comparisons, p_values, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values after Holm's step-down correction (Holm 1979), in their order.

    The k-th smallest of n p-values is multiplied by n - k + 1; none is smaller than the one before
    it, and none is larger than 1.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def attainable(p: float, runs: Sequence[Sequence[str]]) -> float:
    """Return a p-value, or the smallest that the lines admit on which the runs differ.

    k such lines can be given to the two sides in 2 ** k ways, each as likely where the sides are
    alike, of which at least two are as far apart as what was seen. Resampling counts none of them,
    and would find a difference in a single line significant.
    """
    differing = sum(len(set(outputs)) > 1 for outputs in zip(*runs, strict=True))
    return max(p, min(1.0, 2.0 ** (1 - differing)))


def check_lengths(direction: str, name: str, lines: int, expected: int) -> None:
    """Raises ValueError where a system did not translate as many lines as the baseline, or one."""
    if lines != expected:
        raise ValueError(
            f"in {direction} the baseline has {expected} outputs and {name} "
            f"{lines}; a paired test needs both to translate the same lines"
        )
    if lines == 1:
        raise ValueError(
            f"in {direction} there is one line, which tells nothing of others: a difference is "
            "tested on several, score the systems on more"
        )


def _paired_test(
    direction: str, name: str, outputs: Outputs, metric: str, test: str, samples: int
) -> Comparison:
    """Return the result of one test, whose p-value is not corrected yet."""
    from sacrebleu.significance import PairedTest

    lines = outputs.systems[name]
    streams = reference_streams(outputs.baseline, outputs.references)
    check_lengths(direction, name, len(lines), len(outputs.baseline))
    scorer = sacrebleu_metric(metric, direction.split("-")[-1])
    named = [("baseline", list(outputs.baseline)), ("system", list(lines))]
    tests = [
        PairedTest(named, {metric: scorer}, streams, kind, n_samples=samples)()
        for kind in _KINDS[test]
    ]
    scores = [
        next(value for key, value in by_name.items() if key != "System") for _, by_name in tests
    ]
    signatures = [signature.format() for by_name, _ in tests for signature in by_name.values()]
    baseline, system = (result.score for result in scores[0])
    # sacreBLEU gives a system against itself its smallest p-value; no difference is no evidence.
    p = 1.0 if baseline == system else max(float(result.p_value) for _, result in scores)
    p = attainable(p, [outputs.baseline, lines])
    resampled = resampled_scores(scorer, [outputs.baseline, lines], streams)
    differences = resampled[1] - resampled[0]
    low, high = np.percentile(differences, [2.5, 97.5])
    return Comparison(
        direction=direction,
        name=name,
        metric=metric,
        baseline=float(baseline),
        system=float(system),
        p=p,
        p_holm=p,
        signature=" and ".join(signatures),
        interval=(float(low), float(high)),
        estimate=Estimate(float(system - baseline), float(differences.std(ddof=1))),
    )
