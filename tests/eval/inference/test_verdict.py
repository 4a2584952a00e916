"""Verdicts in words, and what they rest on."""

import pytest

from polylect.eval.inference.estimate import Estimate
from polylect.eval.inference.verdict import Verdict, sentences, verdicts
from polylect.eval.significance import Comparison


def comparison(
    difference: float, p_holm: float, error: float = 1.0, metric: str = "chrf++", **changes: str
) -> Comparison:
    named = {"direction": "en-de", "name": "b"} | changes
    estimate = Estimate(difference, error)
    scores = {"baseline": 50.0, "system": 50.0 + difference, "p": p_holm, "p_holm": p_holm}
    interval = estimate.interval()
    return Comparison(
        **named, metric=metric, **scores, signature="s", interval=interval, estimate=estimate
    )


def words(*comparisons: Comparison, margin: float | None = None) -> list[str]:
    return [verdict.word for verdict in verdicts(comparisons, margin=margin)]


def test_a_significant_difference_is_better_or_worse() -> None:
    assert words(comparison(3, 0.01), comparison(-3, 0.01)) == ["better", "worse"]
    assert words(comparison(-3, 0.01, metric="ter")) == ["better"]


def test_no_difference_found_is_undecided_unless_a_margin_shows_that_there_is_none() -> None:
    precise, vague = comparison(0.1, 0.9, error=0.2), comparison(0.1, 0.9, error=2)
    assert words(precise, vague) == ["undecided", "undecided"]
    assert words(precise, vague, margin=1.0) == ["equivalent", "undecided"]


def test_equivalence_is_corrected_over_all_comparisons() -> None:
    one = comparison(0.0, 0.9, error=0.5)  # p = 0.023 by itself
    assert words(one, margin=1.0) == ["equivalent"]
    assert words(one, one, one, margin=1.0) == ["undecided"] * 3


def test_a_difference_that_was_found_and_does_not_matter_is_said_so() -> None:
    (verdict,) = verdicts([comparison(0.3, 0.001, error=0.1)], margin=1.0)
    assert (verdict.word, verdict.text()) == ("better", "better (by less than 1)")


def test_undecided_says_what_would_have_been_seen() -> None:
    (verdict,) = verdicts([comparison(0.5, 0.5)])
    assert verdict.smallest == pytest.approx(2.80, abs=0.01)
    assert verdict.text() == "undecided (2.8 would be seen)"
    (demanding,) = verdicts([comparison(0.5, 0.5)], power=0.99)
    assert demanding.smallest > verdict.smallest
    many = verdicts([comparison(0.5, 0.5)] * 6)
    assert many[0].smallest > verdict.smallest


def test_equal_systems_are_said_to_be_equal() -> None:
    (verdict,) = verdicts([comparison(0.0, 1.0, error=0)])
    assert verdict.text() == "undecided (no line differs)"
    assert sentences([verdict], "base")[0].endswith("undecided in en-de (no line differs)")


def test_one_line_sums_up_a_system() -> None:
    system_verdicts = verdicts(
        [
            comparison(3, 0.01),
            comparison(0.5, 0.5, direction="en-hi"),
            comparison(4, 0.01, direction="en-fr"),
            comparison(-3, 0.01, name="c"),
        ]
    )
    first, second = sentences(system_verdicts, "a")
    assert first.startswith("b against a: better in en-de, en-fr; undecided in en-hi (a difference")
    assert second == "c against a: worse in en-de"
    assert sentences([Verdict("en-ta", "d", "equivalent", 1.0, 0.5)], "a") == [
        "d against a: equivalent in en-ta (within 0.5)"
    ]


def test_senseless_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        verdicts([comparison(1, 0.5)], level=1.0)
    with pytest.raises(ValueError, match="margin must be above 0"):
        verdicts([comparison(1, 0.5)], margin=-1.0)
