"""The compare program on several runs of a system, with margins, judges and neural metrics."""

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.scored import put_translations, references
from omegaconf import OmegaConf

from polylect.cli import run
from polylect.config.large_roots import Compare
from polylect.config.roots import ConfigError
from polylect.eval.inference.estimate import Estimate
from polylect.eval.inference.verdict import verdicts
from polylect.eval.significance import Comparison
from polylect.programs.compare import _check as check
from polylect.run.results.comparison import System, difference_figure, read_groups


@pytest.fixture
def systems(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder, which is the working one, with the runs good_1, good_2, bad_1 and bad_2."""
    right = references()
    for name, seed in (("good_1", 1), ("good_2", 2), ("bad_1", 1), ("bad_2", 2)):
        folder = tmp_path / name
        shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("checkpoints", "adapters"))
        made = {}
        for direction, lines in right.items():
            spoiled = 0 if "good" in name else len(lines) - seed
            made[direction] = ["none of it"] * spoiled + lines[spoiled:]
        put_translations(folder, made, right)
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        record["config"]["seed"] = seed
        (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


GROUPS = "groups={bad: [bad_1, bad_2], good: [good_2, good_1]}"


def complaint(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    assert run(["compare", *arguments]) == 2
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1, stderr
    return stderr


def test_groups_are_compared_over_seeds(systems: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["compare", GROUPS, "out=report.json"]) == 0
    stdout = capsys.readouterr().out
    text = (systems / "report.json").read_text(encoding="utf-8")
    report = json.loads(text)
    assert "Infinity" not in text and "NaN" not in text
    assert report["systems"] == {"bad": ["bad_1", "bad_2"], "good": ["good_1", "good_2"]}
    assert "mean and 95 % interval over seeds; runs: bad 2, good 2" in stdout
    assert "good against bad: " in stdout
    rows = [line.split("  ")[0] for line in stdout.splitlines()]
    assert [row for row in rows if "seed " in row][:2] == ["bad, seed 1", "bad, seed 2"]
    for comparison in report["comparisons"]:
        assert comparison["runs"] == [2, 2] and "t:paired" in comparison["signature"]
        assert comparison["difference"] > 30
    assert {v["word"] for v in report["verdicts"]} <= {"better", "undecided"}


def test_a_system_with_one_run_has_its_own_name(
    systems: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(["compare", "groups={base: [bad_1], ours: [good_1]}", "samples=5"]) == 0
    rows = {line.split("  ")[0] for line in capsys.readouterr().out.splitlines()}
    assert {"base", "ours"} <= rows and not {"bad_1", "good_1"} & rows


def test_both_tests_have_to_agree(systems: Path) -> None:
    for test in ("bootstrap", "randomization", "both"):
        command = ["compare", "bad_1", "good_1", f"test={test}", f"out={test}.json", "samples=50"]
        assert run(command) == 0
    p = {
        test: [c["p"] for c in json.loads(Path(f"{test}.json").read_text("utf-8"))["comparisons"]]
        for test in ("bootstrap", "randomization", "both")
    }
    larger = [max(pair) for pair in zip(p["bootstrap"], p["randomization"], strict=True)]
    assert p["both"] == larger


def test_a_margin_stated_makes_equal_systems_equivalent(
    systems: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree("good_1", "again")
    draw = "picture=again.png"
    assert run(["compare", "good_1", "again", "margin=0.5", "samples=20", draw]) == 0
    assert (systems / "again.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "again against good_1: equivalent in en-de, en-fr (within 0.5)" in capsys.readouterr().out
    )
    assert run(["compare", "good_1", "again", "samples=20"]) == 0
    assert "again against good_1: undecided in en-de, en-fr" in capsys.readouterr().out


def test_a_metric_that_chose_the_checkpoint_is_marked_and_decides_nothing(
    systems: Path, capsys: pytest.CaptureFixture
) -> None:
    path = systems / "good_1" / "record.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["config"]["callbacks"]["checkpoint"]["monitor"] = "val/chrf"
    path.write_text(json.dumps(record), encoding="utf-8")
    stdout = complaint(capsys, "bad_1", "good_1", "metric=chrf++")
    assert "metric=chrf++ decides nothing here" in stdout and "give metric=bleu" in stdout
    assert run(["compare", "bad_1", "good_1", "samples=20", "out=report.json"]) == 0
    stdout = capsys.readouterr().out
    assert "chrf++ chose the checkpoint (callbacks.checkpoint.monitor=val/chrf) of good_1" in stdout
    report = json.loads((systems / "report.json").read_text(encoding="utf-8"))
    assert {c["metric"] for c in report["comparisons"]} == {"bleu"}


def mark(path: Path, better: str) -> None:
    """Fill a sheet as a judge who knows the words of one system."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    for row in rows[1:]:
        row[5] = "1" if (better in row[2]) else "2"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)


