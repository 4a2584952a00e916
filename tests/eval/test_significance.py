"""Paired tests are sacreBLEU's, and Holm's correction is Holm's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from polylect.eval.significance import Outputs, compare, holm

WORDS = [
    "the",
    "old",
    "man",
    "sees",
    "a",
    "small",
    "red",
    "house",
    "near",
    "the",
    "river",
    "and",
    "the",
    "green",
    "boat",
]
REFERENCES = [" ".join(WORDS[i % 5 : i % 5 + 6 + i % 3]) for i in range(40)]
ONE_WORD_WRONG = [" ".join(["x", *line.split()[1:]]) for line in REFERENCES]
TWO_WORDS_WRONG = [" ".join(["x", *line.split()[1:-1], "y"]) for line in REFERENCES]
REFS = [[line] for line in REFERENCES]


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04; the last may not
    # be below the one before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_between_no_correction_and_bonferronis_and_keeps_the_order(p):
    corrected = holm(p)
    for raw, value in zip(p, corrected, strict=True):
        assert raw <= value <= min(1.0, len(p) * raw)
    order = sorted(range(len(p)), key=p.__getitem__)
    assert [corrected[i] for i in order] == sorted(corrected)


@pytest.mark.parametrize(("test", "kind"), [("bootstrap", "bs"), ("randomization", "ar")])
def test_scores_p_values_and_signatures_are_sacrebleus(test, kind):
    (actual,) = compare(
        {"en-de": Outputs(TWO_WORDS_WRONG, {"b": ONE_WORD_WRONG}, REFS)},
        metric="bleu",
        test=test,
        samples=100,
    )
    systems = [("a", TWO_WORDS_WRONG), ("b", ONE_WORD_WRONG)]
    signatures, scores = PairedTest(systems, {"b": BLEU()}, [REFERENCES], kind, n_samples=100)()
    baseline, system = scores["BLEU"]
    assert (actual.baseline, actual.system, actual.p) == (
        baseline.score,
        system.score,
        system.p_value,
    )
    assert actual.signature == signatures["BLEU"].format()
    assert f"{kind}:100|seed:12345" in actual.signature
    assert actual.difference > 0 and actual.p < 0.05


def test_several_systems_are_corrected_together():
    systems = {"one": ONE_WORD_WRONG, "same": list(TWO_WORDS_WRONG), "all": REFERENCES}
    actual = compare({"en-de": Outputs(TWO_WORDS_WRONG, systems, REFS)}, samples=100)
    assert [c.name for c in actual] == ["one", "same", "all"]
    assert actual[0].p_holm == pytest.approx(3 * actual[0].p)
    assert actual[1].p_holm == 1
    assert actual[2].system == 100


def test_several_directions_are_corrected_together():
    same = Outputs(ONE_WORD_WRONG, {"b": ONE_WORD_WRONG}, REFS)
    better = Outputs(TWO_WORDS_WRONG, {"b": ONE_WORD_WRONG}, REFS)
    result = {c.direction: c for c in compare({"en-de": better, "en-hi": same}, samples=100)}
    assert result["en-de"].p_holm == pytest.approx(2 * result["en-de"].p)
    # Equal systems are not significantly different; sacreBLEU alone would say p = 1 / 101.
    assert (result["en-hi"].difference, result["en-hi"].p, result["en-hi"].p_holm) == (0, 1, 1)
    assert [c.p_holm for c in compare({"en-de": better}, samples=100)] == [result["en-de"].p]


@pytest.mark.parametrize("test", ["bootstrap", "randomization"])
@pytest.mark.parametrize("differing", [1, 2, 3, 5, 6, 9])
def test_p_is_no_smaller_than_the_lines_that_differ_admit(test, differing):
    """The exact test of swapped lines, all of which one system does better: two of 2 ** k ways."""
    better = REFERENCES[:differing] + ONE_WORD_WRONG[differing:]
    (actual,) = compare({"en-de": Outputs(ONE_WORD_WRONG, {"b": better}, REFS)}, test=test)
    assert actual.difference > 0
    assert actual.p >= 2 / 2**differing
    assert (actual.p < 0.05) <= (differing >= 6)


def test_the_tokenizer_follows_the_direction():
    pair = Outputs(
        ["यह घर है।"] * 3, {"b": ["यह एक घर है।"] * 3}, [["यह एक घर है।"], ["घर", "यह"], ["घर"]]
    )
    (actual,) = compare({"en-hi": pair}, metric="bleu", samples=10)
    assert "tok:intl" in actual.signature and "nrefs:var" in actual.signature


@pytest.mark.parametrize(
    ("pair", "settings", "message"),
    [
        (Outputs(["a", "b"], {"x": ["a"]}, [["a"], ["b"]]), {}, "2 outputs and x 1"),
        (Outputs(["a"], {"x": ["a"]}, []), {}, "1 hypotheses .* 0 lines"),
        (Outputs(["a"], {"x": ["b"]}, [["a"]]), {}, "in en-de there is one line, which tells"),
        (Outputs(["a"] * 2, {"x": ["a"] * 2}, [["a"]] * 2), {"metric": "blue"}, "mean bleu"),
        (Outputs(["a"], {"x": ["a"]}, [["a"]]), {"samples": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_tested_is_refused(pair, settings, message):
    with pytest.raises(ValueError, match=message):
        compare({"en-de": pair}, **settings)


def test_the_interval_of_a_difference_is_that_of_resampled_lines() -> None:
    """Of two systems that do as well, and that help and harm other lines, it has 0 within."""
    lines = [f"The {noun} sees the old house today ." for noun in ("cat", "dog", "bird") * 10]
    references = [[line] for line in lines]
    even = [line if i % 2 else "no" for i, line in enumerate(lines)]
    odd = [line if i % 2 == 0 else "no" for i, line in enumerate(lines)]
    actual = compare(
        {"en-de": Outputs(even, {"odd": odd, "all": lines, "same": even}, references)},
        metric="chrf++",
        samples=100,
    )
    odd_one, whole, same = (c.interval for c in actual)
    assert odd_one[0] < 0 < odd_one[1]
    assert 0 < whole[0] < actual[1].difference < whole[1]
    assert same == (0, 0)


def test_the_interval_agrees_with_a_score_that_is_a_mean_over_lines() -> None:
    """Against a baseline without a match, sacreBLEU's interval of the system's own score."""
    from sacrebleu.metrics import CHRF
    from sacrebleu.significance import PairedTest

    lines = [f"The {noun} sees the old house today ." for noun in ("cat", "dog", "bird") * 20]
    system = [line if i % 3 else "The dog ." for i, line in enumerate(lines)]
    nothing = ["zzz"] * len(lines)
    (actual,) = compare(
        {"en-de": Outputs(nothing, {"x": system}, [[line] for line in lines])}, samples=100
    )
    named = [("b", nothing), ("x", system)]
    _, results = PairedTest(named, {"m": CHRF(word_order=2)}, [lines], "bs", n_samples=1000)()
    theirs = next(value for name, value in results.items() if name != "System")[1]
    assert (actual.interval[1] - actual.interval[0]) / 2 == pytest.approx(theirs.ci, rel=0.15)
    assert sum(actual.interval) / 2 == pytest.approx(theirs.mean, abs=1)
