"""Reads corpora into stores, filters the pairs and counts them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from polylect.data.corpora.corpus import Corpus
from polylect.data.corpora.rows import Row
from polylect.data.filters import PairFilter
from polylect.data.store import Pair, PairStore


def read_pairs(
    corpora: Sequence[Corpus], keep: PairFilter | None = None, **spilling: Any
) -> tuple[PairStore, dict[str, Any]]:
    """Return the pairs of the corpora of one direction, and what came of them.

    The report has the numbers of pairs read and kept, those dropped by each filter, the hash of
    what was kept, and the same numbers by corpus. What a reader passes over, as a unit without a
    translation, counts as read and dropped.

    Args:
        keep: None keeps everything, as dev and test sets demand.
        spilling: see `PairStore`.

    Raises:
        FileNotFoundError, ValueError: what the corpora raise; an empty side that no filter has
            dropped; nothing left.
    """
    parts: list[dict[str, Any]] = []
    store = PairStore(_filtered_pairs(corpora, keep, parts), **spilling)
    dropped = sum((Counter(part["dropped"]) for part in parts), Counter())
    read = sum(part["read"] for part in parts)
    if not len(store):
        reasons = ", ".join(f"{name} {number}" for name, number in dropped.items())
        raise ValueError(
            f"{corpora[0].setting} of {corpora[0].direction!r}: none of {read} pairs is left; "
            f"the filters dropped: {reasons}"
        )
    return store, {
        "read": read,
        "kept": len(store),
        "dropped": dict(dropped),
        "sha256": store.sha256,
        "corpora": parts,
    }


def _filtered_pairs(
    corpora: Sequence[Corpus], keep: PairFilter | None, parts: list[dict[str, Any]]
) -> Iterator[Pair]:
    for corpus in corpora:
        dropped: Counter[str] = Counter()
        kept = 0
        for row in corpus.rows():
            reason = keep.reason(row.source, row.target) if keep else None
            if reason:
                dropped[reason] += 1
                continue
            if row.source == "" or not row.target or "" in row.references:
                raise ValueError(_empty(corpus, row))
            kept += 1
            yield Pair(row.source, row.target, row.references)
        if not kept + dropped.total():
            span = " from start to stop" if {"start", "stop"} & corpus.spec.keys() else ""
            raise ValueError(f"{corpus.location(1)}: the corpus has no rows{span}")
        dropped += corpus.skip_counts
        read = kept + dropped.total()
        parts.append({"corpus": corpus.name, "read": read, "kept": kept, "dropped": dict(dropped)})


def _empty(corpus: Corpus, row: Row) -> str:
    side = "source" if row.source == "" else "target" if not row.target else "reference"
    place = corpus.location(row.line, side)
    if corpus.setting == "train":
        return f"{place}: the {side} is empty; mend it, or set data.filters.empty=true to drop it"
    return f"{place}: the {side} is empty, which a {corpus.setting} set must not have"
