import pickle
from collections import Counter
from itertools import islice
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from polylect.data.batch import TranslationBatch
from polylect.data.prompt import TEMPLATES
from polylect.data.store import Pair, PairStore
from polylect.data.stream import Pool, TrainingStream

STORES = {
    "en-de": PairStore(Pair(f"e{i} " * (1 + i % 9), f"d{i} " * (1 + i % 9)) for i in range(300)),
    "de-en": PairStore(Pair(f"d{i} " * (1 + i % 9), f"e{i} " * (1 + i % 9)) for i in range(100)),
    "ta": PairStore(Pair(None, f"t{i} " * (1 + i % 9)) for i in range(30)),
}


@pytest.fixture
def make(tokenizer: PreTrainedTokenizerFast) -> Any:
    def make_stream(**changes: Any) -> TrainingStream:
        settings = {
            "stores": STORES,
            "tokenizer": tokenizer,
            "template": TEMPLATES["tag"],
            "length": 40,
            "tokens_per_batch": 400,
            "max_rows": 16,
            "max_length": 100,
        }
        return TrainingStream(**(settings | changes))

    return make_stream


def same(first: TranslationBatch, second: TranslationBatch) -> bool:
    return (
        torch.equal(first.input_ids, second.input_ids)
        and torch.equal(first.labels, second.labels)
        and (first.directions, first.sources) == (second.directions, second.sources)
    )


def all_same(first: Any, second: Any) -> bool:
    return all(same(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("mixing", ["mixed", "by_direction"])
def test_budget_rows_and_directions(make: Any, mixing: str) -> None:
    kinds = Counter()
    for batch in make(mixing=mixing):
        assert batch.input_ids.numel() <= 400 and batch.rows <= 16
        kinds[len(set(batch.directions))] += 1
        assert list(batch.directions) == sorted(batch.directions, key=list(STORES).index)
    assert kinds.keys() == {1} if mixing == "by_direction" else max(kinds) > 1


def test_batches_are_a_function_of_the_seed(make: Any) -> None:
    assert all_same(make(seed=3), make(seed=3))
    assert not all_same(islice(make(seed=3), 5), islice(make(seed=4), 5))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_threads_do_not_change_the_batches(make: Any, num_workers: int) -> None:
    assert all_same(make(), make(num_workers=num_workers))


def test_pools_are_made_ahead(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    whole = TrainingStream._pool

    def record(stream: TrainingStream, number: int, *arguments: Any) -> Pool:
        pool = whole(stream, number, *arguments)
        made.append(number)
        return pool

    monkeypatch.setattr(TrainingStream, "_pool", record)
    batches = iter(make(num_workers=2))
    next(batches)
    batches.close()  # waits for the threads
    assert sorted(made) == [0, 1, 2]


@pytest.mark.parametrize("consumed", [0, 1, 17, 39])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_goes_on_where_its_state_says(make: Any, consumed: int, num_workers: int) -> None:
    whole = list(make())
    first = make(num_workers=num_workers)
    seen = list(islice(first, consumed))
    state = pickle.loads(pickle.dumps(first.state_dict()))
    second = make(num_workers=num_workers)
    second.load_state_dict(state)
    assert all_same(seen + list(second), whole)
    reference = make()
    list(reference)
    assert second.report() == reference.report()


def test_the_state_is_plain_and_loads_with_weights_only(make: Any, tmp_path: Any) -> None:
    stream = make()
    next(iter(stream))
    torch.save(stream.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == stream.state_dict()


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_one_sequence(make: Any, world: int) -> None:
    whole = list(make(length=12 * world))
    streams = [make(length=12, rank=rank, world=world) for rank in range(world)]
    parts = [list(islice(stream, 7)) for stream in streams]
    assert len({str(stream.state_dict()) for stream in streams}) == 1
    resumed = [make(length=12, rank=rank, world=world) for rank in range(world)]
    for rank, stream in enumerate(resumed):
        stream.load_state_dict(streams[0].state_dict())  # only rank 0 writes checkpoints
        assert all_same(parts[rank] + list(stream), whole[rank::world])
    alone = make(length=12 * world)
    list(alone)
    assert resumed[1].report() == alone.report()


def test_an_iterator_ends_with_the_run_and_the_next_goes_on(make: Any) -> None:
    stream, whole = make(length=10), list(make(length=25))
    assert len(stream) == 10
    assert all_same([*stream, *stream], whole[:20])
    longer = make(length=25)  # the same run with more steps
    longer.load_state_dict(stream.state_dict())
    assert all_same(longer, whole[20:])


def test_report(make: Any) -> None:
    stream = make(length=150, temperature=3)
    batches = list(stream)
    report = stream.report()
    rows = Counter(direction for batch in batches for direction in batch.directions)
    assert report["examples"] == dict(rows) and report["batches"] == 150
    assert sum(report["target_tokens"].values()) == sum(batch.target_tokens for batch in batches)
    total = sum(batch.attention_mask.numel() for batch in batches)
    real = sum(int(batch.attention_mask.sum()) for batch in batches)
    assert report["padding"] == pytest.approx(1 - real / total)
    assert report["padding"] < 0.1
    # What was handed out is drawn by pools; the last pool is cut anywhere.
    statistic = sum(
        (report["examples"][d] - sum(rows.values()) * share) ** 2 / (sum(rows.values()) * share)
        for d, share in report["wanted_share"].items()
    )
    assert statistic < 13.8  # chi-square, 2 degrees of freedom, one in a thousand
    weights = {direction: len(store) ** (1 / 3) for direction, store in STORES.items()}
    expected = {direction: w / sum(weights.values()) for direction, w in weights.items()}
    assert report["wanted_share"] == pytest.approx(expected)
    assert report["share"] == pytest.approx(expected, abs=0.05)


def test_one_direction_gives_every_pair_once_per_pass(make: Any) -> None:
    store = STORES["de-en"]
    stream = make(stores={"de-en": store}, max_length=300)
    sources = [source for batch in islice(stream, 40) for source in batch.sources]
    for start in (0, 100):
        expected = sorted(store[i].source for i in range(100))
        assert sorted(sources[start : start + 100]) == expected


def test_long_examples_are_dropped_and_counted(make: Any) -> None:
    stream = make(max_length=40, length=60)
    lengths = [int(mask.sum()) for batch in stream for mask in batch.attention_mask]
    report = stream.report()
    assert max(lengths) <= 40 and report["too_long"]["en-de"] > 0 and report["too_long"]["ta"] == 0
    with pytest.raises(ValueError, match=r"data.max_length=3 is too small: .* the shortest has"):
        next(iter(make(max_length=3)))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 1}, "data.seed"),
        ({"tokens_per_batch": 500, "temperature": 2.0}, "data.temperature, data.tokens_per_batch"),
        ({"stores": {"en-de": STORES["en-de"]}}, "data.data"),
        ({"template": TEMPLATES["plain"]}, "data.template"),
    ],
)
def test_another_stream_is_refused(make: Any, change: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} changed since"):
        make(**change).load_state_dict(make().state_dict())
