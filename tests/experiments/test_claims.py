"""Cards say what records say, the README what cards say, and a changed number shows."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import claims
import pytest
import tables
import yaml
from claim_cards import Finding, cards, layout, measured_text, read_card, verdict_text
from claim_picture import PICTURE, bounds, is_in_step, panels_of
from synthetic import BLEU, put, run_record

ROOT = Path(__file__).resolve().parents[2]
CARDS = sorted((ROOT / "experiments" / "claims").glob("*.yaml"))


def test_every_card_says_what_the_records_say() -> None:
    assert claims.update(ROOT, write=False) == [], (
        "run `python experiments/tools/claims.py --update`"
    )


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_card_has_the_layout_of_all(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == layout(read_card(path))


def card(**changes: Any) -> dict[str, Any]:
    terms = [
        {"records": f"demo/results/{name}_seed*.json", "path": "metrics/test/*/bleu/value"}
        for name in ("a", "b")
    ]
    finding = {
        "setting": "a demonstration",
        "command": "demo.sh",
        "measure": "BLEU gained",
        "combine": "difference",
        "terms": terms,
        "expected": {"at_least": 1, "tolerance": 0},
    }
    findings = [{key: value for key, value in (finding | changes).items() if value is not None}]
    return {"claim": "a beats b", "source": "a paper", "findings": findings}


def write(root: Path, values: Any) -> Path:
    path = root / "experiments" / "claims" / "demo.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Three seeds of a system with 5.0 BLEU more than another, give or take a little."""
    for seed, gain in ((1, 4.9), (2, 5.0), (3, 5.1)):
        put(tmp_path, f"demo/results/a_seed{seed}", run_record(20.0 + seed + gain))
        put(tmp_path, f"demo/results/b_seed{seed}", run_record(20.0 + seed))
    text = "# Results\n<!-- table:claims -->\n<!-- /table -->\n"
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    return tmp_path


def result(root: Path, **changes: Any) -> dict[str, Any]:
    (finding,) = read_card(write(root, card(**changes))).findings
    return claims.result_of(finding, root)


@pytest.mark.parametrize(
    ("expected", "status"),
    [
        ({"at_least": 4, "tolerance": 0}, "holds"),
        ({"at_least": 5, "tolerance": 0}, "undecided"),
        ({"at_least": 5, "tolerance": 0.5}, "holds"),
        ({"at_least": 6, "tolerance": 0}, "fails"),
        ({"at_most": 6, "tolerance": 0}, "holds"),
        ({"at_most": 4, "tolerance": 0}, "fails"),
        ({"equal": 5, "tolerance": 0.3}, "holds"),
        ({"equal": 5, "tolerance": 0.1}, "undecided"),
        ({"equal": 7, "tolerance": 1}, "fails"),
    ],
)
def test_the_whole_interval_decides(checkout: Path, expected: dict, status: str) -> None:
    actual = result(checkout, expected=expected)
    assert actual["status"] == status
    # Pairs differ by 4.9, 5.0, 5.1: 5 ± 4.303 times 0.1 / sqrt(3).
    assert (actual["value"], actual["seeds"]) == (5.0, 3)
    assert [actual["low"], actual["high"]] == pytest.approx([4.7516, 5.2484], abs=1e-3)
    assert ("seen" in actual) == (status == "undecided")


def test_shares_and_values_are_means_over_what_a_star_stands_for(checkout: Path) -> None:
    share = result(checkout, combine="share", expected={"at_least": 100, "tolerance": 0})
    by_seed = [
        100 * (25 + seed + gain) / (25 + seed) for seed, gain in ((1, 4.9), (2, 5), (3, 5.1))
    ]
    assert share["value"] == pytest.approx(sum(by_seed) / 3, abs=1e-3)
    value = result(checkout, combine="value", terms=card()["findings"][0]["terms"][:1])
    assert value["value"] == pytest.approx(sum(25 + s + 5 for s in (1, 2, 3)) / 3)


def test_one_seed_decides_nothing_but_what_is_exact(checkout: Path) -> None:
    for seed in (2, 3):
        for name in "ab":
            (checkout / "experiments" / "demo" / "results" / f"{name}_seed{seed}.json").unlink()
    assert result(checkout) == {"status": "undecided", "value": 4.9, "seeds": 1}
    same = [{"records": "demo/results/a_*.json", "path": "metrics/test/*/bleu/value"}] * 2
    exact = {"combine": "largest_difference", "expected": {"equal": 0, "tolerance": 0}}
    assert result(checkout, terms=same, **exact) == {"status": "holds", "value": 0.0, "seeds": 1}
    assert result(checkout, **exact)["status"] == "fails"


