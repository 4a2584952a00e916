"""A shuffled order of any number of rows, of which any part can be had without the rest.

A keyed Feistel network permutes the numbers below a power of four, and is walked until a number
below the size comes out (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", section
"cycle-walking"; for shuffling: Mitchell et al. 2022, arXiv:2106.06161).
"""

from collections.abc import Sequence

import numpy as np

_ROUNDS = 6


def shuffled(places: np.ndarray, size: int, seeds: Sequence[int]) -> np.ndarray:
    """Return which rows stand at these places of the shuffled order; int64, as many as places.

    Args:
        places: numbers from 0 to `size` (excluded).
        seeds: of the order.
    """
    half = np.uint64(max(1, (int(size - 1).bit_length() + 1) // 2))
    keys = np.random.default_rng(list(seeds)).integers(2**64, size=_ROUNDS, dtype=np.uint64)
    rows = _permute(places.astype(np.uint64), half, keys)
    while (outside := np.flatnonzero(rows >= size)).size:
        rows[outside] = _permute(rows[outside], half, keys)
    return rows.astype(np.int64)


def _permute(numbers: np.ndarray, half: np.uint64, keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = numbers >> half, numbers & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return left << half | right


def _mix(words: np.ndarray) -> np.ndarray:
    """Scatter the bits of 64-bit words: the finaliser of SplitMix64."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
