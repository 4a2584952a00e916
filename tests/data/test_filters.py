import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylect.data.filters import HashSet, PairFilter, check_filters, hold_out, normalise
from polylect.data.store import Pair

OFF = {"empty": False, "overlap": False}


def reasons(pairs: list[tuple[str | None, str]], direction: str = "en-de", **on: object) -> list:
    keep = PairFilter(check_filters({**OFF, **on}), direction, HashSet())
    return [keep.reason(source, target) for source, target in pairs]


@pytest.mark.parametrize(
    ("filters", "dropped", "kept"),
    [
        ({"empty": True}, [("", "b"), ("a", "")], [("a", "b")]),
        ({"max_characters": 3}, [("abcd", "b"), ("a", "abcd")], [("abc", "abc")]),
        ({"max_words": 2}, [("a b c", "d"), ("a", "b c d")], [("a b", "c d")]),
        ({"length_ratio": 2.0}, [("ab", "abcde"), ("abc", "a"), ("a", "")], [("ab", "abcd")]),
        (
            {"script": 0.6},
            [("привет", "Hallo"), ("Hi", "привет an")],
            [("Hi", "Hallo"), ("1", "2")],
        ),
        ({"identical": True}, [("a", "a")], [("a", "A"), ("a", "b")]),
    ],
)
def test_each_filter_drops_and_keeps(filters: dict, dropped: list, kept: list) -> None:
    (name,) = filters
    assert reasons(dropped, **filters) == [name] * len(dropped)
    assert reasons(kept, **filters) == [None] * len(kept)
    assert reasons(dropped + kept) == [None] * len(dropped + kept)  # off


def test_duplicates_after_the_first_are_dropped() -> None:
    pairs = [("A cat.", "Eine Katze."), ("a cat", "eine katze!"), ("A cat.", "Ein Kater.")]
    assert reasons(pairs, duplicate=True) == [None, "duplicate", None]


def test_the_first_filter_counts() -> None:
    assert reasons([("", "")], empty=True, identical=True) == ["empty"]
    assert reasons([("a", "a"), ("a", "a")], identical=True, duplicate=True) == ["identical"] * 2


def test_monolingual_text_has_one_side() -> None:
    on = {"empty": True, "length_ratio": 1.0, "identical": True, "script": 1.0, "max_words": 2}
    assert reasons([(None, "ein Text"), (None, ""), (None, "много")], "de", **on) == [
        None,
        "empty",
        "script",
    ]


@pytest.mark.parametrize(
    ("direction", "pair", "reason"),
    [
        ("en-de", ("THE SOUP IS HOT", "etwas anderes"), "overlap"),  # either side
        ("en-de", ("something else", "die suppe ist heiß!"), "overlap"),
        ("en-de", ("something else", "Heiß ist die Suppe"), "overlap"),  # a reference
        ("de-en", ("Die Suppe ist heiß.", "something else"), "overlap"),  # any direction
        ("fr-en", ("autre chose", "The soup is hot."), "overlap"),
        ("de", (None, "Die Suppe ist heiß."), "overlap"),
        ("en-fr", ("something else", "Die Suppe ist heiß."), None),  # another language
        ("en-de", ("The soup was hot.", "Die Suppe war heiß."), None),
    ],
)
def test_overlap_with_held_out_text(direction: str, pair: tuple, reason: str | None) -> None:
    held_out = HashSet()
    test_set = [Pair("The soup is hot.", "Die Suppe ist heiß.", ("Heiß ist die Suppe.",))]
    hold_out(test_set, "en-de", held_out)
    assert PairFilter(check_filters({}), direction, held_out).reason(*pair) == reason


def test_normalised_keeps_what_tells_words_apart() -> None:
    assert normalise("Straße, 3!") == normalise("STRASSE 3") == "strasse3"
    assert normalise("की") != normalise("का")  # vowel signs are marks, not letters
    assert normalise("...") != normalise("?!")  # nothing but punctuation stays as it is


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=50))
def test_hash_set_is_a_set(keys: list[int]) -> None:
    ours, python = HashSet(), set()
    for key in keys:
        key = key or 1  # 0 and 1 are one key: 0 marks free slots
        assert ours.add(key) == (key not in python)
        python.add(key)
    assert len(ours) == len(python) and all(key in ours for key in keys)


def test_hash_set_grows() -> None:
    ours = HashSet()
    keys = [i * 2**40 + 7 for i in range(2000)]  # all of them begin at one slot
    assert all(ours.add(key) for key in keys[:150]) and not any(ours.add(k) for k in keys[:150])
    spread = range(1, 2000)
    assert sum(ours.add(key) for key in spread) == len(set(spread) - set(keys[:150]))
    assert all(key in ours for key in spread) and 2001 not in ours


def test_defaults_are_empty_and_overlap() -> None:
    assert check_filters({}) == {"empty": True, "overlap": True}
    assert check_filters({"empty": False, "overlap": None, "script": 0.5}) == {"script": 0.5}


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"lenght_ratio": 3}, "filters=lenght_ratio does not exist; did you mean length_ratio"),
        ({"length_ratio": 0.5}, "filters.length_ratio must be a number of at least 1"),
        ({"script": 2}, "filters.script must be a share"),
        ({"empty": 1}, "filters.empty must be true or false"),
        ({"max_words": 0}, "filters.max_words must be a whole number above 0"),
        ({"max_words": True}, "filters.max_words must be"),
    ],
)
def test_wrong_settings(filters: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_filters(filters)
