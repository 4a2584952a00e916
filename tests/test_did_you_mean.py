"""Hints for unknown words."""

from polylect.did_you_mean import did_you_mean


def test_the_nearest_come_first() -> None:
    assert did_you_mean("tvs", ["tsv", "tmx", "jsonl"]) == "did you mean tsv?"
    assert did_you_mean("en-df", ["en-fr", "en-de", "en-ta"]) == "did you mean en-fr or en-de?"


def test_where_none_is_near_some_are_listed() -> None:
    assert did_you_mean("x", ["b", "a"]) == "known: a, b."
    many = [f"adapter{i:03}" for i in range(500)]
    hint = did_you_mean("x", many)
    assert hint.startswith("known: adapter000, adapter001, ")
    assert hint.endswith(", adapter019 and 480 more.")


def test_known_words_may_be_shown_otherwise() -> None:
    codes = {"german": "de", "ger": "de", "deu": "de"}
    assert did_you_mean("gerrman", codes, lambda word: codes[word]) == "did you mean de?"
    assert did_you_mean("x", codes, lambda word: codes[word]) == "known: de."
