"""The rule by which a text is cleaned, against what the rule says of single characters."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylect.data.text import clean_lines, clean_texts, one_line

# Every character by itself: what must become of it between two letters.
BREAKS = set("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029")
REMOVED = {"\xad", "\ufeff"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def expected(character: str) -> str:
    if character in BREAKS:
        return "a b"
    if character in REMOVED or unicodedata.category(character) == "Cc":
        return "ab"
    return f"a{character}b"


def test_every_character_between_two_letters_is_kept_replaced_or_removed_by_the_rule() -> None:
    for code in [*range(0x3100), *range(0xFE00, 0x10000), *range(0xE0000, 0xE0200)]:
        assert one_line(f"a{chr(code)}b") == expected(chr(code)), hex(code)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  a b ", "a b"),
        ("\ufeffa", "a"),
        ("\u3000a\u00a0", "a"),
        ("\u200ba\u2060", "a"),
        ("a\r\n\r\n  b", "a b"),
        ("a \t b", "a b"),
        ("a  b", "a  b"),  # several spaces are no layout
        ("Quoi\u00a0?", "Quoi\u00a0?"),
        ("10\u202f000", "10\u202f000"),
        ("日本\u3000語", "日本\u3000語"),
        ("क्\u200dष", "क्\u200dष"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("ភាសា\u200bខ្មែរ", "ភាសា\u200bខ្មែរ"),
        ("\u200fשלום\u200e!", "\u200fשלום\u200e!"),
        ("Donau\xaddampf\xadschiff", "Donaudampfschiff"),
        ("e\u0301", "e\u0301"),
        ("❤\ufe0f", "❤\ufe0f"),
    ],
)
def test_what_the_rule_says(text: str, cleaned: str) -> None:
    assert one_line(text) == cleaned


@pytest.mark.parametrize(
    "text", ["", " ", "\n\t", "\ufeff", "\u3000", "\0\x07", "\u200b\u200d", "\u200e"]
)
def test_a_text_in_which_nothing_can_be_seen_is_empty(text: str) -> None:
    assert one_line(text) == ""


@settings(max_examples=300)
@given(TEXT)
def test_cleaning_twice_is_cleaning_once_and_gives_one_line(text: str) -> None:
    cleaned = one_line(text)
    assert one_line(cleaned) == cleaned == cleaned.strip()
    assert len(cleaned.splitlines()) <= 1 and "\t" not in cleaned
    assert one_line(f" \ufeff{text}\r\n") == cleaned


def test_runs_of_white_space_take_no_time() -> None:
    text = "a" + " " * 200_000 + "\n" + " " * 200_000 + "b" + "\u00a0" * 200_000 + "c"
    assert one_line(text) == "a b" + "\u00a0" * 200_000 + "c"


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"character 3, U\+D83D, is half of a surrogate pair"):
        one_line("ab\ud83d")


def test_texts_are_numbered_in_errors() -> None:
    assert clean_texts([" a ", "\ufeff"]) == ["a", ""]
    with pytest.raises(ValueError, match=r"text 2: character 1, U\+DE00"):
        clean_texts(["a", "\ude00"])
    with pytest.raises(ValueError, match="text 1 is NoneType, not text"):
        clean_texts([None])


def test_several_lines_stay_lines() -> None:
    assert clean_lines("\ufeff One. \r\n\n\u3000Two.\u2028Three.\n") == "One.\nTwo.\nThree."
