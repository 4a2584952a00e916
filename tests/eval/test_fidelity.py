"""Numbers, placeholders and loops."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylect.eval.fidelity import loops, numbers_expected, numbers_lost, placeholders_lost


@pytest.mark.parametrize(
    ("source", "hypothesis"),
    [
        ("It has 3 rooms.", "Es hat 3 Zimmer."),
        ("Rs. 1,87,500 was paid.", "Es wurden 187500 Rupien bezahlt."),
        ("Rs. 1,87,500 was paid.", "१८७५०० रुपये दिए गए।"),
        ("Rs. 1,87,500 was paid.", "₹१,८७,५०० दिए गए।"),
        ("187,500 people", "187.500 Menschen"),
        ("187,500 people", "187 500 personnes"),
        ("187,500 people", "187\u202f500 personnes"),
        ("187,500 people", "187’500 Menschen"),
        ("He is 1.85 metres tall.", "Er ist 1,85 Meter groß."),
        ("1.50 euros", "1,5 Euro"),
        ("1,234.50 dollars", "1.234,50 Dollar"),
        ("on 12.05.2020", "on 5/12/2020"),
        ("at 09:30", "um 9.30 Uhr"),
        ("in 2020 300 came", "300 kamen 2020"),
        ("௧௨ பேர்", "12 people"),
        ("no number", "keine Zahl 5"),
    ],
)
def test_numbers_are_kept_in_any_digits_and_grouping(source, hypothesis):
    assert numbers_lost(source, hypothesis) == []


@pytest.mark.parametrize(
    ("source", "hypothesis", "lost"),
    [
        ("Rs. 1,87,500 was paid.", "Es wurden Rupien bezahlt.", ["1,87,500"]),
        ("Rs. 1,87,500 was paid.", "1,875 Rupien", ["1,87,500"]),
        ("१२ बच्चे और ५ घर", "12 children", ["5"]),
        ("1.5 litres", "15 Liter", ["1.5"]),
        ("15 litres", "1,5 Liter", ["15"]),
        ("1,000 litres", "1 Liter", ["1,000"]),
        ("3 of 30", "30", ["3"]),
        ("7", "", ["7"]),
    ],
)
def test_numbers_that_are_gone_are_named(source, hypothesis, lost):
    assert numbers_lost(source, hypothesis) == lost


def test_a_number_that_a_reference_spells_out_need_not_be_kept():
    source = "2 dogs and 40 cats"
    spelled = ["zwei Hunde und 40 Katzen"]
    assert numbers_lost(source, "Hunde und Katzen", spelled) == ["40"]
    assert numbers_lost(source, "Hunde und Katzen", [*spelled, "2 Hunde, vierzig Katzen"]) == []
    assert numbers_expected(source, spelled)
    assert not numbers_expected("2 dogs", ["zwei Hunde"])


DIGITS = ["0123456789", "०१२३४५६७८९", "௦௧௨௩௪௫௬௭௮௯", "০১২৩৪৫৬৭৮৯", "٠١٢٣٤٥٦٧٨٩"]


@given(
    st.integers(0, 10**12),
    st.sampled_from([",", ".", "\u00a0", "’"]),
    st.sampled_from(DIGITS),
    st.integers(0, 10**12),
)
def test_a_whole_number_survives_every_writing_and_is_not_another(number, mark, digits, other):
    written = f"{number:,}".replace(",", mark).translate(str.maketrans(DIGITS[0], digits))
    assert numbers_lost(f"a {number} b", f"c {written} d") == []
    assert numbers_lost(f"a {written} b", f"c {number} d") == []
    if other != number:
        assert numbers_lost(f"a {other} b", f"c {number} d") == [str(other)]


@pytest.mark.parametrize(
    ("source", "hypothesis", "lost"),
    [
        ("Delete {0} files?", "{0} Dateien löschen?", []),
        ("Delete {0} files?", "Dateien löschen?", ["{0}"]),
        ("%s of %s", "%s von", ["%s"]),
        ("%1$s sent %(count)d to %2$s", "%2$s %1$s", ["%(count)d"]),
        ("Press <b>Enter</b>", "<b>Eingabe drücken", ["</b>"]),
        ("Open ${HOME} now", "Öffne $HOME", ["${HOME}"]),
        ("Sure at 100 % since 5% said so", "Sicher", []),
        ("x < y and y > z", "x", []),
    ],
)
def test_placeholders(source, hypothesis, lost):
    assert placeholders_lost(source, hypothesis) == lost


def test_a_placeholder_that_a_reference_leaves_out_need_not_be_kept():
    assert placeholders_lost("{name}, {0}", "", ["{0}"]) == ["{0}"]


@given(st.text())
def test_a_copy_loses_nothing(text):
    assert numbers_lost(text, text) == []
    assert placeholders_lost(text, text) == []


@pytest.mark.parametrize(
    "text",
    [
        "the man the man the man the man",
        "Er sagt, er sagt, er sagt, er sagt, er",
        "A boy stands in the street. A boy stands in the street. A boy stands in the street.",
        "यह घर यह घर यह घर यह घर",
        "hahahahahahahaha",
        "No, no! No no.",
        "start ................",
        "- - - - - - - - - - - - -",
        "ok\nok\nok\nok\nok\nok",
    ],
)
def test_loops_are_found(text):
    assert loops(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It was very very good.",
        "No, no, no!",
        "aaaa bbbb cccc",
        "Wait ...",
        "The man saw the dog and the dog saw the man and the cat.",
        "Mississippi",
        "1000000000",
    ],
)
def test_ordinary_text_is_no_loop(text):
    assert not loops(text)


@given(
    st.text(alphabet="xyz. ", max_size=8),
    st.text(alphabet="abc", min_size=1, max_size=30),
    st.integers(4, 6),
)
def test_any_block_repeated_often_enough_is_a_loop(before, block, copies):
    assert loops(before + block * max(copies, -(-12 // len(block))) + before)
