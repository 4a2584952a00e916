"""Intervals and tests of differences: published examples, and how often they err in simulations."""

import math

import numpy as np
import pytest

from polylect.eval.inference.estimate import (
    Estimate,
    difference_over_seeds,
    over_seeds,
    with_lines,
)

# Hours of sleep gained with two drugs (Student 1908), the data on which R explains t.test.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
ROUNDS = 2000


def test_the_paired_test_of_students_own_data() -> None:
    actual = difference_over_seeds(SECOND, FIRST, paired=True)
    assert actual is not None
    assert (actual.value, actual.freedom) == (pytest.approx(1.58), 9)
    assert actual.value / actual.error == pytest.approx(4.0621, abs=1e-4)
    assert actual.p_difference() == pytest.approx(0.002833, abs=1e-6)
    assert actual.interval() == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def test_welchs_test_of_the_same_data() -> None:
    actual = difference_over_seeds(SECOND, FIRST, paired=False)
    assert actual is not None
    assert actual.value / actual.error == pytest.approx(1.8608, abs=1e-4)
    assert actual.freedom == 17  # 17.776, rounded down
    assert actual.p_difference() == pytest.approx(0.0794, abs=1e-3)


def test_a_side_with_one_run_adds_no_error_and_two_single_runs_say_nothing() -> None:
    actual = difference_over_seeds([3.0, 5.0], [1.0], paired=False)
    assert actual == Estimate(3.0, pytest.approx(1.0), 1)
    assert difference_over_seeds([3.0], [1.0], paired=False) is None
    assert difference_over_seeds([3.0], [1.0], paired=True) is None
    with pytest.raises(ValueError, match="do not make pairs"):
        difference_over_seeds([1.0, 2.0], [1.0], paired=True)
    with pytest.raises(ValueError, match="at least 2 runs"):
        over_seeds([1.0])


def test_variances_of_seeds_and_lines_add() -> None:
    actual = with_lines(Estimate(2.0, 3.0, 2), 2.0, 4.0)
    assert (actual.value, actual.error) == (2.0, 5.0)
    assert actual.freedom == math.floor(25**2 / (9**2 / 2))  # Satterthwaite; the lines are many
    assert with_lines(None, 2.0, 4.0) == Estimate(2.0, 4.0)
    assert with_lines(Estimate(0.0, 0.0, 2), 0.0, 0.0) == Estimate(0.0, 0.0, 2)


def test_two_one_sided_tests_are_the_90_percent_interval_within_the_margin() -> None:
    for value in np.linspace(-2, 2, 41):
        estimate = Estimate(float(value), 0.5, 6)
        low, high = estimate.interval(0.9)
        assert (estimate.p_equivalence(1.2) < 0.05) == (low > -1.2 and high < 1.2)
    assert Estimate(0.0, 0.0).p_equivalence(0.1) == 0
    assert Estimate(0.2, 0.0).p_equivalence(0.1) == 1
    with pytest.raises(ValueError, match="above 0"):
        Estimate(0.0, 1.0).p_equivalence(0)


def test_without_an_error_a_difference_is_certain() -> None:
    assert Estimate(0.0, 0.0).p_difference() == 1
    assert Estimate(1e-9, 0.0).p_difference() == 0


def simulated(difference: float, runs: int, paired: bool) -> list[Estimate]:
    """Differences of simulated systems; pairs share half of their variance."""
    random = np.random.default_rng(7)
    estimates = []
    for _ in range(ROUNDS):
        shared = random.normal(size=runs) if paired else np.zeros(runs)
        one, other = random.normal(size=(2, runs))
        estimate = difference_over_seeds(
            list(difference + one + shared), list(other + shared), paired=paired
        )
        assert estimate is not None
        estimates.append(estimate)
    return estimates


@pytest.mark.parametrize(("runs", "paired"), [(3, True), (3, False), (5, True), (8, False)])
def test_equal_systems_are_told_apart_in_one_of_twenty_cases_at_most(
    runs: int, paired: bool
) -> None:
    wrong = np.mean([e.p_difference() < 0.05 for e in simulated(0.0, runs, paired)])
    assert 0.02 < wrong < 0.065


@pytest.mark.parametrize("runs", [3, 8])
def test_systems_that_differ_by_the_margin_are_rarely_found_equivalent(runs: int) -> None:
    margin = 4.0
    wrong = np.mean([e.p_equivalence(margin) < 0.05 for e in simulated(margin, runs, True)])
    assert wrong < 0.065
    right = np.mean([e.p_equivalence(margin) < 0.05 for e in simulated(0.0, 8, True)])
    assert right > 0.9


def test_the_smallest_difference_is_found_as_often_as_the_power_says() -> None:
    error = math.sqrt(2 / 8)
    smallest = Estimate(0.0, error, 14).smallest(level=0.05, power=0.8)
    share_found = np.mean([e.p_difference() < 0.05 for e in simulated(smallest, 8, False)])
    assert share_found == pytest.approx(0.8, abs=0.04)
    assert Estimate(0.0, error, 14).smallest(tests=10) > smallest
    # Normal errors: (1.960 + 0.842) times the error, the formula of every textbook.
    assert Estimate(0.0, 1.0).smallest() == pytest.approx(2.8016, abs=1e-3)


def test_seeds_and_lines_together_keep_the_level() -> None:
    random = np.random.default_rng(3)
    wrong = 0
    for _ in range(ROUNDS):
        lines = random.normal()  # what the choice of lines adds to the difference
        one, other = random.normal(size=(2, 3))
        seeds = difference_over_seeds(list(one), list(other), paired=False)
        assert seeds is not None
        wrong += with_lines(seeds, seeds.value + lines, 1.0).p_difference() < 0.05
    assert wrong / ROUNDS < 0.07
