"""What comparisons prove, in words: better, worse, equivalent, or undecided and how blindly."""

from collections.abc import Sequence
from dataclasses import dataclass

from polylect.eval.metrics import COUNT_ERRORS
from polylect.eval.significance import Comparison, holm

WORDS = ("better", "worse", "equivalent", "undecided")


@dataclass(frozen=True)
class Verdict:
    """Whether a system is better than the baseline in one direction.

    Attributes:
        name: of the system.
        word: one of `WORDS`.
        smallest: size of the true difference that would have been found with the power asked for.
        margin: within which differences do not matter; None where none was stated.
        p_equivalent: of the test for equivalence within the margin, corrected by Holm's method.
        is_within: whether the difference is shown to be within the margin, found or not.
    """

    direction: str
    name: str
    word: str
    smallest: float
    margin: float | None = None
    p_equivalent: float | None = None
    is_within: bool = False

    def text(self) -> str:
        """Return the verdict with what it leaves open, as "undecided (1.2 would be seen)"."""
        if self.word == "undecided":
            if not self.smallest:
                return "undecided (no line differs)"
            return f"undecided ({self.smallest:.1f} would be seen)"
        if self.word != "equivalent" and self.is_within:
            return f"{self.word} (by less than {self.margin:g})"
        return self.word


def verdicts(
    comparisons: Sequence[Comparison],
    *,
    margin: float | None = None,
    level: float = 0.05,
    power: float = 0.8,
) -> list[Verdict]:
    """Judge comparisons that were corrected together.

    A difference that is significant makes a system better or worse, by which a metric of errors
    is turned round. Without one, the two are equivalent where two one-sided tests show that the
    difference is within the margin; these are corrected by Holm's method over all comparisons.
    What neither shows is undecided.

    Args:
        margin: largest difference that does not matter, in points of the metric, stated before
            the scores were seen; None tests no equivalence.
        level: at which corrected p-values are significant.
        power: of the smallest difference that would have been found.

    Raises:
        ValueError: a margin that is not above 0, a level or a power not between 0 and 1.
    """
    for name, value in (("level", level), ("power", power)):
        if not 0 < value < 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}")
    equivalences: list[float | None] = [None] * len(comparisons)
    if margin is not None:
        equivalences = list(holm([c.estimate.p_equivalence(margin) for c in comparisons]))
    return [
        _verdict(comparison, p, margin, level, power, len(comparisons))
        for comparison, p in zip(comparisons, equivalences, strict=True)
    ]


def _verdict(
    comparison: Comparison,
    p_equivalent: float | None,
    margin: float | None,
    level: float,
    power: float,
    tests: int,
) -> Verdict:
    is_within = p_equivalent is not None and p_equivalent < level
    word = "equivalent" if is_within else "undecided"
    if comparison.p_holm < level:
        gains = comparison.difference > 0
        word = "better" if gains != (comparison.metric in COUNT_ERRORS) else "worse"
    return Verdict(
        direction=comparison.direction,
        name=comparison.name,
        word=word,
        smallest=comparison.estimate.smallest(level, power, tests),
        margin=margin,
        p_equivalent=p_equivalent,
        is_within=is_within,
    )


def sentences(verdicts_of_systems: Sequence[Verdict], baseline: str) -> list[str]:
    """Return for each system one line that sums up its verdicts over the directions."""
    by_system: dict[str, list[Verdict]] = {}
    for verdict in verdicts_of_systems:
        by_system.setdefault(verdict.name, []).append(verdict)
    return [f"{name} against {baseline}: {_summary(own)}" for name, own in by_system.items()]


def _summary(own: Sequence[Verdict]) -> str:
    parts = []
    for word in WORDS:
        directions = [v for v in own if v.word == word]
        if not directions:
            continue
        listed = ", ".join(v.direction for v in directions)
        if word == "undecided":
            smallest = max(v.smallest for v in directions)
            seen = f"a difference of {smallest:.1f} would have been seen"
            listed += f" ({seen if smallest else 'no line differs'})"
        elif word == "equivalent":
            listed += f" (within {directions[0].margin:g})"
        parts.append(f"{word} in {listed}")
    return "; ".join(parts)
