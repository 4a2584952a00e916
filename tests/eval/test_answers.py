"""Short answers: cases worked by hand, and the normalised scores of the LAG paper."""

import pytest

from polylect.eval.answers import (
    METRICS,
    accuracy,
    answer_score,
    exact_match,
    normalise,
    oracle_share,
    token_f1,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Eiffel Tower!", "eiffel tower"),
        ("  an apple a day,\tthe doctor\n", "apple day doctor"),
        ("well-known", "wellknown"),
        ("U.S.A.", "usa"),
        ("$5.00 + 1", "500 1"),
        ("theatre in Athens", "theatre in athens"),
        ("The", ""),
        ("", ""),
        ("?!", ""),
        ("«Ça va?» – “oui”", "ça va oui"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("cafe\u0301", "café"),
        ("d\u00b4accord", "daccord"),
        ("ＴＯＫＹＯ，　日本。", "tokyo 日本"),
        ("वह अच्छा है।", "वह अच्छा है"),
        ("தமிழ்நாடு, இந்தியா", "தமிழ்நாடு இந்தியா"),
        ("a\u0323b", "ạb"),  # the letter is no article, whatever follows it
        ("\u0130stanbul", "i\u0307stanbul"),
    ],
)
def test_normalised(text, expected):
    assert normalise(text) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(
    ("prediction", "answers", "strict", "exact", "f1"),
    [
        ("Paris", ["Paris"], 1, 1, 1),
        (" Paris\n", ["Lyon", "Paris "], 1, 1, 1),
        ("paris.", ["Paris"], 0, 1, 1),
        ("the city of Paris", ["Paris"], 0, 0, 2 * 1 / (3 + 1)),
        ("Paris", ["the city of Paris"], 0, 0, 2 * 1 / (1 + 3)),
        ("London", ["Paris"], 0, 0, 0),
        ("", ["Paris"], 0, 0, 0),
        # shared: new, york; of 3 and 4 words; the other answer shares one of 3 and 2
        ("New York town", ["city of New York", "York, England"], 0, 0, 4 / 7),
        # a word counts as often as both have it: ha ha of 3 and 2
        ("ha ha ha", ["ha ha"], 0, 0, 4 / 5),
        ("York New", ["New York"], 0, 0, 1),
        ("SUPPORTS", ["SUPPORTS"], 1, 1, 1),
        ("नई दिल्ली।", ["नई दिल्ली"], 0, 1, 1),
        ("दिल्ली", ["नई दिल्ली"], 0, 0, 2 / 3),
        ("東京", ["京都"], 0, 0, 0),
        # nothing is left of either: equal, but without a shared word, as KILT has it
        ("The", ["a"], 0, 1, 0),
    ],
)
def test_metrics(prediction, answers, strict, exact, f1):
    assert accuracy(prediction, answers) == strict
    assert exact_match(prediction, answers) == exact
    assert token_f1(prediction, answers) == pytest.approx(f1)


def test_the_score_is_the_mean_in_percent():
    predictions = ["Paris", "the Rhine", "x y", "1"]
    answers = [["Paris"], ["Rhine", "Rhein"], ["x"], ["2"]]
    assert answer_score("accuracy", predictions, answers) == 25
    assert answer_score("exact_match", predictions, answers) == 50
    assert answer_score("token_f1", predictions, answers) == pytest.approx(100 * (2 + 2 / 3) / 4)


@pytest.mark.parametrize("metric", METRICS.values())
@pytest.mark.parametrize("answers", ["Paris", [], ""])
def test_gold_answers_are_a_sequence(metric, answers):
    with pytest.raises(ValueError, match=r"'Lyon' against are .* at least one string"):
        metric("Lyon", answers)


def test_what_cannot_be_scored_is_said():
    with pytest.raises(ValueError, match="'exact' of answers: did you mean exact_match"):
        answer_score("exact", ["a"], [["a"]])
    with pytest.raises(ValueError, match=r"2 predictions .* of 1 questions"):
        answer_score("accuracy", ["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="at least one"):
        answer_score("accuracy", [], [])


# arXiv 2507.05346, tables 1 and 3 to 5: sizes, scores of LAG and Arrow, the normalised ones.
SIZES = {"AY2": 9056, "WnCw": 995, "WnWi": 237, "zsRE": 116, "T-REx": 280, "NQ": 3855, "TQA": 4583}
ORACLE = {"AY2": 68.2, "WnCw": 67.6, "WnWi": 73, "zsRE": 49.1, "T-REx": 53.6, "NQ": 38.8}
ORACLE |= {"TQA": 50.8}


@pytest.mark.parametrize(
    ("scores", "share"),
    [
        ({"AY2": 62.4, "WnCw": 47.2, "WnWi": 61.2}, 89.2),
        ({"zsRE": 44.8, "T-REx": 46.1}, 87.5),
        ({"NQ": 30.9, "TQA": 46.5}, 86.0),
        ({"AY2": 45.2, "WnCw": 23.1, "WnWi": 32.5}, 62.6),
        ({"NQ": 26.1, "TQA": 44.2}, 78.0),
    ],
)
def test_the_share_of_the_oracle_is_the_papers(scores, share):
    assert oracle_share(scores, ORACLE, SIZES) == pytest.approx(share, abs=0.4)  # rounded inputs


def test_the_share_of_the_oracle():
    assert oracle_share({"a": 30, "b": 10}, {"a": 60, "b": 10, "c": 5}) == pytest.approx(75)
    weighted = oracle_share({"a": 30, "b": 10}, {"a": 60, "b": 10}, {"a": 3, "b": 1})
    assert weighted == pytest.approx(62.5)
    assert oracle_share(ORACLE, ORACLE, SIZES) == pytest.approx(100)
    assert oracle_share({"a": 3}, {"a": 2}) == pytest.approx(150)


@pytest.mark.parametrize(
    ("scores", "oracle", "sizes", "message"),
    [
        ({}, {"a": 1}, None, "no data set"),
        ({"a": 1}, {"b": 1}, None, "'a' needs a positive score of the oracle"),
        ({"a": 1}, {"a": 0}, None, "'a' needs a positive score of the oracle"),
        ({"a": 1, "b": 1}, {"a": 1, "b": 1}, {"a": 1}, "'b' needs a positive size"),
    ],
)
def test_a_share_without_its_parts_is_refused(scores, oracle, sizes, message):
    with pytest.raises(ValueError, match=message):
        oracle_share(scores, oracle, sizes)
