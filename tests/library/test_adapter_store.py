"""Adapters in memory: who stays, who goes, and that the base never changes."""

import json
import os
import random
import shutil
import threading

import pytest
import torch
from helpers.peft_bases import attach_random_adapters, logits
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polylect.library import Adapter, AdapterLibrary, LowRank, ResidentAdapters, base_fingerprint
from polylect.library.peft_format import CONFIG, WEIGHTS

UNIT = 2 * 4 * 64  # bytes of a rank-1 adapter on two 32 x 32 layers
RANKS = {"a": 1, "b": 1, "c": 1, "d": 2}


@pytest.fixture
def library(plain, tmp_path) -> AdapterLibrary:
    """Four adapters on q_proj, one of them twice as large as the others."""
    library = AdapterLibrary(tmp_path)
    layers, _ = attach_random_adapters(plain, ["q_proj"], **RANKS)
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
    store = ResidentAdapters(plain, layers_of(plain), library, budget_bytes=3 * UNIT)
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
    store = ResidentAdapters(plain, layers_of(plain), library, budget_bytes=3 * UNIT)
    store.acquire(["a", "b"])
    with pytest.raises(ValueError, match=r"needs 3 adapters of 2048 bytes .* budget is 1536"):
        store.acquire(["b", "c", "d"])
    assert store.resident == ("a", "b")
    assert counters(store) == (2, 0, 0, 2 * UNIT)
    with pytest.raises(ValueError, match="budget for adapters must be positive, got 0"):
        ResidentAdapters(plain, layers_of(plain), library, budget_bytes=0)


def test_unload(plain, library):
    store = ResidentAdapters(plain, layers_of(plain), library, budget_bytes=9 * UNIT)
    store.acquire("abc")
    store.unload("b")
    assert (store.resident, store.bytes) == (("a", "c"), 2 * UNIT)
    with pytest.raises(ValueError, match=r"'b' is not loaded; loaded: \['a', 'c'\]"):
        store.unload("b")


def test_what_is_not_ready_is_refused_and_leaves_no_trace(plain, library):
    layers = layers_of(plain)
    first = next(iter(layers))
    store = ResidentAdapters(plain, {first: layers[first]}, library, budget_bytes=9 * UNIT)
    with pytest.raises(ValueError, match=r"'a' does not fit: .*layers.1.* no LoRA layer"):
        store.acquire(["a"])
    assert all(not layer.lora_a for layer in layers.values())
    for layer in layers.values():
        layer.add("a", 2, alpha=1)
    store = ResidentAdapters(plain, layers, library, budget_bytes=9 * UNIT)
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
    strict = ResidentAdapters(plain, layers, library, 9 * UNIT, fingerprint=base_fingerprint(plain))
    with pytest.raises(ValueError, match="'elsewhere' does not fit: it was trained on another"):
        strict.acquire(["elsewhere"])
    assert counters(store) == counters(strict) == (0, 0, 0, 0)


def test_a_thousand_loads_switches_and_unloads_leave_the_base_as_it_was(plain, library):
    before = base_fingerprint(plain)
    layers = layers_of(plain)
    context = next(iter(layers.values())).context
    store = ResidentAdapters(plain, layers, library, budget_bytes=2 * UNIT)
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
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=3), max_size=8), st.integers(2, 5))
def test_any_sequence_of_batches_keeps_the_budget(plain, library, batches, units):
    store = ResidentAdapters(plain, layers_of(plain), library, budget_bytes=units * UNIT)
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


# Files that are replaced


def test_a_resident_adapter_whose_files_are_replaced_is_read_again(plain, library):
    layers = layers_of(plain)
    first = next(iter(layers))
    store = ResidentAdapters(plain, layers, library, budget_bytes=3 * UNIT)
    store.acquire(["a", "b"])
    library.save("a", library.load("c"), overwrite=True)
    store.acquire(["a", "b"])
    assert torch.equal(layers[first].lora_b["a"], library.load("c").modules[first].b)
    assert (store.loads, store.hits, store.evictions, store.bytes) == (3, 1, 0, 2 * UNIT)
    library.save("a", library.load("d"), overwrite=True)  # which is larger
    store.acquire(["a"])
    assert (store.resident, store.bytes) == (("b", "a"), 3 * UNIT)


@pytest.mark.parametrize("kept_time", [True, False])
def test_a_file_that_is_written_in_place_counts_as_replaced(plain, library, kept_time):
    layers = layers_of(plain)
    first = next(iter(layers))
    store = ResidentAdapters(plain, layers, library, budget_bytes=3 * UNIT)
    store.acquire(["a"])
    path = library.path / "a" / WEIGHTS
    before = path.stat()
    path.write_bytes((library.path / "b" / WEIGHTS).read_bytes())
    if kept_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    store.acquire(["a"])
    assert torch.equal(layers[first].lora_b["a"], library.load("b").modules[first].b)


