"""Planted faults are counted exactly."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylect.eval.diagnosis import Diagnosis, Rate, diagnose

SCRIPTS = {"en": ["Latin"], "de": ["Latin"], "fr": ["Latin"], "hi": ["Devanagari"]}

# (source, hypothesis, reference, stopped at the length limit, what is wrong)
PLANTED = [
    ("The children are asleep.", "Die Kinder schlafen schon.", "Die Kinder schlafen.", False, ""),
    ("She reads a good book.", "Sie liest ein gutes Buch.", "Sie liest ein Buch.", False, ""),
    ("We go home by train.", "Nous rentrons en train ce soir.", "Wir fahren.", False, "off_target"),
    ("He drinks cold milk.", "वह ठंडा दूध पीता है।", "Er trinkt Milch.", False, "off_target"),
    ("The old man is tired.", "The old man is tired", "Der Alte.", False, "off_target echo"),
    ("My brother lives in Berlin.", "My brother lives in Berlin!!", "Er.", True,
     "off_target echo length_cap"),
    ("It rains.", " ", "Es regnet.", False, "empty"),
    ("The dog barks.", "", "Der Hund bellt.", False, "empty"),
    ("A man runs.", "Ein Mann läuft und läuft und läuft und läuft und läuft und", "Ein Mann.",
     True, "length_cap repetition"),
    ("Rs. 1,87,500 was paid to him.", "Ihm wurden viele Rupien bezahlt.", "187.500 Rupien.", False,
     "numbers_lost"),
    ("There are 12 of them here.", "Hier sind १२ von ihnen zu sehen.", "Hier sind 12.", False, ""),
    ("Delete {0} files now?", "Sollen die Dateien nun weg?", "{0} Dateien?", False,
     "numbers_lost placeholders_lost"),
    ("Barack Obama", "Barack Obama", "Barack Obama", False, ""),
    ("Yes.", "Ja.", "Ja.", False, "undecided"),
    ("Oh.", "42", "42", False, "undecided"),
]  # fmt: skip


def diagnosed(**changes: object) -> Diagnosis:
    sources, hypotheses, references, capped, _ = zip(*PLANTED, strict=True)
    settings = {
        "source_lang": "en",
        "target_lang": "de",
        "candidates": ["fr", "hi"],
        "scripts": SCRIPTS,
        "lengths_hit": list(capped),
    }
    refs = [[reference] for reference in references]
    return diagnose(list(sources), list(hypotheses), refs, **settings | changes)


@pytest.mark.parametrize(
    "name",
    ["off_target", "echo", "empty", "length_cap", "repetition", "numbers_lost",
     "placeholders_lost"],
)  # fmt: skip
def test_planted_faults_are_found_where_they_are_and_nowhere_else(name):
    rate = getattr(diagnosed(), name)
    planted = tuple(i for i, row in enumerate(PLANTED) if name in row[-1].split())
    assert planted
    assert rate.lines == planted


def test_sources_that_were_too_long_are_counted_and_are_empty():
    diagnosis = diagnosed(too_long=[i in (6, 7) for i in range(len(PLANTED))])
    assert diagnosis.too_long == Rate((6, 7), len(PLANTED)) == diagnosis.empty
    assert diagnosis.to_dict()["too_long"]["lines"] == [7, 8]
    assert diagnosed().too_long is None and "too_long" not in diagnosed().to_dict()
    with pytest.raises(ValueError, match="15 hypotheses but 1 too_long"):
        diagnosed(too_long=[True])


def test_rates_are_shares_of_what_could_be_judged():
    diagnosis = diagnosed()
    assert diagnosis.segments == len(PLANTED)
    assert diagnosis.empty.of == diagnosis.echo.of == diagnosis.length_cap.of == len(PLANTED)
    assert diagnosis.repetition.of == diagnosis.undecided.of == len(PLANTED) - 2  # two are empty
    assert diagnosis.off_target.of == diagnosis.undecided.of - diagnosis.undecided.count
    assert diagnosis.numbers_lost.of == 3 and diagnosis.numbers_lost.rate == pytest.approx(2 / 3)
    assert diagnosis.placeholders_lost.of == 1
    assert {13, 14} <= set(diagnosis.undecided.lines)
    assert sum(diagnosis.languages.values()) == len(PLANTED) - 2
    assert diagnosis.languages["hi"] == diagnosis.languages["fr"] == 1


def test_a_name_that_the_reference_keeps_is_no_echo_but_without_reference_it_is():
    row = {"source_lang": "en", "target_lang": "de"}
    assert diagnose(["Barack Obama"], ["Barack Obama"], [["Barack Obama"]], **row).echo.count == 0
    assert diagnose(["Barack Obama"], ["Barack Obama"], [[]], **row).echo.count == 1


def test_a_nearly_copied_source_is_an_echo_unless_the_languages_are_as_close():
    source = "The government will present its plans to parliament on Monday."
    copy = source.replace("Monday", "Mondays")
    row = {"source_lang": "en", "target_lang": "de"}
    reference = "Die Regierung stellt ihre Pläne am Montag im Parlament vor."
    assert diagnose([source], [copy], [[reference]], **row).echo.count == 1
    near = source.replace("Monday", "Sunday")
    assert diagnose([source], [copy], [[reference, near]], **row).echo.count == 0


def test_a_loop_in_the_source_may_be_translated():
    row = {"source_lang": "en", "target_lang": "hi"}
    assert diagnose(["Ha ha ha ha!"], ["हा हा हा हा हा हा"], [[]], **row).repetition.count == 0
    assert diagnose(["Good."], ["हा हा हा हा हा हा"], [[]], **row).repetition.count == 1


def test_synthetic_tongues_without_a_script_of_their_own_are_undecided():
    row = {"source_lang": "en", "target_lang": "qaa", "scripts": {"en": ["Latin"], "qaa": []}}
    diagnosis = diagnose(["The dog sees it."], ["bomu lirat kevosanu"], [["bomu"]], **row)
    assert (diagnosis.undecided.count, diagnosis.off_target.of) == (1, 0)
    assert math.isnan(diagnosis.off_target.rate)


def test_an_empty_source_may_stay_empty():
    diagnosis = diagnose(["", "x"], ["", ""], [[""], ["y"]], source_lang="en", target_lang="de")
    assert diagnosis.empty == Rate((1,), 1)


def test_length_ratio_and_missing_information():
    diagnosis = diagnosed(lengths_hit=None)
    assert diagnosis.length_cap is None and "length_cap" not in diagnosis.to_dict()
    row = {"source_lang": "en", "target_lang": "de"}
    assert diagnose(["a"], ["abcd"], [["ab", "x"]], **row).length_ratio == 2
    assert math.isnan(diagnose(["a"], ["abcd"], [[]], **row).length_ratio)


def test_the_dictionary_is_plain_json_with_line_numbers_from_one():
    values = json.loads(json.dumps(diagnosed().to_dict(), allow_nan=False))
    assert values["segments"] == len(PLANTED)
    assert values["empty"] == {"count": 2, "of": 15, "rate": 2 / 15, "lines": [7, 8]}


@pytest.mark.parametrize("name", ["sources", "references", "lengths_hit"])
def test_unequal_lengths_are_refused(name):
    lists = {"sources": ["a"] * 2, "references": [["a"]] * 2, "lengths_hit": [False] * 2}
    lists[name] = lists[name][:1]
    with pytest.raises(ValueError, match=f"2 hypotheses but 1 {name}"):
        diagnose(
            lists["sources"],
            ["a"] * 2,
            lists["references"],
            source_lang="en",
            target_lang="de",
            lengths_hit=lists["lengths_hit"],
        )


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), max_size=5))
def test_any_text_can_be_diagnosed_and_a_perfect_output_is_faultless(pairs):
    sources, references = [s for s, _ in pairs], [[r] for _, r in pairs]
    diagnosis = diagnose(
        sources, [r for _, r in pairs], references, source_lang="en", target_lang="de"
    )
    for name in ("echo", "repetition", "numbers_lost", "placeholders_lost"):
        assert getattr(diagnosis, name).count == 0
    assert diagnosis.undecided.count + diagnosis.off_target.of == diagnosis.undecided.of
