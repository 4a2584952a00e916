"""Runs of words that training text shares with what is scored: the filter, and the report."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylect.data.audit.contamination import SEEN_SHARE, WORDS, Contamination
from polylect.data.audit.report import data_report, report_page
from polylect.data.corpora.rows import Row
from polylect.data.datamodule import TranslationData
from polylect.data.filters import ngram_hashes

TEXTS = st.lists(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=14).map(" ".join), max_size=6
)


def runs(text: str, size: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}


@given(train=TEXTS, test=TEXTS)
@settings(max_examples=60)
def test_sentences_seen_are_those_of_a_search(train: list[str], test: list[str]) -> None:
    """The oracle holds all runs of the training text as tuples."""
    contamination = Contamination()
    contamination.add_scored("test", "en-de", [Row(1, text, text) for text in test])
    for text in train:
        contamination.see("en-fr", text, "x")
    known = set[tuple[str, ...]]().union(*(runs(text, WORDS) for text in train))

    def share(text: str) -> float:
        words = text.split()
        own = [tuple(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))]
        return sum(run in known for run in own) / len(own)

    seen = sum(share(text) >= SEEN_SHARE for text in test)
    expected = {"test": {"en-de": {"sentences": len(test), "source": seen, "target": 0}}}
    assert contamination.report() == (expected if test else {})


def test_words_are_compared_without_case_marks_and_spaces() -> None:
    def shared(code: str, first: str, second: str, size: int) -> int:
        return len(set(ngram_hashes(code, first, size)) & set(ngram_hashes(code, second, size)))

    assert shared("en", "He said: “No, thanks!”", "he SAID no thanks", 4) == 1
    assert shared("hi", "वह घर गया था।", "कल वह घर गया", 3) == 1
    assert shared("ja", "猫は家で寝る。", "その猫は家で", 4) == 1
    assert shared("pt_BR", "um dois três", "um dois três", 2) == 2
    assert not set(ngram_hashes("en", "die in", 2)) & set(ngram_hashes("de", "die in", 2))
    assert len(set(ngram_hashes("en", "one", 8))) == len(set(ngram_hashes("en", "", 8))) == 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shared = "the old man walked slowly along the river bank"
    train = [f"Yesterday {shared} again.", "The river bank was old.", "Good morning!", "A new one."]
    (tmp_path / "train.en").write_text("".join(f"{line}\n" for line in train))
    (tmp_path / "train.de").write_text("".join(f"Satz {i} hier.\n" for i in range(4)))
    (tmp_path / "test.en").write_text(f"{shared.capitalize()}.\nGood Morning\nSomething else\n")
    (tmp_path / "test.de").write_text("Satz eins.\nSatz zwei.\nSatz drei.\n")
    return tmp_path


def make(folder: Path, tokenizer: Any, **filters: Any) -> TranslationData:
    data = TranslationData(
        directions=["en-de"],
        train=str(folder / "train.{lang}"),
        test=str(folder / "test.{lang}"),
        filters=filters,
        tokenizer=tokenizer,
        template="tag",
    )
    data.setup()
    return data


def test_the_filter_drops_and_counts_what_shares_a_run(folder: Path, tokenizer: Any) -> None:
    data = make(folder, tokenizer, ngrams=5)
    assert data.report["train"]["en-de"]["dropped"] == {"overlap": 1, "ngrams": 1}
    alone = make(folder, tokenizer, ngrams=5, overlap=False)
    assert alone.report["train"]["en-de"]["dropped"] == {"ngrams": 2}
    assert make(folder, tokenizer, ngrams=10).report["train"]["en-de"]["dropped"] == {"overlap": 1}
    with pytest.raises(ValueError, match=r"filters\.ngrams must be a whole number above 1"):
        make(folder, tokenizer, ngrams=True)


def test_the_report_counts_sentences_that_training_text_has(folder: Path, tokenizer: Any) -> None:
    data = make(folder, tokenizer)
    report = data_report(data, None)
    assert report["contamination"] == {
        "test": {"en-de": {"sentences": 3, "source": 2, "target": 0}}
    }
    assert "in training text, by 8 words  sentences  source  target" in report_page(data, report)
    lean = data_report(data, None, repetitions=False)
    assert lean["contamination"] == report["contamination"]
    assert lean["texts"]["train"]["en-de"]["duplicates"] == {}
    repeated = report_page(data, lean).partition("repeated, as read")[2].splitlines()
    assert repeated[1].split() == ["train", "en-de", "4", "0", "1"]
