"""Lines for human judges to compare two systems by, and what their marks prove."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polylect.eval.significance import holm
from polylect.eval.table import Table

_STEPS = 40  # of a bisection: 1e-12


def most_different(
    first: Sequence[str], second: Sequence[str], count: int
) -> list[tuple[int, float]]:
    """Return the lines on which two systems differ most, and how alike they are, 0 to 100.

    Alike is the mean of chrF++ of each output with the other as its reference: whose output is
    closer to the real reference plays no part, so the choice favours no system. Lines on which
    they are equal are never chosen.

    Returns:
        Number and likeness of at most `count` lines, the least alike first.
    """
    from sacrebleu.metrics import CHRF

    chrf = CHRF(word_order=2)
    alike = {
        line: (chrf.sentence_score(a, [b]).score + chrf.sentence_score(b, [a]).score) / 2
        for line, (a, b) in enumerate(zip(first, second, strict=True))
        if a != b
    }
    return sorted(alike.items(), key=lambda item: item[1])[:count]


@dataclass(frozen=True)
class Marks:
    """What judges found in one direction, or in all.

    Attributes:
        wins: lines that the second system translated better; losses: the first.
        ties: lines that were found to be as good, or of which judges disagreed evenly.
    """

    wins: int
    losses: int
    ties: int


def sign_test(wins: int, losses: int) -> float:
    """Return the exact two-sided p-value of as many wins as losses; ties are left out.

    (Dixon and Mood 1946.) 1 where nothing was decided.
    """
    count = wins + losses
    return min(1.0, 2 * _tail(count, max(wins, losses), 0.5)) if count else 1.0


def smallest_share(count: int, level: float = 0.05, power: float = 0.8) -> float | None:
    """Return the share of wins among decided lines that the sign test would see.

    It finds a system that truly wins this share with the given power; None where so few lines
    cannot be significant at all.
    """
    needed = next((k for k in range(count + 1) if 2 * _tail(count, k, 0.5) <= level), None)
    if needed is None:
        return None
    low, high = 0.5, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(count, needed, middle) < power else (low, middle)
    return high


def _tail(count: int, at_least: int, share: float) -> float:
    """Return the probability of at least so many successes."""
    return math.fsum(
        math.comb(count, k) * share**k * (1 - share) ** (count - k)
        for k in range(at_least, count + 1)
    )


def marks_table(
    marks: Mapping[str, Marks],
    systems: Sequence[str],
    *,
    level: float = 0.05,
    power: float = 0.8,
    note: str = "",
) -> Table:
    """Return the verdict of the marks by direction, and over all where there are several.

    p-values of the sign test are corrected over the rows by Holm's method.

    Args:
        systems: the baseline, and the system that is found better or worse.
    """
    rows = dict(marks)
    if len(rows) > 1:
        every = rows.values()
        rows["all"] = Marks(
            sum(m.wins for m in every), sum(m.losses for m in every), sum(m.ties for m in every)
        )
    p_values = [sign_test(m.wins, m.losses) for m in rows.values()]
    cells = [
        (
            direction,
            *map(str, (m.wins, m.losses, m.ties)),
            f"{p:.4f}",
            f"{p_holm:.4f}",
            _verdict(m, p_holm, level, power, len(rows)),
        )
        for (direction, m), p, p_holm in zip(rows.items(), p_values, holm(p_values), strict=True)
    ]
    header = ("direction", "wins", "losses", "ties", "p", "p (Holm)", "verdict")
    notes = (f"{systems[1]} against {systems[0]}; sign test, ties left out", note)
    return Table(header, tuple(cells), tuple(filter(None, notes)))


def _verdict(marks: Marks, p_holm: float, level: float, power: float, tests: int) -> str:
    if p_holm < level:
        return "better" if marks.wins > marks.losses else "worse"
    share = smallest_share(marks.wins + marks.losses, level / tests, power)
    if share is None:
        return "undecided (too few lines to see anything)"
    return f"undecided ({share:.0%} wins would be seen)"
