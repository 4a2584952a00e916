"""Matches of a translation memory against a search through all pairs by the plain definition."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from polylect.files import write_text
from polylect.retrieval.memory import Match, Memory

WORDS = ["red", "fox", "sees", "the", "old", "house", "and", "sleeps"]


def distance(one: list[str], other: list[str]) -> int:
    """Least number of words to insert, delete or replace, row by row of the usual table."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


def memory(folder: Path, pairs: list[tuple[str, str]], **settings: Any) -> Memory:
    path = folder / "memory.tsv"
    write_text(path, "".join(f"{source}\t{target}\n" for source, target in pairs))
    return Memory(corpus=str(path), **settings)


def test_matches_are_those_of_a_search_through_all_pairs(tmp_path: Path) -> None:
    draw = random.Random(0)
    sources = [" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for _ in range(60)]
    sources = list(dict.fromkeys(sources))
    pairs = [(source, f"t{number}") for number, source in enumerate(sources)]
    translation_memory = memory(tmp_path, pairs, matches=4, threshold=0.4, candidates=60)
    for _ in range(20):
        sentence = " ".join(draw.choices(WORDS, k=6))
        scored = []
        for number, source in enumerate(sources):
            ours, theirs = sentence.split(), source.split()
            score = 1 - distance(ours, theirs) / max(len(ours), len(theirs))
            # Exactly at the threshold rounding would decide.
            if abs(score - 0.4) > 1e-9 and score > 0.4 and source != sentence:
                scored.append((-round(score, 6), number))
        expected = [f"t{number}" for _, number in sorted(scored)[:4]]
        assert [
            m.target for m in translation_memory.find(sentence, "en-de") if m.score > 0.4001
        ] == expected


def test_the_sentence_itself_is_shown_only_where_it_may_be(tmp_path: Path) -> None:
    pairs = [("The cat sleeps here.", "a"), ("the cat sleeps here", "b"), ("My cat sleeps!", "c")]
    hidden = memory(tmp_path, pairs)
    assert [m.target for m in hidden.find("The cat sleeps here!", "en-de")] == ["c"]
    assert [m.target for m in hidden.find("My old cat sleeps!", "en-de")] == ["c"]
    assert hidden.counts["en-de"] == {"sentences": 2, "matched": 2, "matches": 2, "same": 1}
    assert "1 in the memory themselves, not shown" in hidden.summary()
    once = memory(tmp_path, pairs)
    once.find("My old cat sleeps!", "en-de")
    assert once.summary().startswith("memory: 1 of 1 sentences with a match, 1 matches shown, 0 ")
    assert json.dumps(once.report()["counts"]["en-de"]).count("true") == 0
    shown = memory(tmp_path, pairs, exact=True)
    assert shown.find("The cat sleeps here.", "en-de")[0] == Match("The cat sleeps here.", "a", 1.0)
    assert "not shown" not in shown.summary()


def test_the_best_come_first_and_weak_ones_not_at_all(tmp_path: Path) -> None:
    pairs = [
        ("we read the new book", "far"),
        ("we read an old book", "near"),
        ("they read an old book", "as near"),
        ("we read", "weak"),
    ]
    asked = "you read an old book"
    targets = {
        count: [m.target for m in memory(tmp_path, pairs, matches=count).find(asked, "en-de")]
        for count in (1, 2, 4)
    }
    assert targets == {1: ["near"], 2: ["near", "as near"], 4: ["near", "as near"]}
    everything = memory(tmp_path, pairs, matches=4, threshold=0).find(asked, "en-de")
    assert [m.target for m in everything] == ["near", "as near", "far", "weak"]


def test_repeated_and_empty_pairs_take_no_place(tmp_path: Path) -> None:
    pairs = [("we read a book", "t"), ("We read a book.", "T"), ("", "x"), ("we read", ""), *[
        ("we read a book", "u")
    ]]  # fmt: skip
    translation_memory = memory(tmp_path, pairs, matches=5).find("we read a newspaper", "en-de")
    assert [m.target for m in translation_memory] == ["t", "u"]


@pytest.mark.parametrize(
    ("asked", "near", "far"),
    [
        ("मैं किताब पढ़ता हूँ।", "मैं अखबार पढ़ता हूँ।", "वह घर जाती है।"),
        ("我今天看书。", "我昨天看书。", "他们去北京。"),
        ("แมวกินปลาในบ้าน", "แมวกินนกในบ้าน", "ฝนตกหนักมาก"),
        ("Я читаю новую книгу.", "я читаю старую книгу.", "Дом стоит на горе."),
    ],
)
def test_matches_are_found_in_every_script(asked: str, near: str, far: str, tmp_path: Path) -> None:
    (match,) = memory(tmp_path, [(far, "far"), (near, "near")]).find(asked, "hi-en")
    assert match.target == "near"
    assert match.score < 1


def test_one_corpus_serves_both_directions(tmp_path: Path) -> None:
    write_text(tmp_path / "m.en", "we read a book\nthe sea is blue\n")
    write_text(tmp_path / "m.de", "wir lesen ein Buch\ndas Meer ist blau\n")
    both = Memory(corpus="m.{lang}", root=str(tmp_path))
    assert both.find("we read the book", "en-de")[0].target == "wir lesen ein Buch"
    assert both.find("das Meer war blau", "de-en")[0].target == "the sea is blue"
    assert both.report()["counts"].keys() == {"en-de", "de-en"}


def test_a_sentence_is_looked_up_as_it_is_translated(tmp_path: Path) -> None:
    pairs = [("we read an old book", "t"), ("we read a\u00adnother book", "u")]
    translation_memory = memory(tmp_path, pairs)
    plain = translation_memory.find("we read another book", "en-de")
    assert translation_memory.find("\ufeff we read another\u00ad book\0\r\n", "en-de") == plain
    assert [(m.source, m.target) for m in plain] == [("we read an old book", "t")]


def test_a_swapped_memory_is_refused(tmp_path: Path) -> None:
    german = ["Wir lesen heute ein altes Buch.", "Das Meer ist blau und sehr tief."]
    english = ["We are reading an old book today.", "The sea is blue and very deep."]
    swapped = list(zip(german, english, strict=True))
    with pytest.raises(ValueError, match=r"memory of 'en-de': .*source: 1, target: 0"):
        memory(tmp_path, swapped).find("We read.", "en-de")
    assert memory(tmp_path, swapped, check_sides=False).find("We read.", "en-de") == []


def test_mistakes_are_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"memory\.threshold must be from 0 to 1, got 50"):
        Memory(corpus="m.tsv", threshold=50)
    with pytest.raises(ValueError, match=r"memory\.matches must be at least 1, got 0"):
        Memory(corpus="m.tsv", matches=0)
    with pytest.raises(ValueError, match=r"memory\.corpus names no corpus"):
        Memory(corpus=None)
    with pytest.raises(FileNotFoundError, match="missing"):
        Memory(corpus=str(tmp_path / "missing.tsv")).find("a", "en-de")
    with pytest.raises(ValueError, match="nothing for direction 'en-fr'"):
        Memory(corpus={"en-fr": None}).find("a", "en-fr")
