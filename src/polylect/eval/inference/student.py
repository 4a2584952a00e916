"""Student's t distribution with a whole number of degrees of freedom, or with infinitely many."""

import math
from statistics import NormalDist

_FARTHEST = 1e8  # where one degree of freedom leaves 3e-9 on each side


def t_cdf(t: float, freedom: float) -> float:
    """Return the probability that a variable with Student's t distribution is at most t.

    The finite series of Abramowitz and Stegun (1964), 26.7.3 and 26.7.4.

    Args:
        freedom: degrees of freedom, whole and at least 1, or `math.inf` for the normal one.

    Raises:
        ValueError: other degrees of freedom.
    """
    if freedom == math.inf:
        return NormalDist().cdf(t)
    if freedom < 1 or freedom != int(freedom):
        raise ValueError(f"degrees of freedom must be whole and at least 1, got {freedom}")
    angle = math.atan(t / math.sqrt(freedom))
    within = _odd(angle, int(freedom)) if freedom % 2 else _even(angle, int(freedom))
    return (1 + within) / 2


def _odd(angle: float, freedom: int) -> float:
    """Return the signed probability between -t and t."""
    term, total = math.cos(angle), 0.0
    for k in range(1, freedom - 1, 2):  # cos, 2/3 cos^3, 2·4/(3·5) cos^5 …
        total += term
        term *= (k + 1) / (k + 2) * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total)


def _even(angle: float, freedom: int) -> float:
    """Return the signed probability between -t and t."""
    term, total = 1.0, 0.0
    for k in range(0, freedom - 1, 2):  # 1, 1/2 cos^2, 1·3/(2·4) cos^4 …
        total += term
        term *= (k + 1) / (k + 2) * math.cos(angle) ** 2
    return math.sin(angle) * total


def t_quantile(probability: float, freedom: float) -> float:
    """Return the t below which this probability lies, to 1e-9 of its size.

    Raises ValueError for a probability that is not between 0 and 1, exclusively.
    """
    if not 0 < probability < 1:
        raise ValueError(f"a probability lies between 0 and 1, got {probability}")
    if freedom == math.inf:
        return NormalDist().inv_cdf(probability)
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    low, high = 0.0, _FARTHEST
    while high - low > 1e-9 * max(low, 1e-3):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2
