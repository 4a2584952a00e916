"""A difference with its uncertainty: over seeds, over lines, or both; what it proves and hides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from polylect.eval.inference.student import t_cdf, t_quantile


@dataclass(frozen=True)
class Estimate:
    """A value that is known up to an error with Student's t distribution.

    Attributes:
        value: the estimate, such as a difference of scores.
        error: its standard error.
        freedom: degrees of freedom of the error; `math.inf` where it is as good as known.
    """

    value: float
    error: float
    freedom: float = math.inf

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the two-sided confidence interval."""
        half = t_quantile((1 + confidence) / 2, self.freedom) * self.error
        return self.value - half, self.value + half

    def p_difference(self) -> float:
        """Return the two-sided p-value of the hypothesis that the value is zero."""
        if self.error == 0:
            return 1.0 if self.value == 0 else 0.0
        return 2 * t_cdf(-abs(self.value) / self.error, self.freedom)

    def p_equivalence(self, margin: float) -> float:
        """Return the p-value of the hypothesis that the value is not within ± `margin`.

        The larger one of two one-sided tests (Schuirmann 1987): below 0.05 exactly where the 90 %
        interval lies within the margin. Raises ValueError for a margin that is not above zero.
        """
        if not margin > 0:
            raise ValueError(f"a margin must be above 0, got {margin}")
        if self.error == 0:
            return 0.0 if abs(self.value) < margin else 1.0
        return t_cdf((abs(self.value) - margin) / self.error, self.freedom)

    def smallest(self, level: float = 0.05, power: float = 0.8, tests: int = 1) -> float:
        """Return the size of a true difference that a test would find with this power.

        A two-sided test at `level / tests`, which is what Holm's correction leaves the smallest
        of so many p-values: t at 1 - level / (2 tests) and t at the power, added and multiplied
        by the error. Smaller differences are likely to be missed.
        """
        needed = t_quantile(1 - level / (2 * tests), self.freedom)
        return (needed + t_quantile(power, self.freedom)) * self.error


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean over runs that differ in their seed, with the error of that mean.

    Raises ValueError for fewer than two, which say nothing of other seeds.
    """
    if len(values) < 2:
        raise ValueError(f"an interval over seeds needs at least 2 runs, got {len(values)}")
    return Estimate(mean(values), stdev(values) / math.sqrt(len(values)), len(values) - 1)


def difference_over_seeds(
    system: Sequence[float], baseline: Sequence[float], *, paired: bool
) -> Estimate | None:
    """Return the mean of the system's runs less that of the baseline's, with its error.

    Paired: of the differences, run by run. Else Welch's, with degrees of freedom after
    Satterthwaite, rounded down; a side with a single run is taken as one that has no seed, such
    as a base that nothing was trained on. None where neither side has two runs.

    Raises ValueError for pairs that do not go up.
    """
    if paired:
        if len(system) != len(baseline):
            raise ValueError(f"{len(system)} and {len(baseline)} runs do not make pairs")
        if len(system) < 2:
            return None
        return over_seeds([own - other for own, other in zip(system, baseline, strict=True)])
    sides = [over_seeds(values) for values in (system, baseline) if len(values) > 1]
    if not sides:
        return None
    return Estimate(mean(system) - mean(baseline), *_sum_of_errors(sides))


def with_lines(seeds: Estimate | None, value: float, line_error: float) -> Estimate:
    """Return a difference whose error comes from the choice of lines and, if given, of seeds.

    Lines and seeds are drawn apart from one another, so variances add. What a seed does to a
    line is in both, which makes the error too large rather than too small.
    """
    if seeds is None:
        return Estimate(value, line_error)
    return Estimate(value, *_sum_of_errors([seeds, Estimate(value, line_error)]))


def _sum_of_errors(parts: Sequence[Estimate]) -> tuple[float, float]:
    """Return the error of a sum, and its degrees of freedom (Satterthwaite 1946), rounded down."""
    variances = [part.error**2 for part in parts]
    total = sum(variances)
    if total == 0:
        return 0.0, min(part.freedom for part in parts)
    squares = sum(v**2 / part.freedom for v, part in zip(variances, parts, strict=True))
    freedom = math.inf if squares == 0 else float(math.floor(total**2 / squares + 1e-9))
    return math.sqrt(total), max(freedom, min(part.freedom for part in parts))