def test_a_changed_scaling_counts_as_replaced(plain, library):
    layers = layers_of(plain)
    first = next(iter(layers))
    store = ResidentAdapters(plain, layers, library, budget_bytes=3 * UNIT)
    store.acquire(["a"])
    config = json.loads((library.path / "a" / CONFIG).read_text())
    (library.path / "a" / CONFIG).write_text(json.dumps(config | {"lora_alpha": 99}))
    store.acquire(["a"])
    assert layers[first].scaling["a"] == 99


def test_an_adapter_that_is_replaced_by_one_that_does_not_fit_is_not_used_any_more(plain, library):
    layers = layers_of(plain)
    store = ResidentAdapters(plain, layers, library, budget_bytes=3 * UNIT)
    store.acquire(["a"])
    wide = LowRank(torch.zeros(1, 8), torch.zeros(32, 1), 1.0)
    library.save("a", Adapter({next(iter(layers)): wide}), overwrite=True)
    for _ in range(2):
        with pytest.raises(ValueError, match="'a' does not fit"):
            store.acquire(["a"])
    assert (store.resident, store.bytes) == ((), 0)
    assert all(not layer.lora_a for layer in layers.values())


def test_an_adapter_whose_folder_is_gone_stays_in_memory(plain, library):
    store = ResidentAdapters(plain, layers_of(plain), library, budget_bytes=3 * UNIT)
    store.acquire(["a"])
    library.remove("a")
    store.acquire(["a"])
    assert (store.resident, store.hits) == (("a",), 1)
    library.save("a", library.load("b"))
    store.acquire(["a"])
    assert store.loads == 2


def test_an_adapter_that_is_away_while_it_is_replaced_is_waited_for(plain, library):
    """Else one that was replaced before, too, would be served in its last version but one."""
    layers = layers_of(plain)
    first = next(iter(layers))
    store = ResidentAdapters(plain, layers, library, budget_bytes=3 * UNIT)
    store.acquire(["a"])
    b = library.load("b").modules[first].b
    new = (library.path / "b").rename(library.path / "new")
    shutil.rmtree(library.path / "a")
    back = threading.Timer(0.05, new.rename, [library.path / "a"])
    back.start()
    store.acquire(["a"])
    back.join()
    assert torch.equal(layers[first].lora_b["a"], b)


def test_an_adapter_that_is_gone_is_waited_for_once(plain, library, monkeypatch):
    slept = []
    monkeypatch.setattr("polylect.library.folder.time.sleep", slept.append)
    store = ResidentAdapters(plain, layers_of(plain), library, budget_bytes=3 * UNIT)
    store.acquire(["a"])
    library.remove("a")
    slept.clear()
    store.acquire(["a"])
    assert 0 < sum(slept) < 1
    slept.clear()
    store.acquire(["a"])
    assert not slept


# What is in use


def test_what_is_in_use_is_not_unloaded_evicted_or_read_again(plain, library):
    layers = layers_of(plain)
    first = next(iter(layers))
    store = ResidentAdapters(plain, layers, library, budget_bytes=3 * UNIT)
    a = library.load("a").modules[first].b
    with store.pin(["a", "", "a"]):
        with pytest.raises(ValueError, match="'a' is in use: unload it when the batch is done"):
            store.unload("a")
        with pytest.raises(ValueError, match="a batch needs 3 adapters of 2048 bytes together"):
            store.acquire(["b", "d"])
        library.save("a", library.load("c"), overwrite=True)
        store.acquire(["a", "b", "c"])
        store.acquire(["d"])
        assert set(store.resident) == {"a", "d"}
        with store.pin(["a"]):
            assert torch.equal(layers[first].lora_b["a"], a)
        assert "a" in store.resident
    store.acquire(["a"])
    assert torch.equal(layers[first].lora_b["a"], library.load("c").modules[first].b)
    store.unload("a")


def test_half_of_an_adapter_is_not_left_behind(plain, library, monkeypatch):
    layers = layers_of(plain)
    *_, last = layers.values()
    store = ResidentAdapters(plain, layers, library, budget_bytes=3 * UNIT)

    def full(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(last, "set", full)
        with pytest.raises(MemoryError):
            store.acquire(["a"])
    assert all(not layer.lora_a for layer in layers.values())
    store.acquire(["a"])
    assert all("a" in layer.lora_a for layer in layers.values())
