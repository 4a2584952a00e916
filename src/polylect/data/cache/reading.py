"""Reads the corpora of a split, filtered and counted, through the cache where there is one."""

from collections.abc import Mapping, Sequence
from typing import Any

from polylect.data.cache.token_cache import CachedPairs, TokenCache
from polylect.data.corpora.corpus import Corpus
from polylect.data.corpora.read_pairs import read_pairs
from polylect.data.filters import HashSet, PairFilter, held_out_ngrams, hold_out
from polylect.data.store import PairStore

Stores = dict[str, PairStore | CachedPairs]
Reports = dict[str, dict[str, Any]]


def read_evaluation(corpora: Mapping[str, Sequence[Corpus]]) -> tuple[Stores, Reports]:
    """Return the pairs of a val or test set by direction, all of them, and what `read_pairs` tells.

    Raises what `read_pairs` raises.
    """
    read = {direction: read_pairs(parts) for direction, parts in corpora.items()}
    return _apart(read)


def read_training(
    corpora: Mapping[str, Sequence[Corpus]],
    filters: Mapping[str, Any],
    scored: Sequence[Mapping[str, PairStore | CachedPairs]],
    cache: TokenCache | None,
) -> tuple[Stores, Reports]:
    """Return the training pairs by direction, and what `read_pairs` tells of them.

    Args:
        scored: val and test pairs by direction, for the filters that look at them.

    Raises what `read_pairs` raises.
    """
    held_out, ngrams, hashes = HashSet(), set[int](), []
    for direction, store in (entry for stores in scored for entry in stores.items()):
        pairs = [store[i] for i in range(len(store))]
        hold_out(pairs, direction, held_out)
        if size := filters.get("ngrams"):
            ngrams.update(*(held_out_ngrams(direction, pair, size) for pair in pairs))
        hashes.append(store.sha256)
    read = {}
    for direction, parts in corpora.items():
        keep = PairFilter(filters, direction, held_out, ngrams)
        if cache is None:
            read[direction] = read_pairs(parts, keep)
        else:
            read[direction] = cache.pairs(parts, filters, hashes, keep)
    return _apart(read)


def _apart(read: Mapping[str, tuple[Any, dict[str, Any]]]) -> tuple[Stores, Reports]:
    stores = {direction: store for direction, (store, _) in read.items()}
    return stores, {direction: report for direction, (_, report) in read.items()}
