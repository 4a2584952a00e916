"""Paired significance tests of systems against a baseline in several directions, Holm-corrected."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from polylect.eval.metrics import reference_streams, sacrebleu_metric

_RESAMPLES = 1000


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
        baseline, system: their scores.
        p: p-value of the difference by itself.
        p_holm: p-value corrected for the number of tests made together, over directions and
            systems.
        signature: sacreBLEU's, with the test, its sample size and its seed.
        interval: of the difference, 95 % by paired bootstrap resampling, whatever the test.
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

    @property
    def difference(self) -> float:
        """The system's score less the baseline's."""
        return self.system - self.baseline


def compare(
    outputs: Mapping[str, Outputs],
    *,
    metric: str = "chrf++",
    test: Literal["bootstrap", "randomization"] = "bootstrap",
    samples: int = 1000,
) -> list[Comparison]:
    """Tests in every direction whether each system differs from the baseline.

    Paired bootstrap resampling (Koehn 2004) or paired approximate randomisation (Riezler and
    Maxwell 2005), both as sacreBLEU does them, two-sided; the seed is its SACREBLEU_SEED, 12345
    by default. p-values are corrected over directions and systems by Holm's method.

    Args:
        outputs: by direction, such as ``"en-de"``.
        metric: a metric that `polylect.eval.metrics.score` knows.
        samples: resamples or trials; the smallest possible p-value is 1 / (samples + 1).

    Raises:
        ValueError: an unknown metric or test, no samples, or outputs of unequal lengths.
    """
    if test not in ("bootstrap", "randomization"):
        raise ValueError(f"unknown test {test!r}; known are 'bootstrap' and 'randomization'")
    if samples < 1:
        raise ValueError(f"a {test} test needs samples of at least 1 and got {samples}")
    kind = "bs" if test == "bootstrap" else "ar"
    tests = [
        _paired_test(direction, name, own, metric, kind, samples)
        for direction, own in outputs.items()
        for name in own.systems
    ]
    corrected = holm([test.p for test in tests])
    return [replace(test, p_holm=p) for test, p in zip(tests, corrected, strict=True)]


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


def _paired_test(
    direction: str, name: str, outputs: Outputs, metric: str, kind: str, samples: int
) -> Comparison:
    """Return the result of one test, whose p-value is not corrected yet."""
    from sacrebleu.significance import PairedTest

    target = direction.split("-")[-1]
    lines = outputs.systems[name]
    streams = reference_streams(outputs.baseline, outputs.references)
    if len(lines) != len(outputs.baseline):
        raise ValueError(
            f"in {direction} the baseline has {len(outputs.baseline)} outputs and {name} "
            f"{len(lines)}; a paired test needs both to translate the same lines"
        )
    scorer = sacrebleu_metric(metric, target)
    named = [("baseline", list(outputs.baseline)), ("system", list(lines))]
    run = PairedTest(named, {metric: scorer}, streams, kind, n_samples=samples)
    signatures, scores = run()
    (title, signature), *_ = signatures.items()
    baseline, system = scores[title]
    # sacreBLEU gives a system against itself its smallest p-value; no difference is no evidence.
    p = 1.0 if baseline.score == system.score else float(system.p_value)
    return Comparison(
        direction=direction,
        name=name,
        metric=metric,
        baseline=float(baseline.score),
        system=float(system.score),
        p=p,
        p_holm=p,
        signature=signature.format(),
        interval=_interval(scorer, outputs.baseline, lines, streams),
    )


def _interval(
    metric: Any,
    baseline: Sequence[str],
    system: Sequence[str],
    streams: Sequence[Sequence[str | None]],
) -> tuple[float, float]:
    """Return percentiles 2.5 and 97.5 of the difference, over resamples of lines for both.

    sacreBLEU has intervals of each system's score alone, and the two go up and down together.
    """
    both = [
        np.array(metric._extract_corpus_statistics(list(lines), streams), dtype=np.float64)
        for lines in (baseline, system)
    ]
    seed = os.environ.get("SACREBLEU_SEED", "12345")  # as sacreBLEU reads it
    random = np.random.default_rng(None if seed.lower() == "none" else int(seed))
    differences = []
    for _ in range(_RESAMPLES):
        sample = random.integers(len(baseline), size=len(baseline))
        one, other = (metric._compute_score_from_stats(own[sample].sum(0)).score for own in both)
        differences.append(other - one)
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)