def test_a_record_without_a_seed_goes_with_every_seed(checkout: Path) -> None:
    put(checkout, "demo/results/base", run_record(1.0))
    terms = [card()["findings"][0]["terms"][0]]
    terms.append({"records": "demo/results/base.json", "path": "metrics/test/*/bleu/value"})
    assert result(checkout, terms=terms)["seeds"] == 3


def test_without_a_record_that_counts_it_was_not_run(checkout: Path) -> None:
    for seed in (1, 2, 3):
        put(checkout, f"demo/results/a_seed{seed}", run_record(1.0, scratch=True))
    assert result(checkout) == {"status": "not run"}


def test_the_readme_has_the_verdict_of_every_card(checkout: Path) -> None:
    write(checkout, card())
    assert len(claims.update(checkout, write=True)) == 2  # the card and the picture
    assert claims.update(checkout, write=False) == []
    assert tables.update(checkout, write=True) == ["README.md: claims"]
    text = (checkout / "README.md").read_text(encoding="utf-8")
    assert "| a beats b (a paper) | a demonstration | **holds**: 5 [4.75, 5.25] (≥ 1 BLEU" in text


def change_record(root: Path) -> None:
    put(root, "demo/results/a_seed2", run_record(24.0))


def change_card(root: Path) -> None:
    path = root / "experiments" / "claims" / "demo.yaml"
    path.write_text(path.read_text("utf-8").replace("value: 5.0", "value: 5.5"), encoding="utf-8")


def lose_record(root: Path) -> None:
    for path in (root / "experiments" / "demo" / "results").glob("*_seed3.json"):
        path.unlink()


