"""The cache of tokens: batches as without it, made once, and made anew where inputs change."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from polylect.data.cache import token_cache
from polylect.data.cache.shuffle import shuffled
from polylect.data.datamodule import TranslationData

SPECIAL = {"extra_special_tokens": ["<2de>", "<2en>"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = range(500)
    (tmp_path / "train.en").write_text("".join(f"sentence {i} {'x' * (i % 7)}\n" for i in lines))
    (tmp_path / "train.de").write_text("".join(f"Satz {i} {'ß' * (i % 5)}\n" for i in lines))
    (tmp_path / "dev.en").write_text("sentence 3 xxx\n")
    (tmp_path / "dev.de").write_text("Satz drei\n")
    return tmp_path


def make(folder: Path, tokenizer: Any, cached: bool = True, **changes: Any) -> TranslationData:
    settings: dict[str, Any] = {
        "directions": ["en-de", "de-en", "de"],
        "train": {"*": "train.{lang}"},
        "val": {"en-de": "dev.{lang}", "*": None},
        "template": "tag",
        "tokens_per_batch": 1000,
        "root": str(folder),
        "cache": str(folder / "cache") if cached else None,
        "processes": 2,
    }
    data = TranslationData(tokenizer=tokenizer, **(settings | changes))
    data.setup("fit")
    return data


def batches(data: TranslationData) -> list[Any]:
    return [
        (b.input_ids.tolist(), b.labels.tolist(), b.directions, b.sources, b.references)
        for b in data.training_stream(30)
    ]


def test_batches_are_those_without_a_cache(
    folder: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "_ROWS", 64)
    plain, first = make(folder, tokenizer, cached=False), make(folder, tokenizer)
    assert batches(first) == batches(plain)
    # Nothing is read again: of what is on the disk only its hash is looked at.
    monkeypatch.setattr(token_cache, "read_pairs", None)
    again = make(folder, tokenizer)
    assert batches(again) == batches(plain)
    for direction in plain.directions:
        store, other = plain.pairs(direction, "train"), again.pairs(direction, "train")
        assert [other[i] for i in range(len(other))] == [store[i] for i in range(len(store))]
        assert other.sha256 == store.sha256
    assert again.report == plain.report
    assert plain.report["train"]["en-de"]["dropped"] == {"overlap": 1}


def test_processes_share_the_work(
    folder: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "_BATCH", 100)
    data = make(folder, tokenizer, directions=["en-de"])
    files = sorted(file.name for file in folder.glob("cache/en-de-*/ids*.arrow"))
    assert files == ["ids_00000_of_00002.arrow", "ids_00001_of_00002.arrow"]
    assert batches(data) == batches(make(folder, tokenizer, cached=False, directions=["en-de"]))


def test_a_changed_input_is_noticed(
    folder: Path, tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    def changed(**changes: Any) -> str:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            make(folder, tokenizer, directions=["en-de"], **changes)
        return caplog.text.rpartition("have changed: ")[2].strip()

    assert changed() == "" and changed() == ""
    assert changed(template="plain") == "template"
    assert changed(filters={"identical": True}) == "filters"
    assert changed() == ""
    with (folder / "train.de").open("a") as german, (folder / "train.en").open("a") as english:
        german.write("neu\n"), english.write("new\n")
    assert changed(filters={"identical": True}) == "train.de, train.en"
    (folder / "dev.de").write_text("Satz 7 ßß\n")
    assert changed(filters={"identical": True}) == "filters"
    tokenizer.add_tokens(["Satz"])
    assert changed(filters={"identical": True}) == "tokenizer"
    manifests = list(folder.glob("cache/en-de-*/manifest.json"))
    assert len(manifests) == 6
    assert {json.loads(file.read_text())["report"]["kept"] for file in manifests} == {499, 500}


def test_damage_is_said(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    make(folder, tokenizer, directions=["en-de"])
    (texts,) = folder.glob("cache/en-de-*/texts.arrow")
    texts.write_bytes(texts.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"texts.arrow is not whole.*delete the folder"):
        make(folder, tokenizer, directions=["en-de"])
    with pytest.raises(ValueError, match=r"data\.processes must be at least 1, got 0"):
        make(folder, tokenizer, processes=0)


@pytest.mark.parametrize("manifest", ["", "{", "[]", "{}", '{"inputs": 1, "report": {}}'])
def test_a_damaged_manifest_is_said_and_disturbs_no_other_cache(
    manifest: str, folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    make(folder, tokenizer, directions=["en-de"])
    (file,) = folder.glob("cache/en-de-*/manifest.json")
    file.write_text(manifest)
    with pytest.raises(ValueError, match=r"manifest.json is damaged: delete its folder"):
        make(folder, tokenizer, directions=["en-de"])
    make(folder, tokenizer, directions=["en-de"], template="plain")
    shutil.rmtree(file.parent)
    make(folder, tokenizer, directions=["en-de"])


def test_a_writer_that_was_killed_leaves_nothing_that_counts(
    folder: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(token_cache, "_write_texts", fail)
        with pytest.raises(OSError, match="No space"):
            make(folder, tokenizer, directions=["en-de"])
    assert [file.suffix for file in (folder / "cache").iterdir()] == [".lock"]
    data = make(folder, tokenizer, directions=["en-de"])
    assert len(data.pairs("en-de", "train")) == 499


@pytest.mark.parametrize("size", [1, 2, 3, 100, 1025, 70_000])
def test_a_shuffled_order_has_every_row_once(size: int) -> None:
    import numpy as np

    order = shuffled(np.arange(size), size, [0, 1])
    assert np.array_equal(np.sort(order), np.arange(size)) and order.dtype == np.int64
    parts = [shuffled(part, size, [0, 1]) for part in np.array_split(np.arange(size), 3)]
    assert np.array_equal(np.concatenate(parts), order)


def test_a_shuffled_order_looks_random() -> None:
    """Against what independent places have: means of bins, and neighbours that stay neighbours."""
    import numpy as np

    size = 40_000
    orders = [shuffled(np.arange(size), size, [seed]) for seed in (1, 2)]
    for order in orders:
        bins, _, _ = np.histogram2d(np.arange(size), order, bins=10)
        chi_square = ((bins - size / 100) ** 2 / (size / 100)).sum()
        assert 40 < chi_square < 135  # 81 degrees of freedom: five standard deviations at most
        assert (np.abs(np.diff(order)) == 1).sum() < 12  # two are expected
    assert (orders[0] == orders[1]).sum() < 8  # one is expected


def test_a_large_direction_is_shuffled_without_its_order_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from polylect.data import sampler

    monkeypatch.setattr(sampler, "LARGEST_PASS", 999)
    draws = sampler.PoolSampler([1000], 1.0, seed=0, wanted=300)
    rows = [row for pool in range(10) for row in draws.pool(pool)[1].tolist()]
    assert not draws._passes
    passes = [rows[start : start + 1000] for start in (0, 1000, 2000)]
    assert all(sorted(part) == list(range(1000)) for part in passes)
    assert passes[0] != passes[1]


def test_threads_read_a_cache_as_the_loop_does(
    folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    data = make(folder, tokenizer)
    expected = batches(data)
    data.num_workers = 2
    assert batches(data) == expected
    assert torch.is_tensor(next(iter(data.training_stream(1))).input_ids)
