"""Matrices of what a run has scored."""

from pathlib import Path

from polylect.run.results.matrices import read_matrices


def score(value: float, signature: str = "one") -> dict:
    return {"value": value, "signature": signature}


def test_scores_stand_by_source_and_target_language(tmp_path: Path) -> None:
    values = {"en-de": 1.0, "en-fr": 2.0, "de-en": 3.0, "fr-de": 4.0}
    test = {name: {"chrf++": score(value), "sentences": 5} for name, value in values.items()}
    (matrix,) = read_matrices(tmp_path, {"test": test | {"de": {"nats_per_token": 1.0}}})
    assert (matrix.name, matrix.columns) == ("source_by_target/chrf++", ["de", "fr", "en"])
    assert matrix.rows == {
        "en": [1.0, 2.0, None],
        "de": [None, None, 3.0],
        "fr": [4.0, None, None],
    }


def test_values_of_two_signatures_do_not_stand_in_one_matrix(tmp_path: Path) -> None:
    test = {
        "en-de": {"bleu": score(1.0), "chrf++": score(5.0)},
        "de-en": {"bleu": score(2.0, "other"), "chrf++": score(6.0)},
    }
    assert [m.name for m in read_matrices(tmp_path, {"test": test})] == ["source_by_target/chrf++"]


def test_one_source_language_needs_no_matrix(tmp_path: Path) -> None:
    test = {name: {"chrf++": score(1.0)} for name in ("en-de", "en-fr")}
    assert read_matrices(tmp_path, {"test": test}) == []
    assert read_matrices(tmp_path, {}) == []
