"""From corpora to stores: read, filter, count."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from polylect.data.corpus import Corpus
from polylect.data.filters import PairFilter
from polylect.data.readers import Row
from polylect.data.store import Pair, PairStore


def read_pairs(
    corpora: Sequence[Corpus], keep: PairFilter | None = None
) -> tuple[PairStore, dict[str, Any]]:
    """The pairs of the corpora of one direction, and what came of them.

    The report has the numbers of pairs read and kept, those dropped by each filter, and the hash
    of what was kept.

    Args:
        keep: None keeps everything, as dev and test sets demand.

    Raises:
        FileNotFoundError, ValueError: what the corpora raise; an empty side that no filter has
            dropped; nothing left.
    """
    counts: Counter[str] = Counter()
    store = PairStore(_kept(corpora, keep, counts))
    read = counts.pop("read")
    if not len(store):
        dropped = ", ".join(f"{name} {number}" for name, number in counts.items())
        raise ValueError(
            f"{corpora[0].setting} of {corpora[0].direction!r}: none of {read} pairs is left; "
            f"the filters dropped: {dropped}"
        )
    return store, {
        "read": read,
        "kept": len(store),
        "dropped": dict(counts),
        "sha256": store.sha256,
    }


def _kept(
    corpora: Sequence[Corpus], keep: PairFilter | None, counts: Counter[str]
) -> Iterator[Pair]:
    for corpus in corpora:
        before = counts["read"]
        for row in corpus.rows():
            counts["read"] += 1
            reason = keep.reason(row.source, row.target) if keep else None
            if reason:
                counts[reason] += 1
                continue
            if row.source == "" or not row.target or "" in row.references:
                raise ValueError(_empty(corpus, row))
            yield Pair(row.source, row.target, row.references)
        if counts["read"] == before:
            raise ValueError(f"{corpus.where(1)}: the corpus has no rows from start to stop")


def _empty(corpus: Corpus, row: Row) -> str:
    side = "source" if row.source == "" else "target" if not row.target else "reference"
    place = corpus.where(row.line, side)
    if corpus.setting == "train":
        return f"{place}: the {side} is empty; mend it, or set data.filters.empty=true to drop it"
    return f"{place}: the {side} is empty, which a {corpus.setting} set must not have"
