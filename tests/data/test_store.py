import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylect.data.store import Pair, PairStore

# Surrogates are no text: UTF-8 cannot hold them.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PAIRS = st.lists(st.builds(Pair, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple)), max_size=12)


@settings(max_examples=60)
@given(pairs=PAIRS, spill_bytes=st.sampled_from([0, 100, 10**6]))
def test_what_goes_in_comes_out(pairs: list[Pair], spill_bytes: int) -> None:
    store = PairStore(pairs, spill_bytes)
    assert [store[i] for i in range(len(store))] == pairs
    assert store.sha256 == PairStore(pairs).sha256


@given(texts=st.lists(TEXT, max_size=8))
@settings(max_examples=20)
def test_monolingual(texts: list[str]) -> None:
    pairs = [Pair(None, text) for text in texts]
    store = PairStore(pairs)
    assert [store[i] for i in range(len(store))] == pairs


def test_large_content_is_mapped_from_a_file() -> None:
    pairs = [Pair(f"line {i}", f"Zeile {i}") for i in range(100)]
    assert PairStore(pairs, spill_bytes=500).spilled and not PairStore(pairs).spilled


def test_the_hash_is_that_of_the_content() -> None:
    base = [Pair("a", "b"), Pair("c", "d")]
    others = [
        [Pair("a", "b"), Pair("c", "e")],
        [Pair("c", "d"), Pair("a", "b")],
        [Pair("ab", ""), Pair("c", "d")],
        [Pair("a", "b", ("c",)), Pair("d", "")],
        [Pair("a", "b", ("c", "d"))],
        base[:1],
        [],
    ]
    assert PairStore(base).sha256 == PairStore(iter(base)).sha256
    assert len({PairStore(pairs).sha256 for pairs in [base, *others]}) == len(others) + 1


def test_memory_is_that_of_the_text() -> None:
    count, pairs = 4000, (Pair(f"line {i}", f"Zeile {i}") for i in range(4000))
    tracemalloc.start()
    store = PairStore(pairs)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(store) == count
    # Two str objects per pair would take more than 100 bytes; array growth costs an eighth.
    assert store.nbytes < 50 * count and size < 1.3 * store.nbytes


@pytest.mark.parametrize("index", [-1, 2])
def test_there_are_only_so_many(index: int) -> None:
    with pytest.raises(IndexError, match="the store has 2"):
        PairStore([Pair("a", "b"), Pair("c", "d")])[index]
