"""Several runs of a system: tests over seeds and lines, tables of means."""

from statistics import mean, stdev

import pytest
from sacrebleu.metrics import CHRF

from polylect.eval.inference.seeds import SeedOutputs, compare_seeds, seeds_table

REFERENCES = [f"The {noun} sees the old house today ." for noun in ("cat", "dog", "bird") * 14]
REFS = [[line] for line in REFERENCES]


def run(every: int, offset: int = 0) -> list[str]:
    """Translations of which one in so many is wrong."""
    return ["The dog ." if (i + offset) % every == 0 else line for i, line in enumerate(REFERENCES)]


WEAK = [run(3), run(4), run(3, 1)]
STRONG = [run(8), run(9), run(7)]


def score(lines: list[str]) -> float:
    return CHRF(word_order=2).corpus_score(lines, [REFERENCES]).score


def test_the_difference_is_that_of_the_means_and_its_error_counts_seeds_and_lines() -> None:
    outputs = {"en-de": SeedOutputs(WEAK, {"b": STRONG}, REFS)}
    (actual,) = compare_seeds(outputs, metric="chrf++")
    scores = [[score(lines) for lines in runs] for runs in (WEAK, STRONG)]
    assert (actual.baseline, actual.system) == tuple(map(pytest.approx, map(mean, scores)))
    assert actual.runs == (3, 3) and "t:unpaired" in actual.signature
    over_seeds = sum(stdev(values) ** 2 / 3 for values in scores) ** 0.5
    assert actual.estimate.error > over_seeds
    assert actual.interval[0] < actual.difference < actual.interval[1]
    (paired,) = compare_seeds(
        {"en-de": SeedOutputs(WEAK, {"b": STRONG}, REFS, frozenset({"b"}))}, metric="chrf++"
    )
    assert "t:paired" in paired.signature and paired.difference == actual.difference


def test_single_runs_have_the_error_over_lines_alone() -> None:
    """As the bootstrap of two runs has it."""
    from polylect.eval.significance import Outputs, compare

    seeds = compare_seeds({"en-de": SeedOutputs(WEAK[:1], {"b": STRONG[:1]}, REFS)}, metric="bleu")
    lines = compare({"en-de": Outputs(WEAK[0], {"b": STRONG[0]}, REFS)}, metric="bleu", samples=50)
    assert seeds[0].estimate == lines[0].estimate


def test_directions_and_systems_are_corrected_together() -> None:
    own = SeedOutputs(WEAK, {"b": STRONG, "same": WEAK}, REFS, frozenset({"same"}))
    actual = compare_seeds({"en-de": own, "en-fr": own}, metric="chrf++")
    assert [c.name for c in actual] == ["b", "same"] * 2
    assert actual[0].p_holm == pytest.approx(4 * actual[0].p)
    assert (actual[1].p, actual[1].difference, actual[1].estimate.error) == (1, 0, 0)


def test_other_lines_are_refused() -> None:
    with pytest.raises(ValueError, match="42 outputs and b 41"):
        compare_seeds({"en-de": SeedOutputs(WEAK, {"b": [STRONG[0][:-1]]}, REFS)}, metric="chrf++")


def scores(value: float, signature: str = "s") -> dict:
    return {"en-de": {"bleu": {"value": value, "signature": signature}}}


def test_a_table_has_means_and_intervals_over_seeds() -> None:
    table = seeds_table({"a": [scores(20), scores(23), scores(26)], "b": [scores(5)]}, "bleu")
    # 23 ± 4.303 times 3 / sqrt(3)
    assert table.rows == (("a", "23.0 [15.5, 30.5]"), ("b", "5.0"))
    assert "runs: a 3, b 1" in table.notes[-1]
    with pytest.raises(ValueError, match="cannot hold both"):
        seeds_table({"a": [scores(20), scores(23, "other")]}, "bleu")
