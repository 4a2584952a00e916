"""Paired significance tests between two systems on several directions, with Holm's correction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from polylect.eval.metrics import reference_streams, sacrebleu_metric


@dataclass(frozen=True)
class Outputs:
    """What two systems made of the same sources in one direction, and the references."""

    baseline: Sequence[str]
    system: Sequence[str]
    references: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Comparison:
    """Two systems in one direction.

    Attributes:
        baseline, system: their scores.
        p: p-value of the difference by itself.
        p_holm: p-value corrected for the number of directions that were tested together.
        signature: sacreBLEU's, with the test, its sample size and its seed.
    """

    direction: str
    metric: str
    baseline: float
    system: float
    p: float
    p_holm: float
    signature: str

    @property
    def difference(self) -> float:
        return self.system - self.baseline


def compare(
    outputs: Mapping[str, Outputs],
    *,
    metric: str = "chrf++",
    test: Literal["bootstrap", "randomization"] = "bootstrap",
    samples: int = 1000,
) -> list[Comparison]:
    """Tests in every direction whether the two systems differ.

    Paired bootstrap resampling (Koehn 2004) or paired approximate randomisation (Riezler and
    Maxwell 2005), both as sacreBLEU does them, two-sided; the seed is its SACREBLEU_SEED, 12345
    by default. p-values are corrected over the directions by Holm's method.

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
    rows = [_paired(name, pair, metric, kind, samples) for name, pair in outputs.items()]
    corrected = holm([p for *_, p, _ in rows])
    return [
        Comparison(direction, metric, baseline, system, p, p_holm, signature)
        for (direction, baseline, system, p, signature), p_holm in zip(rows, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979), in the order given.

    The k-th smallest of n p-values is multiplied by n - k + 1; none is smaller than the one before
    it, and none is larger than 1.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _paired(
    direction: str, pair: Outputs, metric: str, kind: str, samples: int
) -> tuple[str, float, float, float, str]:
    from sacrebleu.significance import PairedTest

    target = direction.split("-")[-1]
    streams = reference_streams(pair.baseline, pair.references)
    if len(pair.system) != len(pair.baseline):
        raise ValueError(
            f"in {direction} the baseline has {len(pair.baseline)} outputs and the system "
            f"{len(pair.system)}; a paired test needs both to translate the same lines"
        )
    named = [("baseline", list(pair.baseline)), ("system", list(pair.system))]
    run = PairedTest(
        named, {metric: sacrebleu_metric(metric, target)}, streams, kind, n_samples=samples
    )
    signatures, scores = run()
    (name, signature), *_ = signatures.items()
    baseline, system = scores[name]
    # sacreBLEU gives a system against itself its smallest p-value; no difference is no evidence.
    p = 1.0 if baseline.score == system.score else float(system.p_value)
    return direction, float(baseline.score), float(system.score), p, signature.format()
