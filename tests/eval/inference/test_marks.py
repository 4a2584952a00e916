"""Lines for human judges, and the sign test of their marks."""

import numpy as np
import pytest

from polylect.eval.inference.marks import (
    Marks,
    marks_table,
    most_different,
    sign_test,
    smallest_share,
)


def test_the_lines_that_differ_most_come_first_and_equal_ones_never() -> None:
    first = ["the cat sees a dog", "a house", "good day", "the same"]
    second = ["the cat sees a dog here", "zzz", "good day", "the some"]
    assert [line for line, _ in most_different(first, second, 9)] == [1, 3, 0]
    assert [line for line, _ in most_different(first, second, 1)] == [1]
    assert most_different(first, second, 9) == most_different(second, first, 9)


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [
        (10, 0, 0.001953125),  # 2 / 2^10
        (9, 1, 0.021484375),  # 2 · 11 / 2^10
        (15, 5, 0.04138946533203125),  # R: binom.test(15, 20)$p.value
        (5, 5, 1.0),
        (0, 0, 1.0),
    ],
)
def test_the_sign_test_is_exact(wins: int, losses: int, p: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(p, rel=1e-12)
    assert sign_test(losses, wins) == sign_test(wins, losses)


def test_it_keeps_its_level_and_finds_the_share_that_it_says() -> None:
    random = np.random.default_rng(11)
    count = 40
    share = smallest_share(count)
    assert share is not None

    def share_found(truth: float) -> float:
        wins = random.binomial(count, truth, size=3000)
        return float(np.mean([sign_test(int(w), count - int(w)) < 0.05 for w in wins]))

    assert share_found(0.5) < 0.06
    assert share_found(share) == pytest.approx(0.8, abs=0.03)
    assert smallest_share(5) is None, "2 / 2^5 is above 0.05"


def test_verdicts_by_direction_and_over_all() -> None:
    marks = {"en-de": Marks(20, 2, 5), "en-fr": Marks(3, 3, 1), "en-hi": Marks(1, 19, 0)}
    table = marks_table(marks, ["a", "b"])
    verdicts = {row[0]: row[-1] for row in table.rows}
    assert verdicts["en-de"] == "better" and verdicts["en-hi"] == "worse"
    assert verdicts["en-fr"] == "undecided (too few lines to see anything)"
    assert verdicts["all"].startswith("undecided (") and "wins would be seen" in verdicts["all"]
    assert [row[1:4] for row in table.rows if row[0] == "all"] == [("24", "24", "6")]
    assert table.notes[0] == "b against a; sign test, ties left out"
    assert len(marks_table({"en-de": Marks(1, 0, 0)}, ["a", "b"]).rows) == 1
