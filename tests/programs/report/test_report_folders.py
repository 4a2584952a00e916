"""Reports on real small runs: what is in them, what they lack, folders that are none."""

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers.scored import put_translations, references
from helpers.tiny import config
from lxml import etree, html

from polylect.cli import run
from polylect.eval.inference.verdict import Verdict
from polylect.eval.table import Table
from polylect.programs.report import main
from polylect.programs.report.scores import _marked as marked
from polylect.run.sweep.folder import FILE
from polylect.run.sweep.ledger import Attempt, append

QUICK = ["samples=10", "lines=2"]


def copied(folder: Path, to: Path, seed: int | None = None, lines: str | None = None) -> Path:
    """A copy of a run, perhaps with another seed, or with the same line for all translations."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("checkpoints", "adapters"))
    if seed is not None:
        edit(to, lambda record: record["config"].update(seed=seed))
    if lines is not None:
        right = references()
        put_translations(to, {d: [lines] * len(texts) for d, texts in right.items()}, right)
    return to


def edit(folder: Path, change) -> None:
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    change(record)
    (folder / "record.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(*arguments: object) -> None:
    """Write a report on the folders, with the settings, among the arguments."""
    texts = [str(argument) for argument in arguments]
    folders = [text for text in texts if "=" not in text]
    settings = [text for text in texts if "=" in text]
    main(config("report", f"folders=[{','.join(map(repr, folders))}]", *settings))


def page(*arguments: object, out: str = "report.html") -> etree._Element:
    write(*arguments, *QUICK, f"out={out}")
    return html.fromstring(Path(out).read_bytes())


def sections(root: etree._Element) -> dict[str, str]:
    return {s.findtext("h2"): " ".join(s.text_content().split()) for s in root.iter("section")}


def tables(root: etree._Element) -> dict[str, list[list[str]]]:
    """The tables by caption, rows of texts, the header first."""
    found = {}
    for figure in root.iter("figure"):
        rows = [[cell.text_content() for cell in row] for row in figure.iter("tr")]
        found[figure.findtext("figcaption")] = rows
    return found


def missing(root: etree._Element) -> str:
    return " ".join(p.text_content() for p in root.iter("p") if p.get("class") == "missing")


def test_a_page_holds_all_of_a_run_and_needs_nothing_else(tiny_run: Path, here: Path) -> None:
    root = page(tiny_run)
    scores = json.loads((tiny_run / "scores.json").read_text(encoding="utf-8"))
    shown = tables(root)
    assert shown["BLEU"][0] == ["run", "en-de", "en-fr", "mean"]
    assert shown["BLEU"][1][1] == f"{scores['en-de']['bleu']['value']:.1f}"
    text = sections(root)
    assert scores["en-de"]["chrf++"]["signature"] in text["Scores"]
    stored = json.loads((tiny_run / "record.json").read_text(encoding="utf-8"))
    environment, origin = stored["environment"], text["Commands and environment"]
    assert environment["packages"]["torch"] in origin
    assert stored["data"]["read"]["test"]["en-de"]["sha256"][:16] in origin
    assert "data.val.size" not in origin and "tokens_per_batch: 512" in origin, "all settings"
    pictures = [image.get("src") for image in root.iter("img")]
    assert len(pictures) == len(list((tiny_run / "plots").glob("*.png"))) > 3
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in pictures)
    assert not list(root.iter("script", "link", "iframe", "object"))
    assert all(a.get("href").startswith("#s") for a in root.iter("a"))
    assert "default-src 'none'" in root.find(".//meta[@http-equiv]").get("content")
    assert not re.search(r"url\(|@import|https?:", root.findtext(".//style"))
    assert {a.get("href")[1:] for a in root.iter("a")} == {h.get("id") for h in root.iter("h2")}


def test_translations_stand_beside_their_sources(tiny_run: Path, here: Path) -> None:
    first = (tiny_run / "outputs" / "en-de.txt").read_text(encoding="utf-8").splitlines()
    root = page(tiny_run, copied(tiny_run, here / "other", lines="Nothing of it"))
    samples = root.xpath("//div[@class='sample']")
    assert len(samples) == 2 * 2, "two lines of each direction"
    cells = {
        d.findtext("dt"): d.find("dd") for d in samples[0].iter("div") if d.find("dt") is not None
    }
    assert list(cells) == ["source", "reference", "tongues", "other"]
    assert samples[0].findtext("h4") == "line 2", "of five lines the second and the fourth"
    own = list(cells.values())
    assert own[0].get("lang") == "en" and {c.get("lang") for c in own[1:]} == {"de"}
    assert own[2].text_content() == first[1]
    assert [m.text for m in own[3].iter("mark")] == ["Nothing of it"]
    assert [m.text for m in own[1].iter("mark")] == [own[1].text_content()], "none of it is there"


def test_marks_are_the_verdicts_of_compare(tiny_run: Path, here: Path) -> None:
    worse = copied(tiny_run, here / "worse", lines="xyz")
    assert (
        run(["compare", str(tiny_run), str(worse), "samples=10", "out=table.json", "level=0.2"])
        == 0
    )
    report = json.loads(Path("table.json").read_text(encoding="utf-8"))
    words = {v["direction"]: v["word"] for v in report["verdicts"]}
    shown = tables(page(tiny_run, worse, "level=0.2"))
    header, baseline, row = shown["chrF++"]
    signs = {"better": "▲", "worse": "▼"}
    for direction, cell in zip(header[1:3], row[1:3], strict=True):
        assert cell.partition(" ")[2] == signs.get(words[direction], "")
    assert not any(sign in cell for cell in baseline for sign in signs.values())
    assert {"better", "worse"} & set(words.values()), "else nothing is tested here"
    p = [f"{c['p_holm']:.4f}" for c in report["comparisons"]]
    (differences,) = [rows for name, rows in shown.items() if name.startswith("differences to")]
    assert [row[6] for row in differences[1:]] == p


def test_each_verdict_has_its_sign() -> None:
    words = {"a": "better", "b": "worse", "c": "equivalent", "d": "undecided"}
    found = [Verdict(direction, "new", word, 1.0) for direction, word in words.items()]
    table = Table(("run", *words, "mean"), (("old", *"12345"), ("new", *"12345")))
    assert marked(table, found, "old").rows == (
        ("old", *"12345"),
        ("new", "1 ▲", "2 ▼", "3 ≈", "4", "5"),
    )


def test_other_lines_and_signatures_never_share_a_table(tiny_run: Path, here: Path) -> None:
    other = copied(tiny_run, here / "lines")
    edit(other, lambda r: r["data"]["read"]["test"]["en-de"].update(sha256="0" * 64))
    signed = copied(tiny_run, here / "signature")
    path = signed / "scores.json"
    path.write_text(path.read_text(encoding="utf-8").replace("tok:13a", "tok:zh"), "utf-8")
    root = page(tiny_run, other, signed)
    assert [h.text for h in root.iter("h3") if h.text.startswith("Set ")] == [
        "Set 1",
        "Set 2",
        "Set 3",
    ]
    for figure in root.iter("figure"):
        if figure.findtext("figcaption") == "chrF++":
            assert len(list(figure.iter("tr"))) == 2, "a header and one run"
    assert (
        "the test corpus of en-de has changed since" in sections(root)["Translations side by side"]
    )


def test_what_is_missing_is_said(tiny_run: Path, here: Path) -> None:
    bare = copied(tiny_run, here / "bare")
    for name in ("scores.json", "metrics.csv", "passport.json", "config.yaml"):
        (bare / name).unlink(missing_ok=True)
    shutil.rmtree(bare / "plots")
    edit(bare, lambda record: record.update(status="interrupted"))
    said = missing(page(bare)).replace(f"{here}/", "")
    for sentence in (
        "bare is not done: it is interrupted.",
        "bare has no config.yaml and no passport.json.",
        "bare has no scores: bare has no scores.json: score it with polylect evaluate run=bare",
        "No run has scores of translations.",
        "No run has translations.",
        "bare has no curves: bare/metrics.csv does not exist",
        "No ledger of bare: train with callbacks=ledger.",
        "No pictures of bare: there is no folder plots",
    ):
        assert sentence in said, sentence
    whole = copied(tiny_run, here / "whole")
    shutil.rmtree(whole / "outputs")
    (whole / "transfer.json").write_text("{}")
    said = missing(page(tiny_run, whole, out="second.html"))
    assert "No test of significance: " in said and "the translations of the run are gone" in said
    assert "A file of whole cannot be shown: KeyError" in said


def sweep_of(tiny_run: Path, here: Path) -> Path:
    """A sweep of two strategies with two seeds each, and a job that failed."""
    sweep = here / "runs" / "sweeps" / "grid" / "noon"
    sweep.mkdir(parents=True)
    (sweep / FILE).write_text("{}")
    jobs = [("lora", 1), ("lora", 2), ("full", 1), ("full", 2)]
    for number, (strategy, seed) in enumerate(jobs):
        folder = sweep / f"00{number}_{strategy}_{seed}"
        copied(tiny_run, folder, seed, lines=None if strategy == "lora" else f"xyz {seed}")
        settings = [f"strategy={strategy}", f"seed={seed}"]
        log = str(sweep / f"{number}.log")
        append(
            sweep,
            Attempt(number, settings, "done", str(number), str(folder), log, "", objective=seed),
        )
    (sweep / "4.log").write_text("one\nthe reason\n", encoding="utf-8")
    gone = str(sweep / "004")
    append(sweep, Attempt(4, ["strategy=x"], "failed", "4", gone, str(sweep / "4.log"), "", exit=2))
    return sweep


def test_jobs_that_differ_in_their_seed_are_one_system(tiny_run: Path, here: Path) -> None:
    root = page(sweep_of(tiny_run, here))
    shown, text = tables(root), sections(root)
    assert [row[0] for row in shown["chrF++ over seeds"]] == [
        "system",
        "strategy=lora",
        "strategy=full",
    ]
    assert len(shown["chrF++"]) == 1 + 4
    assert "strategy=full against strategy=lora:" in text["Scores"]
    assert len(shown["jobs of the sweep"]) == 1 + 5 and "4 done, 1 failed" in text["Runs"]
    assert "the reason" in text["Runs"], "last lines of the failed job"
    assert "Job 4 (failed) has left no run" in missing(root)
    assert {row[0] for row in shown["settings that differ"]} == {"setting", "seed"}
    moved = shutil.move(here / "runs", here / "elsewhere")
    found = page(Path(moved) / "sweeps" / "grid" / "noon", out="moved.html")
    assert len(tables(found)["what was run"]) == 1 + 4


def test_stages_of_a_recipe_are_runs(tiny_run: Path, here: Path) -> None:
    recipe = here / "recipe"
    recipe.mkdir()
    shutil.copy(tiny_run / "record.json", recipe)
    for name in ("detect", "train"):
        copied(tiny_run, recipe / name, seed=1 if name == "train" else 2)
        line = {"stage": name, "overrides": ["seed=1"], "exit": 0, "seconds": 3.0}
        with (recipe / "ledger.jsonl").open("a") as ledger:
            ledger.write(json.dumps(line | {"folder": str(recipe / name)}) + "\n")
    shown = tables(page(recipe))
    assert [row[0] for row in shown["what was run"]] == ["run", "detect", "train"]
    ended = shown["stages of the recipe, as they ended"]
    assert [row[0] for row in ended] == ["stage", "detect", "train"]


def test_groups_are_systems(tiny_run: Path, here: Path) -> None:
    folders = [copied(tiny_run, here / f"seed_{seed}", seed=seed) for seed in (1, 2)]
    groups = f"groups={{one: [{folders[0]}, {folders[1]}], base: [{tiny_run}]}}"
    assert run(["report", groups, *QUICK, "out=groups.html"]) == 0
    shown = tables(html.fromstring(Path("groups.html").read_bytes()))
    assert [row[0] for row in shown["BLEU over seeds"]] == ["system", "one", "base"]


def test_bad_folders_and_settings_are_a_sentence(
    tiny_run: Path, here: Path, capsys: pytest.CaptureFixture
) -> None:
    def complaint(*arguments: object) -> str:
        with pytest.raises((ValueError, FileNotFoundError)) as error:
            write(*arguments)
        assert "\n" not in str(error.value)
        return str(error.value)

    (here / "empty").mkdir()
    (here / "torn").mkdir()
    (here / "torn" / "record.json").write_text('{"run": ')
    (here / "ledger").mkdir()
    (here / "ledger" / "ledger.jsonl").write_text('{"stage": "x"}\n')
    shutil.copytree(here / "ledger", here / "sweep")
    (here / "sweep" / FILE).write_text("{}")
    (here / "begun").mkdir()
    (here / "begun" / FILE).write_text("{}")
    assert "give the folders of runs" in complaint()
    assert "nowhere is no folder" in complaint("nowhere")
    assert "empty is no folder of a run, a sweep or a recipe" in complaint("empty")
    assert "torn/record.json is not valid JSON" in complaint("torn")
    assert "ledger/ledger.jsonl is no ledger of a recipe" in complaint("ledger")
    assert "sweep/ledger.jsonl is no ledger of a sweep" in complaint("sweep")
    assert "no run in begun has a record yet" in complaint("begun")
    assert "must end in .html, .md or .tex" in complaint(tiny_run, "out=x.pdf")
    assert "form=latex is given: leave one" in complaint(tiny_run, "out=x.html", "form=latex")
    assert "form=pdf does not exist" in complaint(tiny_run, "form=pdf")
    assert "did you mean bootstrap" in complaint(tiny_run, "test=bootstraps")
    assert "metric=chrf+ does not exist; did you mean chrf++" in complaint(tiny_run, "metric=chrf+")
    for setting in ("samples=0", "lines=-1", "margin=0", "level=1"):
        assert f"{setting.partition('=')[0]} must be" in complaint(tiny_run, setting)
    assert run(["report", "nowhere"]) == 2
    assert capsys.readouterr().err.endswith(
        "is no folder: give those of runs, sweeps or recipes.\n"
    )
    (here / "report.html").touch()
    assert "exists: give another name" in complaint(tiny_run)
    assert {path.name for path in here.glob("report*")} == {"report.html"}