@pytest.mark.parametrize("change", [change_record, change_card, lose_record])
def test_a_changed_number_turns_a_card_red(
    checkout: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(checkout, card())
    claims.update(checkout, write=True)
    change(checkout)
    red, *_ = claims.update(checkout, write=False)
    assert red.startswith("demo.yaml: a demonstration: {'status': 'holds'")
    monkeypatch.setattr("sys.argv", ["claims.py", "--check", "--root", str(checkout)])
    with pytest.raises(SystemExit) as ended:
        claims.main()
    assert ended.value.code == 1


def test_the_picture_shows_what_the_cards_say(checkout: Path) -> None:
    path = write(checkout, card())
    claims.update(checkout, write=True)
    picture = checkout / "experiments" / PICTURE
    drawn = panels_of(cards(checkout / "experiments"))
    (row,) = drawn["BLEU gained"]
    assert (row.label, row.verdict) == ("a beats b: a demonstration", "holds")
    assert (row.value, row.expected) == (5.0, (1.0, math.inf))
    assert is_in_step(picture, drawn)
    path.write_text(path.read_text("utf-8").replace("tolerance: 0", "tolerance: 0.5"), "utf-8")
    assert claims.update(checkout, write=False) == [
        "claims.png: it does not show what the cards say"
    ]
    picture.unlink()
    assert not is_in_step(picture, drawn)


@pytest.mark.parametrize(
    ("expected", "ends"),
    [
        ({"at_least": 92, "tolerance": 2}, (90, math.inf)),
        ({"at_most": 0.5, "tolerance": 0.25}, (-math.inf, 0.75)),
        ({"equal": 1, "tolerance": 0.5}, (0.5, 1.5)),
    ],
)
def test_what_was_expected_has_two_ends(expected: dict, ends: tuple[float, float]) -> None:
    assert bounds(expected) == ends


def test_a_changed_number_in_a_real_record_is_found(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    path = tmp_path / "experiments/routable/results/tongues/contrastive_frozen_seed2.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["metrics"]["routers"]["lag"]["chrf++"] += 1
    path.write_text(json.dumps(record), encoding="utf-8")
    red = claims.update(tmp_path, write=False)
    changed = {"lag_oracle.yaml", "moderate_k.yaml", "claims.png"}
    assert {line.partition(":")[0] for line in red} == changed


def test_what_proves_nothing_is_refused(checkout: Path) -> None:
    chosen = {"callbacks": {"checkpoint": {"monitor": "val/bleu"}}}
    put(checkout, "demo/results/a_seed1", run_record(20.0, config=chosen))
    with pytest.raises(ValueError, match=r"bleu chose the checkpoint .* so no card may rest on it"):
        result(checkout)
    other = run_record(20.0)
    other["metrics"]["test"]["en-fr"]["bleu"]["signature"] = BLEU.replace("13a", "intl")
    put(checkout, "demo/results/a_seed1", other)
    with pytest.raises(ValueError, match=r"has scores with .*13a.* and .*intl"):
        result(checkout)
    for path in (checkout / "experiments/demo/results").glob("a_seed*.json"):
        path.unlink()
    put(checkout, "demo/results/a_seed4", run_record(20.0))
    with pytest.raises(ValueError, match=r"no seed is in all terms: .*a_seed\*.json has \['4'\]"):
        result(checkout)


def test_seeds_that_only_one_side_has_are_left_out(checkout: Path) -> None:
    before = result(checkout)
    put(checkout, "demo/results/a_seed4", run_record(20.0))
    assert result(checkout) == before


def test_a_path_that_leads_nowhere_is_said(checkout: Path) -> None:
    for path, message in (("metrics/best/*", "no best where"), ("metrics/test/en-de", "no number")):
        terms = [term | {"path": path} for term in card()["findings"][0]["terms"]]
        with pytest.raises(ValueError, match=message):
            result(checkout, terms=terms)


def test_a_claim_shown_by_tests_needs_them(checkout: Path) -> None:
    own = "tests/experiments/test_claims.py::test_a_claim_shown_by_tests_needs_them"
    exact = Finding("here", "pytest", tests=(own,))
    assert claims.result_of(exact, ROOT) == {"status": "holds"}
    assert (measured_text(exact), verdict_text(exact)) == ("1 tests", "not run")
    with pytest.raises(FileNotFoundError, match="which does not exist"):
        claims.result_of(Finding("here", "pytest", tests=(f"{own}_not",)), ROOT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expectd": {}}, "expectd does not exist; did you mean expected"),
        ({"expected": None}, "lacks expected"),
        ({"expected": {"at_least": 1}}, "one of at_least, at_most, equal, and tolerance"),
        ({"expected": {"at_least": 1, "equal": 2, "tolerance": 0}}, "one of at_least"),
        ({"expected": {"at_least": "much", "tolerance": 0}}, "must be a number"),
        ({"expected": {"at_least": 1, "tolerance": -1}}, "must not be below 0"),
        ({"combine": "diference"}, "did you mean difference"),
        ({"combine": "value"}, "value takes 1 terms, got 2"),
        ({"setting": ""}, "setting must be a text"),
        ({"terms": [{"records": "x"}] * 2}, r"terms\[0\] lacks path"),
        ({"tests": ["x::y"]}, "combine does not exist"),
        ({"result": {"status": "true"}}, "is none of holds, fails"),
        ({"result": {"status": "holds", "p": 1}}, "result has p"),
    ],
)
def test_a_mistake_in_a_card_is_one_sentence(
    checkout: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_card(write(checkout, card(**changes)))


def test_other_files_are_no_cards(checkout: Path) -> None:
    for values in ([], {"claim": "x", "source": "y", "findings": []}, card() | {"date": "now"}):
        with pytest.raises(ValueError, match=r"demo.yaml"):
            read_card(write(checkout, values))
    write(checkout, "x").write_text("claim: [", encoding="utf-8")
    with pytest.raises(ValueError, match="is no YAML"):
        read_card(checkout / "experiments" / "claims" / "demo.yaml")


@pytest.mark.slow
def test_a_new_run_on_the_tongues_says_what_the_card_says(tmp_path: Path) -> None:
    """LAG among adapters that began with what tells their inputs: trained and measured again."""

    def call(*words: object) -> None:
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]

    steps = ["trainer.max_steps=150", "trainer.val_check_interval=150"]
    start = ["strategy.init=contrastive", "strategy.train_a=false"]
    train = ["-m", "polylect.cli", "train", "seed=1", "evaluate=false", "evaluate_base=false"]
    call(*train, *steps, *start)
    (library,) = tmp_path.glob("runs/tongues/*/adapters")
    name = "routable/results/tongues/contrastive_frozen_seed1.json"
    out = tmp_path / name
    routers = ["--routers", "oracle", "lag", "lag_center_prompt"]
    measure = ["--library", library, "--out", out, "model=tongues", "data=tongues", *routers]
    call(ROOT / "experiments" / "routable" / "measure.py", *measure)
    measured = [
        json.loads(path.read_text(encoding="utf-8"))["metrics"]["routers"]
        for path in (out, ROOT / "experiments" / name)
    ]
    findings = read_card(ROOT / "experiments" / "claims" / "lag_oracle.yaml").findings
    for finding in findings[:2]:
        (router,) = {term.path.split("/")[2] for term in finding.terms} - {"oracle"}
        new, old = (100 * m[router]["chrf++"] / m["oracle"]["chrf++"] for m in measured)
        assert new == pytest.approx(old, abs=4), router
        if finding.result["status"] == "holds":
            assert new > finding.expected["at_least"] - finding.expected["tolerance"]
