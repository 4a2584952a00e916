"""What becomes of pairs, and what they are like, against counts made in another way."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from polylect.data.audit.counts import check_left, complete_report, warnings
from polylect.data.audit.page import counts_page, table
from polylect.data.audit.report import data_report, report_page
from polylect.data.audit.texts import Texts, fertility
from polylect.data.datamodule import TranslationData
from polylect.data.filters import HashSet, hold_out
from polylect.data.store import Pair
from polylect.models.context import Context


def write(folder: Path, name: str, pairs: list[tuple[str, str]]) -> str:
    lines = "".join(f"{source}\t{target}\n" for source, target in pairs)
    (folder / name).write_text(lines, encoding="utf-8")
    return name


def sentences(size: int, words: int = 4, seed: int = 0) -> list[tuple[str, str]]:
    """Pairs of distinct texts, with some empty ones, repetitions and long ones to lose."""
    draw = random.Random(seed)
    return [(f"cat {i} {'a ' * draw.randint(0, words)}", f"Katze {i}") for i in range(size)]


def make(folder: Path, tokenizer: PreTrainedTokenizerFast, **settings: Any) -> TranslationData:
    given = {"directions": ["en-de"], "template": "tag", "max_length": 40, "check_sides": False}
    data = TranslationData(**given | {"root": str(folder), "tokenizer": tokenizer} | settings)
    data.setup()
    return data


@pytest.fixture
def lossy(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> TranslationData:
    """Two corpora: of the first a tenth is too long, of the second a third is dropped."""
    long = [(f"dog {i} {'x' * 60}", f"Hund {i}") for i in range(10)]
    mixed = sentences(90) + long
    random.Random(1).shuffle(mixed)
    some = [*sentences(40, seed=2), *[("", "leer")] * 12, *[("cat 0", "Katze 0")] * 8]
    train = [write(tmp_path, "one.tsv", mixed), write(tmp_path, "two.tsv", some)]
    test = write(tmp_path, "test.tsv", [("new", "neu"), ("y" * 50, "lang"), ("z" * 60, "lang")])
    data = make(tmp_path, tokenizer, train=train, test=test, filters={"identical": True})
    data.context = Context(50, 50)
    return data


def test_every_pair_is_accounted_for(lossy: TranslationData) -> None:
    lengths = complete_report(lossy)
    counts = lossy.report["train"]["en-de"]
    one, two = counts["corpora"]
    examples = lossy.examples("en-de", "train")
    too_long = [example.length > lossy.max_length for example in examples]
    assert one["too_long"] == sum(too_long[:100]) >= 10 and two["too_long"] == sum(too_long[100:])
    assert two["dropped"] == {"empty": 12} and counts["dropped"] == {"empty": 12}
    for part in (one, two, counts):
        assert part["read"] == sum(part["dropped"].values()) + part["too_long"] + part["left"]
        assert part["per_epoch"] == part["left"]  # one direction: each pair once
    assert counts["read"] == 160 and counts["measured"] == counts["kept"] == 148
    assert lengths["train"]["en-de"].total.tolist() == [example.length for example in examples]


def test_losses_are_warned_of_with_the_setting(lossy: TranslationData) -> None:
    complete_report(lossy)
    messages = warnings(lossy)
    assert len(messages) == 3
    assert "one.tsv" in messages[0] and "data.max_length=40" in messages[0]
    assert "(the model takes 50)" in messages[0] and "raise it" in messages[0]
    assert "12 of 60 pairs" in messages[1] and "(20%)" in messages[1]
    assert "data.filters.empty=true" in messages[1]
    assert "test en-de: 2 of 3 pairs" in messages[2] and "first of them pair 2;" in messages[2]
    page = counts_page(lossy)
    assert [line for line in page.splitlines() if line.startswith("warning: ")] == [
        f"warning: {sentence}" for sentence in messages
    ]
    header, whole, first, second, *_ = page.splitlines()
    assert header.split() == ["data", "read", "empty", "too", "long", "left", "per", "epoch"]
    assert whole.split()[:4] == ["train", "en-de", "160", "12"]
    assert first.split()[0].endswith("one.tsv") and second.split()[0].endswith("two.tsv")


def test_a_twentieth_is_the_limit(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    for empty, expected in ((4, 0), (5, 1)):
        pairs = [*sentences(100 - empty), *[("", "leer")] * empty]
        data = make(tmp_path, tokenizer, train=write(tmp_path, f"{empty}.tsv", pairs))
        complete_report(data)
        assert len(warnings(data)) == expected


def test_what_is_drawn_follows_the_temperature(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    train = {
        "en-de": write(tmp_path, "large.tsv", sentences(900)),
        "de-en": write(tmp_path, "small.tsv", [p[::-1] for p in sentences(100, 40)]),
    }
    settings = {"directions": ["en-de", "de-en"], "temperature": 5.0, "filters": {"empty": True}}
    data = make(tmp_path, tokenizer, train=train, **settings)
    complete_report(data)
    stream = data.training_stream(3000)
    drawn, seen = Counter(), 0
    for batch in stream:
        drawn.update(batch.directions)
        counted = stream.report()
        seen = drawn.total() + sum(counted["too_long"].values())
        if seen >= 20_000:
            break
    assert counted["too_long"]["de-en"] > 0
    for direction, counts in data.report["train"].items():
        epochs = seen / 1000
        assert drawn[direction] / epochs == pytest.approx(counts["per_epoch"], rel=0.05)


def test_a_large_corpus_is_estimated(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    train = write(tmp_path, "large.tsv", sentences(2000, 30))
    data = make(tmp_path, tokenizer, train=train)
    complete_report(data, None)
    exact = dict(data.report["train"]["en-de"])
    complete_report(data, 500)
    counts = data.report["train"]["en-de"]
    assert counts["measured"] == 500 and exact["measured"] == 2000
    assert 0 < exact["too_long"] < 2000
    assert counts["too_long"] == pytest.approx(exact["too_long"], rel=0.1)
    assert f"~{counts['too_long']:,}" in counts_page(data) and "~ estimated" in counts_page(data)


def test_a_direction_without_a_pair_that_fits_is_refused(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    train = {
        "en-de": write(tmp_path, "a.tsv", sentences(5)),
        "de-en": write(tmp_path, "b.tsv", [("x" * 50, "y")]),
    }
    data = make(tmp_path, tokenizer, directions=["en-de", "de-en"], train=train)
    complete_report(data)
    assert data.report["train"]["de-en"]["left"] == 0
    with pytest.raises(ValueError, match=r"train de-en: none of 1 pairs is left: .*=40 tokens"):
        check_left(data)


def test_texts_are_counted_as_they_are_read() -> None:
    held_out = HashSet()
    hold_out([Pair("Where?", "Wo denn?")], "en-de", held_out)
    pairs = [
        ("A cat.", "Eine Katze."),
        ("A cat.", "Eine Katze."),  # the same
        ("a CAT!", "eine Katze"),  # the same but for case
        ("A cat.", "Кошка"),
        ("No.", "Eine Katze."),
        ("where", "anders"),
        ("", ""),
    ]
    texts = Texts("en-de", {"test": held_out})
    for pair in pairs:
        texts.add(*pair)
    report = texts.report()
    assert report["pairs"] == 7
    assert report["duplicates"] == {"exact": 1, "normalised": 2, "source": 2, "target": 2}
    assert report["overlap"] == {"test": 1}
    letters = Counter("".join(target for _, target in pairs if target.isascii()))
    latin = sum(n for letter, n in letters.items() if letter.isalpha())
    assert report["target"]["scripts"] == {
        "Latin": pytest.approx(latin / (latin + 5)),
        "Cyrillic": pytest.approx(5 / (latin + 5)),
    }
    assert report["target"]["own_script"] == report["target"]["scripts"]["Latin"]
    assert report["source"]["words"] == 2 + 2 + 2 + 2 + 1 + 1
    assert report["source"]["characters"] == sum(len(source) for source, _ in pairs)


def test_fertility_is_tokens_by_words(
    tokenizer: PreTrainedTokenizerFast, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    texts = ["a b", "soup is hot"]
    of_bytes = fertility(tokenizer, ["வணக்கம்"], "ta")  # seven characters of three bytes
    assert of_bytes["per_character"] == 3 and of_bytes["per_word"] == 21
    of_words = fertility(word_tokenizer, texts, "en")
    assert of_words["per_word"] == 1 and of_words["unknown"] == pytest.approx(1 / 5)
    assert fertility(tokenizer, ["你好"], "zh")["per_word"] is None
    assert fertility(tokenizer, [], "de")["per_word"] is None


def test_the_report_is_json_and_a_page(lossy: TranslationData) -> None:
    report = json.loads(json.dumps(data_report(lossy, None)))
    assert report["counts"]["train"]["en-de"]["kept"] == 148
    assert report["warnings"] == warnings(lossy)
    histogram = report["lengths"]["train"]["en-de"]
    totals = [example.length for example in lossy.examples("en-de", "train")]
    assert sum(histogram["counts"]) == 148 and histogram["total"]["max"] == max(totals)
    assert histogram["total"]["median"] == float(np.median(totals))
    for low, high, count in zip(
        histogram["edges"][:-1], histogram["edges"][1:], histogram["counts"], strict=True
    ):
        assert count == sum(low <= total < high for total in totals)
    texts = report["texts"]["train"]["en-de"]
    assert texts["pairs"] == 160  # before the filters
    assert texts["duplicates"]["exact"] >= 11 + 7
    assert set(report["fertility"]) == {"en", "de"}
    page = report_page(lossy, report)
    over = [line.split() for line in page.splitlines() if "> max_length" in line]
    assert over[0][0].startswith("41-")
    assert sum(int(cells[3]) for cells in over) == report["counts"]["train"]["en-de"]["too_long"]
    assert "repeated, as read" in page


def test_columns_are_aligned() -> None:
    assert table([["a", "bb"], ["ccc", "d"]]) == "a    bb\nccc   d"
