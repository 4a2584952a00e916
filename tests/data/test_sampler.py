from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylect.data.sampler import PoolSampler, cut_batches, pool_size, probabilities


def drawn(sampler: PoolSampler, pools: int) -> tuple[np.ndarray, np.ndarray]:
    parts = [sampler.pool(number) for number in range(pools)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def test_probabilities() -> None:
    assert probabilities([100, 300], 1) == pytest.approx([0.25, 0.75])
    assert probabilities([1, 16], 2) == pytest.approx([1 / 5, 4 / 5])
    assert probabilities([1, 10**6], float("inf")) == pytest.approx([0.5, 0.5])


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    temperature=st.sampled_from([1, 1.5, 5.0, float("inf")]),
    seed=st.integers(0, 2**40),
)
def test_counts_follow_the_temperature_at_any_time(
    sizes: list[int], temperature: float | int, seed: int
) -> None:
    sampler = PoolSampler(sizes, temperature, seed, wanted=700)
    directions = np.empty(0, int)
    for number in range(4):
        directions = np.concatenate([directions, sampler.pool(number)[0]])
        expected = probabilities(sizes, temperature) * sampler.size * (number + 1)
        counts = np.bincount(directions, minlength=len(sizes))
        assert len(directions) and np.all(np.abs(counts - expected) <= 1)


@pytest.mark.parametrize("size", [1, 7, 300, 1000])
def test_one_direction_is_seen_once_per_pass(size: int) -> None:
    sampler = PoolSampler([size], 1, seed=3, wanted=256)
    _, rows = drawn(sampler, 3 * size // sampler.size + 1)
    for start in range(0, 3 * size, size):
        assert sorted(rows[start : start + size]) == list(range(size))
    assert size < 10 or list(rows[:size]) != list(rows[size : 2 * size])  # shuffled anew


def test_every_direction_goes_through_all_its_rows() -> None:
    sampler = PoolSampler([50, 2000], 3, seed=0)
    directions, rows = drawn(sampler, 6)
    for direction, size in ((0, 50), (1, 2000)):
        counts = Counter(rows[directions == direction].tolist())
        assert len(counts) == size and max(counts.values()) - min(counts.values()) <= 1


def test_a_pool_is_a_function_of_seed_and_number() -> None:
    first, second = (PoolSampler([60, 3000], 2, seed=5, wanted=500) for _ in range(2))
    for number in (7, 2, 7, 0):  # in any order, with or without the pools before it
        pairs = zip(first.pool(number), second.pool(number), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)
    other = PoolSampler([60, 3000], 2, seed=6, wanted=500)
    assert not np.array_equal(first.pool(0)[1], other.pool(0)[1])


def test_a_pool_is_no_more_than_a_pass_where_there_is_little() -> None:
    assert pool_size([100], probabilities([100], 1), 4096) == 100
    assert pool_size([100, 900], probabilities([100, 900], 1), 4096) == 1000
    assert pool_size([10**6] * 2, probabilities([1, 1], 1), 4096) == 4096
    # Uniform over 10 and 10,000: one pass of the small one is 20, too few to sort by length.
    assert pool_size([10, 10_000], np.array([0.5, 0.5]), 4096) == 512


LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3)), min_size=1, max_size=200)


@settings(max_examples=80)
@given(LENGTHS, st.integers(60, 400), st.integers(1, 20), st.integers(0, 99))
def test_batches_hold_every_example_once_within_bounds(
    pairs: list[tuple[int, int]], budget: int, max_rows: int, seed: int
) -> None:
    lengths, groups = np.array(pairs).T
    batches = cut_batches(lengths, groups, budget, max_rows, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches)) == list(range(len(pairs)))
    for batch in batches:
        assert len(batch) * lengths[batch].max() <= budget and len(batch) <= max_rows
        assert len(set(groups[batch])) == 1


def test_padding_is_small_and_order_is_random() -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(5, 100, 4096)
    batches = cut_batches(lengths, np.zeros(4096, int), 2048, 256, random)
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert lengths.sum() / padded > 0.97
    assert padded / (2048 * len(batches)) > 0.95  # the budget is used
    firsts = [lengths[batch].max() for batch in batches]
    assert abs(np.corrcoef(firsts, np.arange(len(firsts)))[0, 1]) < 0.3