def test_judges_mark_blind_and_their_marks_are_read_back(
    systems: Path, capsys: pytest.CaptureFixture
) -> None:
    command = ["compare", "good_1", "bad_2", "judge=sheet.tsv", "samples=20", "seed=5"]
    assert run(command) == 0
    assert "polylect compare 'marks=[sheet.tsv]'" in capsys.readouterr().out
    text = (systems / "sheet.tsv").read_text(encoding="utf-8")
    assert "good_1" not in text and "bad_2" not in text
    rows = list(csv.reader(text.splitlines(), delimiter="\t"))
    right = references()
    differ = 3 * len(right)  # bad_2 spoils three of five lines, good_1 none
    assert len(rows) == 1 + differ
    first = [row[2] == "none of it" for row in rows[1:]]
    assert sum(first) == differ / 2, "each system stands first in half of the rows"
    for row in rows[1:]:
        direction, _, line = row[0].rpartition(":")
        assert row[4] == right[direction][int(line) - 1]
        assert sorted([row[2] == "none of it", row[3] == "none of it"]) == [False, True]
    assert "has no marks yet" in complaint(capsys, "marks=[sheet.tsv]")
    mark(systems / "sheet.tsv", better="none of it")
    assert run(["compare", "marks=[sheet.tsv]"]) == 0
    stdout = capsys.readouterr().out
    assert (
        "bad_2 against good_1; sign test" in stdout
        and f"{differ} of {differ} lines marked" in stdout
    )
    assert f"all {differ} 0 0" in " ".join(stdout.split())
    shutil.copy("sheet.tsv", "second.tsv")
    assert run(["compare", "marks=[sheet.tsv,second.tsv]"]) == 0
    assert "two judges agree on 100%" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_sheet(systems: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        command = ["compare", "good_1", "bad_2", f"judge={name}.tsv", f"seed={seed}", "samples=5"]
        assert run(command) == 0
    a, b, c = (Path(f"{name}.tsv").read_bytes() for name in "abc")
    assert a == b != c
    assert run(["compare", "good_1", "bad_2", "judge=d.tsv", "judge_lines=1", "samples=5"]) == 0
    assert len(Path("d.tsv").read_text(encoding="utf-8").splitlines()) == 1 + 2


def test_a_sheet_that_was_changed_is_refused(systems: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(["compare", "good_1", "bad_2", "judge=sheet.tsv", "samples=5"]) == 0
    sheet = systems / "sheet.tsv"
    whole = sheet.read_text(encoding="utf-8")
    capsys.readouterr()
    sheet.write_text(whole.replace("none of it", "all of it"), encoding="utf-8")
    assert "not as it was written" in complaint(capsys, "marks=[sheet.tsv]")
    lines = whole.splitlines()
    sheet.write_text("\n".join([lines[0], f"{lines[1]}better", *lines[2:]]), encoding="utf-8")
    assert "'better' is no mark" in complaint(capsys, "marks=[sheet.tsv]")
    sheet.write_text("\n".join([lines[0], f"{lines[1]}1", f"{lines[1]}1"]), encoding="utf-8")
    assert "there twice" in complaint(capsys, "marks=[sheet.tsv]")
    (systems / "sheet.key.json").unlink()
    assert "sheet.key.json does not exist" in complaint(capsys, "marks=[sheet.tsv]")


COMET = """#!{python}
import json, sys
words = sys.argv[1:]
files = words[words.index("-t") + 1 : words.index("-s")]
read = lambda name: open(name, encoding="utf-8").read().split("\\n")[:-1]
named = [read(words[words.index(option) + 1]) for option in ("-s", "-r")]
rows = {{
    file: [
        {{"src": s, "mt": h, "ref": r, "COMET": float(h == r)}}
        for s, h, r in zip(named[0], read(file), named[1])
    ]
    for file in files
}}
json.dump(rows, open(words[words.index("--to_json") + 1], "w"))
"""


def test_comet_is_run_where_it_is_installed(
    systems: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    installed = systems / "bin"
    installed.mkdir()
    script = installed / "comet-score"
    script.write_text(COMET.format(python=sys.executable), encoding="utf-8")
    (installed / "python").write_text("#!/bin/sh\necho 2.2.6\n", encoding="utf-8")
    for path in installed.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(installed), prepend=":")
    command = ["compare", "bad_1", "good_1", "neural=[comet]", "samples=5"]
    assert run(command) == 0
    stdout = capsys.readouterr().out
    assert "comet-score -t 1.txt 2.txt -s sources.txt" in stdout
    assert (
        "COMET, en-de en-fr: nrefs:1|model:Unbabel/wmt22-comet-da|version:2.2.6|scale:100" in stdout
    )
    assert "good_1  100.0  100.0  100.0" in stdout and "bad_1    20.0   20.0   20.0" in stdout
    script.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    (installed / "python").write_text("#!/bin/sh\necho 9.9.9\n", encoding="utf-8")
    assert run(command) == 0, "what is there is read, nothing is run again"
    stdout = capsys.readouterr().out
    assert "comet-score" not in stdout and "version:2.2.6" in stdout
    assert run([*command, "neural_folder=other"]) != 0
    assert "COMET failed in other/comet/en-de" in capsys.readouterr().err


def test_what_is_not_installed_is_one_sentence_with_the_command(
    systems: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(systems))
    assert run(["compare", "bad_1", "good_1", "neural=[comet,metricx]", "samples=5"]) == 0
    stdout = capsys.readouterr().out
    assert "uvx --from unbabel-comet==2.2.7 comet-score -t 1.txt 2.txt" in stdout
    assert "COMET is not installed: install uv, or run the command elsewhere." in stdout
    assert "python -m metricx24.predict" in stdout and "MetricX is not installed: " in stdout
    assert (systems / "neural" / "metricx" / "en-fr" / "metricx.jsonl").is_file()


def test_the_picture_has_a_row_for_each_system_in_each_direction() -> None:
    error = Estimate(0.0, 0.5)
    systems = [System(name, ()) for name in ("base", "ours", "theirs")]
    comparisons = [
        Comparison(d, name, "chrf++", 50.0, 50.0 + gain, p, p, "", (gain - 1, gain + 1), error)
        for d in ("en-de", "en-fr")
        for name, gain, p in (("ours", 2.0, 0.01), ("theirs", -0.5, 0.6))
    ]
    picture = difference_figure(systems, comparisons, verdicts(comparisons, margin=0.25))
    units = [f"{direction}: chrF++ above that of base" for direction in ("en-de", "en-fr")]
    assert [axes.get_xlabel() for axes in picture.axes] == units
    for axes in picture.axes:
        assert [label.get_text() for label in axes.get_yticklabels()] == ["ours", "theirs"]
        drawn = [tuple(line.get_xdata()) for line in axes.lines]
        assert (1.0, 3.0) in drawn and (-1.5, 0.5) in drawn
        assert {(b.get_x(), b.get_x() + b.get_width()) for b in axes.patches} == {(-0.25, 0.25)}
    without = difference_figure(systems, comparisons, verdicts(comparisons))
    assert not without.axes[0].patches


TWO = {"systems": ["a", "b"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TWO | {"groups": {"a": ["x"], "b": ["y"]}}, "folders or groups, not both"),
        (TWO | {"marks": ["x.tsv"]}, "give marks alone"),
        ({"groups": {"a": ["x"]}}, "at least two run folders"),
        (TWO | {"margin": 0}, "margin must be above 0"),
        (TWO | {"power": 1}, "power must be between"),
        (TWO | {"level": 0}, "level must be between"),
        (TWO | {"judge_lines": 0}, "judge_lines must be"),
        (TWO | {"judge": "x.csv"}, "judge=x.csv must end in .tsv"),
        (TWO | {"picture": "x.svg"}, "picture=x.svg must end in .png"),
        (TWO | {"neural": ["commet"]}, "did you mean comet"),
        (TWO | {"metricx_python": "nowhere"}, "metricx_python=nowhere is no file"),
    ],
)
def test_settings_that_do_not_go_together_are_a_sentence(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(OmegaConf.merge(OmegaConf.structured(Compare), settings))


def test_groups_and_sheets_that_do_not_fit_are_a_sentence(
    systems: Path, capsys: pytest.CaptureFixture
) -> None:
    assert "x.tsv does not exist" in complaint(capsys, "marks=[x.tsv]")
    for groups, message in (
        ({"a": [], "b": ["bad_1"]}, "groups.a has no runs"),
        ({"a": ["bad_1"], "b": ["bad_1"]}, "names one folder twice"),
        ({"a": ["bad_1", "good_1"], "b": ["bad_2"]}, "groups.a has the seed 1 twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_groups(groups)
    shutil.copytree("bad_1", "same")
    stdout = complaint(capsys, "bad_1", "same", "judge=x.tsv", "samples=5")
    assert "nothing to judge" in stdout
