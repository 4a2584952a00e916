"""Adapters in memory: who stays, who goes, and that the base never changes."""

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft_bases import adapted, logits

from polylect.library import Adapter, AdapterLibrary, AdapterStore, LowRank, base_fingerprint

UNIT = 2 * 4 * 64  # bytes of a rank-1 adapter on two 32 x 32 layers
RANKS = {"a": 1, "b": 1, "c": 1, "d": 2}


@pytest.fixture
def library(plain, tmp_path) -> AdapterLibrary:
    """Four adapters on q_proj, one of them twice as large as the others."""
    library = AdapterLibrary(tmp_path)
    layers, _ = adapted(plain, ["q_proj"], **RANKS)
    for name in RANKS:
        library.save(name, Adapter.of_layers(layers, name))
        for layer in layers.values():
            layer.remove(name)
    return library


def layers_of(model):
    return {
        path: module for path, module in model.named_modules() if path.endswith("self_attn.q_proj")
    }


def counters(store):
    return store.loads, store.hits, store.evictions, store.bytes


def test_counters_worked_by_hand(plain, library):
    store = AdapterStore(plain, layers_of(plain), library, budget_bytes=3 * UNIT)
    assert library.nbytes("a") == UNIT
    for batch, resident, expected in (
        (["a", "", "a", "b"], ("a", "b"), (2, 0, 0, 2)),
        (["a"], ("b", "a"), (2, 1, 0, 2)),
        (["c"], ("b", "a", "c"), (3, 1, 0, 3)),
        (["d"], ("c", "d"), (4, 1, 2, 3)),  # two units large: the two oldest go
        (["c", "a"], ("c", "a"), (5, 2, 3, 2)),  # c is wanted, so d goes though c is older
        (["", ""], ("c", "a"), (5, 2, 3, 2)),
    ):
        store.acquire(batch)
        assert store.resident == resident
        assert counters(store) == (*expected[:3], expected[3] * UNIT)
        for layer in layers_of(plain).values():
            assert set(layer.lora_a) == set(layer.scaling) == set(resident)


def test_a_batch_larger_than_the_budget_is_refused_and_changes_nothing(plain, library):
    store = AdapterStore(plain, layers_of(plain), library, budget_bytes=3 * UNIT)
    store.acquire(["a", "b"])
    with pytest.raises(ValueError, match=r"needs 3 adapters of 2048 bytes .* budget is 1536"):
        store.acquire(["b", "c", "d"])
    assert store.resident == ("a", "b")
    assert counters(store) == (2, 0, 0, 2 * UNIT)
    with pytest.raises(ValueError, match="budget for adapters must be positive, got 0"):
        AdapterStore(plain, layers_of(plain), library, budget_bytes=0)


def test_unload(plain, library):
    store = AdapterStore(plain, layers_of(plain), library, budget_bytes=9 * UNIT)
    store.acquire("abc")
    store.unload("b")
    assert (store.resident, store.bytes) == (("a", "c"), 2 * UNIT)
    with pytest.raises(ValueError, match=r"'b' is not loaded; loaded: \['a', 'c'\]"):
        store.unload("b")


def test_what_is_not_ready_is_refused_and_leaves_no_trace(plain, library):
    layers = layers_of(plain)
    first = next(iter(layers))
    store = AdapterStore(plain, {first: layers[first]}, library, budget_bytes=9 * UNIT)
    with pytest.raises(ValueError, match=r"'a' does not fit: .*layers.1.* no LoRA layer"):
        store.acquire(["a"])
    assert all(not layer.lora_a for layer in layers.values())
    for layer in layers.values():
        layer.add("a", 2, alpha=1)
    store = AdapterStore(plain, layers, library, budget_bytes=9 * UNIT)
    with pytest.raises(ValueError, match="another adapter of this name"):
        store.acquire(["a"])
    with pytest.raises(ValueError, match="no adapter 'e' in"):
        store.acquire(["e"])
    wide = LowRank(torch.zeros(1, 8), torch.zeros(32, 1), 1.0)
    library.save("wide", Adapter({first: wide}))
    with pytest.raises(ValueError, match=r"'wide' does not fit: .*32 x 32 here"):
        store.acquire(["wide"])
    elsewhere = Adapter(library.load("b").modules, {"base_fingerprint": "0" * 64})
    library.save("elsewhere", elsewhere)
    strict = AdapterStore(plain, layers, library, 9 * UNIT, fingerprint=base_fingerprint(plain))
    with pytest.raises(ValueError, match="'elsewhere' does not fit: it was trained on another"):
        strict.acquire(["elsewhere"])
    assert counters(store) == counters(strict) == (0, 0, 0, 0)


def test_a_thousand_loads_switches_and_unloads_leave_the_base_as_it_was(plain, library):
    before = base_fingerprint(plain)
    layers = layers_of(plain)
    context = next(iter(layers.values())).context
    store = AdapterStore(plain, layers, library, budget_bytes=2 * UNIT)
    expected = logits(plain, context, ["", "", ""])
    dice = random.Random(3)
    for step in range(1000):
        if store.resident and dice.random() < 0.2:
            store.unload(dice.choice(store.resident))
        else:
            store.acquire(dice.sample("abc", dice.randrange(1, 3)))
        if step % 50 == 0:
            logits(plain, context, [*store.resident, ""])
    assert min(store.loads, store.hits, store.evictions) > 100
    assert base_fingerprint(plain) == before
    assert torch.equal(logits(plain, context, ["", "", ""]), expected)


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=3), max_size=8), st.integers(2, 5))
def test_any_sequence_of_batches_keeps_the_budget(plain, library, batches, units):
    store = AdapterStore(plain, layers_of(plain), library, budget_bytes=units * UNIT)
    for batch in batches:
        fits = sum(RANKS[name] for name in set(batch)) <= units
        try:
            store.acquire(batch)
        except ValueError:
            assert not fits
            continue
        assert fits
        assert set(batch) <= set(store.resident)
        assert store.bytes == UNIT * sum(RANKS[name] for name in store.resident)
        assert store.bytes <= store.budget_bytes
        assert store.loads - store.evictions == len(store.resident)
    for name in store.resident:
        store.unload(name)
    assert store.bytes == 0
    assert all(not layer.lora_a for layer in layers_of(plain).values())
