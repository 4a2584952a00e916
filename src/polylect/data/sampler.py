"""Sampling of examples and batches: pure functions of seed and pool number.

Training draws in pools. Of pool k direction d gives the examples from `floor(k N p_d)` to
`floor((k + 1) N p_d)` of its endless sequence of shuffled passes, where N is the pool's size and
p_d is proportional to `n_d ** (1 / T)`. So the counts follow the temperature to within one example
at any time, with one direction every example comes once per pass, and a run continues at any pool
from its number alone. Within the pool, examples are put into batches by length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from polylect.data.cache.shuffle import shuffled

POOL = 4096
LARGEST_POOL = 32_768
LARGEST_PASS = 2**20
"""Examples of a direction up to which a shuffled pass is held in memory, eight bytes for each."""
# Second word of the seeds of numpy's generators, so that no two uses share their numbers.
PASSES, BATCHES = 1, 2


def probabilities(sizes: Sequence[int], temperature: float | int) -> np.ndarray:
    """Return the shares of directions with these numbers of examples:
    proportional to `n ** (1 / T)`.

    T = 1 is in proportion to the data, larger T evens out, infinity is uniform (Arivazhagan et al.
    2019, arXiv:1907.05019, section 4).
    """
    weights = np.asarray(sizes, dtype=np.float64) ** (1.0 / temperature)
    return weights / weights.sum()


def pool_size(sizes: Sequence[int], shares: np.ndarray, wanted: int) -> int:
    """Return examples per pool: `wanted`, but with little data no more than a pass.

    A pool of several passes over a small direction would put copies of one sentence, being of one
    length, into one batch.
    """
    one_pass = int(np.min(np.asarray(sizes) / shares) + 1e-9)
    smallest = min(max(512, len(sizes)), sum(sizes))
    return min(wanted, max(one_pass, smallest))


@dataclass
class PoolSampler:
    """Draws pools of (direction, row) pairs.

    Args:
        sizes: number of examples of each direction, none of them 0.
        wanted: examples per pool if there are enough.
    """

    sizes: Sequence[int]
    temperature: float | int
    seed: int
    wanted: int = POOL
    _passes: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shares = probabilities(self.sizes, self.temperature)
        self.size = pool_size(self.sizes, self.shares, self.wanted)

    def pool(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return directions and rows of a pool's examples, two equally long arrays of int64."""
        rows = [self._rows(d, *self._span(number, d)) for d in range(len(self.sizes))]
        directions = np.repeat(np.arange(len(self.sizes)), [len(r) for r in rows])
        return directions, np.concatenate(rows)

    def _span(self, number: int, direction: int) -> tuple[int, int]:
        rate = self.size * self.shares[direction]
        # The small term: 3 * (1 / 3) must not fall short of 1.
        return int(number * rate + 1e-6), int((number + 1) * rate + 1e-6)

    def _rows(self, direction: int, start: int, stop: int) -> np.ndarray:
        size = self.sizes[direction]
        parts = [np.empty(0, np.int64)]
        while start < stop:
            number, offset = divmod(start, size)
            count = min(stop - start, size - offset)
            parts.append(self._of_pass(direction, number, offset, offset + count))
            start += count
        return np.concatenate(parts)

    def _of_pass(self, direction: int, number: int, start: int, stop: int) -> np.ndarray:
        """Return the rows from `start` to `stop` of one shuffled pass."""
        if self.sizes[direction] > LARGEST_PASS:
            seeds = [self.seed, PASSES, direction, number]
            return shuffled(np.arange(start, stop), self.sizes[direction], seeds)
        return self._pass(direction, number)[start:stop]

    def _pass(self, direction: int, number: int) -> np.ndarray:
        """Return the shuffled rows of one pass; those of the last one are cached."""
        cached = self._passes.get(direction)
        if cached is None or cached[0] != number:
            random = np.random.default_rng([self.seed, PASSES, direction, number])
            cached = (number, random.permutation(self.sizes[direction]))
            self._passes[direction] = cached
        return cached[1]


def cut_batches(
    lengths: np.ndarray,
    groups: np.ndarray,
    tokens_per_batch: int,
    max_rows: int,
    random: np.random.Generator,
) -> list[np.ndarray]:
    """Return the batches, as arrays of indices, in random order.

    Rows times longest length is at most `tokens_per_batch`, rows at most `max_rows`; a batch holds
    examples of one group only, of similar length, equal lengths in random company.

    Args:
        lengths: tokens of each example, none above `tokens_per_batch`.
        groups: group of each example: its direction, or the same for all to mix.
    """
    order = np.lexsort((random.permutation(len(lengths)), -lengths, groups))
    bounds = np.flatnonzero(np.diff(groups[order])) + 1
    batches = [
        batch
        for group in np.split(order, bounds)
        for batch in cut(group, lengths, tokens_per_batch, max_rows)
    ]
    return [batches[i] for i in random.permutation(len(batches))]


def cut(
    order: np.ndarray, lengths: np.ndarray, tokens_per_batch: int, max_rows: int
) -> list[np.ndarray]:
    """Return the batches of neighbours in `order`,
    which are indices from the longest to the shortest.
    """
    batches, start = [], 0
    while start < len(order):
        # Longest first, so the first row decides how many fit.
        rows = min(max_rows, tokens_per_batch // int(lengths[order[start]]))
        batches.append(order[start : start + rows])
        start += rows
    return batches
