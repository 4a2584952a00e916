"""The compare program, and `evaluate compare=…`: several runs on the same lines."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.scored import put_translations, references
from helpers.tiny import DATA, MODEL, config, folders

from polylect.cli import run
from polylect.config.roots import ConfigError
from polylect.eval.significance import Outputs, compare
from polylect.programs.evaluate import main as evaluate
from polylect.run.build import build_data


@pytest.fixture(scope="module")
def base_scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the scores of the untouched base on the data of `tiny_run`."""
    runs = tmp_path_factory.mktemp("base")
    evaluate(config("evaluate", f"runs={runs}", *MODEL, "data=tongues", *DATA))
    (folder,) = folders(runs)
    return folder


def copied(folder: Path, to: Path, improve: bool = False) -> Path:
    """A copy of a scored run; improved, its translations are its references."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("checkpoints", "adapters"))
    if improve:
        right = references()
        put_translations(to, right, right)
    return to


def test_runs_stand_beside_each_other(
    tiny_run: Path, base_scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    better = copied(tiny_run, tmp_path / "better", improve=True)
    out = tmp_path / "made" / "table.json"
    command = ["compare", str(base_scores), str(tiny_run), str(better), f"out={out}", "samples=50"]
    assert run(command) == 0
    stdout = capsys.readouterr().out
    report = json.loads(out.read_text(encoding="utf-8"))
    assert (
        base_scores.name in stdout and "baseline: " in stdout and "p (Holm) over 4 tests" in stdout
    )
    assert f"{better.name} against {base_scores.name}: " in stdout
    tests = {(c["direction"], c["name"]): c for c in report["comparisons"]}
    directions = {direction for direction, _ in tests}
    assert len(tests) == 2 * len(directions) == 2 * len(report["runs"][better.name]["scores"])
    for (_, name), test in tests.items():
        if name == better.name:
            assert test["system"] == 100 and test["p_holm"] <= 4 * 2 / 2**5  # of five lines


def test_the_tests_are_those_of_the_same_lines(
    tiny_run: Path, base_scores: Path, tmp_path: Path
) -> None:
    out = tmp_path / "table.json"
    assert run(["compare", str(base_scores), str(tiny_run), f"out={out}", "samples=40"]) == 0
    report = json.loads(out.read_text(encoding="utf-8"))["comparisons"]
    data = build_data(config("evaluate", *MODEL, "data=tongues", *DATA))
    data.setup("test")
    lines = {}
    for direction in data.directions_of("test"):
        store = data.pairs(direction, "test")
        outputs = [
            (folder / "outputs" / f"{direction}.txt").read_text(encoding="utf-8").split("\n")[:-1]
            for folder in (base_scores, tiny_run)
        ]
        references = [[store[i].target] for i in range(len(store))]
        lines[direction] = Outputs(outputs[0], {"x": outputs[1]}, references)
    expected = compare(lines, samples=40)
    assert [c["p_holm"] for c in report] == [c.p_holm for c in expected]
    assert [c["system"] for c in report] == [c.system for c in expected]
    stored = json.loads((tiny_run / "scores.json").read_text(encoding="utf-8"))
    assert [c["system"] for c in report] == [
        stored[c.direction]["chrf++"]["value"] for c in expected
    ]


@pytest.mark.parametrize("suffix", ["md", "tsv"])
def test_tables_are_written(suffix: str, tiny_run: Path, base_scores: Path, tmp_path: Path) -> None:
    out = tmp_path / f"table.{suffix}"
    command = ["compare", str(base_scores), str(tiny_run), f"out={out}", "samples=10"]
    assert run(command) == 0
    assert "p (Holm)" in out.read_text(encoding="utf-8")
    assert run(command) == 2  # it is there already


def test_an_evaluation_compares_itself(
    tiny_run: Path, base_scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    evaluate(config("evaluate", f"runs={tmp_path}", f"run={tiny_run}", f"compare={base_scores}"))
    (folder,) = folders(tmp_path)
    stdout = capsys.readouterr().out
    report = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert "p (Holm)" in stdout and len(report["runs"]) == 2


def test_an_evaluation_of_fewer_lines_is_refused_before_it_begins(
    tiny_run: Path, base_scores: Path, tmp_path: Path
) -> None:
    settings = [f"runs={tmp_path}", f"run={tiny_run}", f"compare={base_scores}", "limit=2"]
    with pytest.raises(ConfigError, match="has 5 en-de lines and this evaluation would have 2"):
        evaluate(config("evaluate", *settings))
    assert not folders(tmp_path)


def test_translations_that_were_not_scored_are_refused(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    changed = copied(tiny_run, tmp_path / "changed")
    direction, right = next(iter(references().items()))
    text = "".join(f"{line}\n" for line in right)
    (changed / "outputs" / f"{direction}.txt").write_text(text, encoding="utf-8")
    stderr = complaint(capsys, tiny_run, changed)
    assert f"changed: the translations in outputs/{direction}.txt have 100.00 chrF++" in stderr
    put_translations(changed, {direction: right}, {direction: right})
    assert run(["compare", str(tiny_run), str(changed), "samples=10"]) == 0


def complaint(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert run(["compare", *map(str, arguments)]) == 2
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1, stderr
    return stderr


def test_what_cannot_be_compared_is_a_sentence(
    tiny_run: Path, base_scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert "at least two run folders" in complaint(capsys, tiny_run)
    assert "names one folder twice" in complaint(capsys, tiny_run, tiny_run)
    assert "is not a run folder." in complaint(capsys, tiny_run, tmp_path)
    above = f"is not a run folder: give one that is in it, such as {base_scores}."
    assert above in complaint(capsys, tiny_run, base_scores.parent)
    assert "did you mean" in complaint(capsys, tiny_run, base_scores, "metric=chrf+")
    assert "did you mean bootstrap" in complaint(capsys, tiny_run, base_scores, "test=bootstraps")
    assert "samples must be" in complaint(capsys, tiny_run, base_scores, "samples=0")
    assert "must end in" in complaint(capsys, tiny_run, base_scores, f"out={tmp_path}/x.doc")
    torn = copied(tiny_run, tmp_path / "torn")
    path = next((torn / "outputs").iterdir())
    path.write_text("one line\n", encoding="utf-8")
    assert "has 1 lines" in complaint(capsys, base_scores, torn)
    path.unlink()
    assert "the translations of the run are gone" in complaint(capsys, base_scores, torn)
    (torn / "scores.json").unlink()
    assert "score it with polylect evaluate" in complaint(capsys, base_scores, torn)


def test_other_lines_are_not_compared(
    tiny_run: Path, base_scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = copied(tiny_run, tmp_path / "other")
    record = json.loads((other / "record.json").read_text(encoding="utf-8"))
    direction = next(iter(record["data"]["read"]["test"]))
    record["data"]["read"]["test"][direction]["sha256"] = "0" * 64
    (other / "record.json").write_text(json.dumps(record), encoding="utf-8")
    stderr = complaint(capsys, base_scores, other)
    assert f"translated different {direction} sets" in stderr


def test_folders_of_a_sweep_and_odd_names_are_taken(
    tiny_run: Path, base_scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied(base_scores, tmp_path / "000_seed=1")
    copied(tiny_run, tmp_path / 'O\'Brien, "two"')
    monkeypatch.chdir(tmp_path)
    assert run(["compare", "000_seed=1", 'O\'Brien, "two"', "samples=10", "out=table.json"]) == 0
    report = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert list(report["runs"]) == ["000_seed=1", 'O\'Brien, "two"']
    low, high = report["comparisons"][0]["interval"]
    assert low <= report["comparisons"][0]["difference"] <= high


def test_other_signatures_are_not_compared(
    tiny_run: Path, base_scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = copied(tiny_run, tmp_path / "other")
    path = other / "scores.json"
    path.write_text(path.read_text(encoding="utf-8").replace("tok:13a", "tok:intl"), "utf-8")
    stderr = complaint(capsys, base_scores, other)
    assert "BLEU cannot hold both" in stderr and "tok:intl" in stderr and "other" in stderr
