"""Student's t distribution against printed tables, its density and its closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylect.eval.inference.student import t_cdf, t_quantile

# Any textbook's table of critical values.
TABLE = {
    (0.975, 1): 12.706,
    (0.975, 2): 4.303,
    (0.975, 3): 3.182,
    (0.95, 2): 2.920,
    (0.95, 5): 2.015,
    (0.995, 4): 4.604,
    (0.975, 10): 2.228,
    (0.9995, 7): 5.408,
    (0.975, 30): 2.042,
    (0.975, math.inf): 1.960,
}


@pytest.mark.parametrize(("place", "t"), TABLE.items())
def test_quantiles_are_those_of_the_printed_tables(place: tuple[float, float], t: float) -> None:
    assert t_quantile(*place) == pytest.approx(t, abs=6e-4)


@given(st.floats(-50, 50))
def test_one_and_two_degrees_have_closed_forms(t: float) -> None:
    assert t_cdf(t, 1) == pytest.approx(0.5 + math.atan(t) / math.pi, abs=1e-12)
    assert t_cdf(t, 2) == pytest.approx(0.5 + t / (2 * math.sqrt(2 + t * t)), abs=1e-12)


@pytest.mark.parametrize("freedom", [3, 4, 7, 16, 41])
def test_the_probability_is_the_area_under_the_density(freedom: int) -> None:
    x = np.linspace(0, 2.5, 20001)
    log_constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    height = math.exp(log_constant) / math.sqrt(freedom * math.pi)
    area = np.trapezoid(height * (1 + x**2 / freedom) ** (-(freedom + 1) / 2), x)
    assert t_cdf(2.5, freedom) == pytest.approx(0.5 + area, abs=1e-8)


@given(st.floats(1e-4, 1 - 1e-4), st.integers(1, 60))
def test_quantile_and_probability_are_inverse(probability: float, freedom: int) -> None:
    assert t_cdf(t_quantile(probability, freedom), freedom) == pytest.approx(probability, rel=1e-6)


def test_it_becomes_the_normal_distribution() -> None:
    assert t_cdf(1.3, 4001) == pytest.approx(t_cdf(1.3, math.inf), abs=1e-4)


@pytest.mark.parametrize("freedom", [0, 1.5, -3])
def test_other_degrees_of_freedom_are_refused(freedom: float) -> None:
    with pytest.raises(ValueError, match="whole and at least 1"):
        t_cdf(1.0, freedom)
    with pytest.raises(ValueError, match="between 0 and 1"):
        t_quantile(1.0, 3)
