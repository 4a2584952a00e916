"""Paired tests are sacreBLEU's, and Holm's correction is Holm's."""

import pytest
from hypothesis import given, settings
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


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_between_no_correction_and_bonferronis_and_keeps_the_order(p):
    corrected = holm(p)
    for raw, value in zip(p, corrected, strict=True):
        assert raw <= value <= min(1.0, len(p) * raw)
    order = sorted(range(len(p)), key=p.__getitem__)
    assert [corrected[i] for i in order] == sorted(corrected)


@pytest.mark.parametrize(("test", "kind"), [("bootstrap", "bs"), ("randomization", "ar")])
def test_scores_p_values_and_signatures_are_sacrebleus(test, kind):
    (got,) = compare(
        {"en-de": Outputs(TWO_WORDS_WRONG, ONE_WORD_WRONG, REFS)},
        metric="bleu",
        test=test,
        samples=100,
    )
    systems = [("a", TWO_WORDS_WRONG), ("b", ONE_WORD_WRONG)]
    signatures, scores = PairedTest(systems, {"b": BLEU()}, [REFERENCES], kind, n_samples=100)()
    baseline, system = scores["BLEU"]
    assert (got.baseline, got.system, got.p) == (baseline.score, system.score, system.p_value)
    assert got.signature == signatures["BLEU"].format()
    assert f"{kind}:100|seed:12345" in got.signature
    assert got.difference > 0 and got.p < 0.05


def test_several_directions_are_corrected_together():
    same = Outputs(ONE_WORD_WRONG, ONE_WORD_WRONG, REFS)
    better = Outputs(TWO_WORDS_WRONG, ONE_WORD_WRONG, REFS)
    got = {c.direction: c for c in compare({"en-de": better, "en-hi": same}, samples=100)}
    assert got["en-de"].p_holm == pytest.approx(2 * got["en-de"].p)
    # Equal systems are not significantly different; sacreBLEU alone would say p = 1 / 101.
    assert (got["en-hi"].difference, got["en-hi"].p, got["en-hi"].p_holm) == (0, 1, 1)
    assert [c.p_holm for c in compare({"en-de": better}, samples=100)] == [got["en-de"].p]


def test_the_tokenizer_follows_the_direction():
    pair = Outputs(["यह घर है।"] * 3, ["यह एक घर है।"] * 3, [["यह एक घर है।"], ["घर", "यह"], ["घर"]])
    (got,) = compare({"en-hi": pair}, metric="bleu", samples=10)
    assert "tok:intl" in got.signature and "nrefs:var" in got.signature


@pytest.mark.parametrize(
    ("pair", "settings", "message"),
    [
        (Outputs(["a", "b"], ["a"], [["a"], ["b"]]), {}, "2 outputs and the system 1"),
        (Outputs(["a"], ["a"], []), {}, "1 hypotheses .* 0 lines"),
        (Outputs(["a"], ["a"], [["a"]]), {"metric": "blue"}, "did you mean bleu"),
        (Outputs(["a"], ["a"], [["a"]]), {"samples": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_tested_is_refused(pair, settings, message):
    with pytest.raises(ValueError, match=message):
        compare({"en-de": pair}, **settings)
