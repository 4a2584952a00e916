"""A published record is shorter and says what is missing; what tables are made of stays."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import publish
import pytest
import records
from hypothesis import given
from hypothesis import strategies as st

SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


def rate(lines: list[int]) -> dict[str, Any]:
    return {"count": 30, "of": 100, "rate": 0.3, "lines": lines}


def run_record(**changes: Any) -> dict[str, Any]:
    scores = {
        "bleu": {"value": 12.345678901234567, "signature": SIGNATURE},
        "sentences": 100,
        "diagnosis": {"segments": 100, "echo": rate([1, 2, 3]), "empty": rate([])},
    }
    return {
        "run": "runs/demo/2026-01-01_00-00-00",
        "config": {"name": "demo", "seed": 1},
        "command": ["polylect", "train"],
        "environment": {"packages": {"torch": "2.13.0"}, "commit": "abc", "dirty": False},
        "data": {"test": {"en-de": {"sha256": "0123"}}},
        "metrics": {"test": {"en-de": scores}, "objective": 12.5},
        "status": "done",
        "started": "2026-01-01T00:00:00+0000",
        "seconds": 1.5,
        "scratch": False,
    } | changes


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes the folder of a run with a record that has these changes."""

    def made(name: str = "demo", **changes: Any) -> Path:
        folder = tmp_path / "runs" / name / "2026-01-01_00-00-00"
        folder.mkdir(parents=True)
        record = run_record(config={"name": name}, **changes)
        (folder / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        return folder

    return made


def publish_to(out: Path, *arguments: Path | str) -> None:
    publish.main(["--out", str(out), *map(str, arguments)])


def refusal(out: Path, *arguments: Path | str) -> str:
    with pytest.raises(SystemExit) as error:
        publish_to(out, *arguments)
    return str(error.value)


# What stays and what is condensed


def test_all_but_the_bulk_of_a_real_run_stays(tiny_run: Path, tmp_path: Path) -> None:
    publish_to(tmp_path, "--scratch", "--name", "tiny", tiny_run)
    record, source = records.read(tmp_path / "tiny.json"), (tiny_run / "record.json").read_bytes()
    original = json.loads(source)
    note = record.pop("published")
    assert note["sha256"] == hashlib.sha256(source).hexdigest()
    lines = {f"metrics.{m}.*.diagnosis.*.lines" for m in ("test", "base")}
    assert note["condensed"].keys() == {*lines, "*"}
    for part in ("test", "base"):
        for scores in original["metrics"][part].values():
            for value in scores["diagnosis"].values():
                if isinstance(value, dict):
                    value.pop("lines", None)
    assert str(tiny_run.parent) in source.decode() and str(tiny_run.parent) not in str(record)
    assert record == publish.shorten_paths(original)


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("/home/ada/bases/gemma", "…/gemma"),
        ("model.path=/home/ada/gemma", "model.path=…/gemma"),
        ("['/a/b/c', {x: /d/e.{lang}.gz}]", "['…/c', {x: …/e.{lang}.gz}]"),
        ("runs/captions/noon", "runs/captions/noon"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("and/or, 1/2, /usr", "and/or, 1/2, /usr"),
    ],
)
def test_folders_of_the_machine_are_not_published(text: str, published: str) -> None:
    assert publish.shorten_paths({"a": [text]}) == {"a": [published]}
    assert publish.shorten_paths(published) == published


def test_a_record_says_what_was_condensed() -> None:
    note = publish.condensed_record(run_record())["published"]
    assert note == {"condensed": {"metrics.test.*.diagnosis.*.lines": publish.LINES}}
    assert publish.condensed_record(run_record(metrics={"steps": 3}))["published"] == {
        "condensed": {}
    }


def test_the_record_that_is_given_is_left_as_it_is() -> None:
    record = run_record()
    before = copy.deepcopy(record)
    publish.condensed_record(record)
    assert record == before


def test_counts_and_rates_of_a_diagnosis_stay() -> None:
    published = publish.condensed_record(run_record())["metrics"]["test"]["en-de"]
    assert published["diagnosis"]["echo"] == {"count": 30, "of": 100, "rate": 0.3}
    assert published["diagnosis"]["segments"] == 100
    assert published["bleu"] == {"value": 12.345678901234567, "signature": SIGNATURE}


def test_shares_by_test_set_become_their_means() -> None:
    chosen = {"source": {"a": {"x": 1.0}, "b": {"x": 0.25, "y": 0.75}}}
    record = publish.condensed_record(
        run_record(metrics={"routing": {"chosen": chosen, "all": {}}})
    )
    assert record["metrics"]["routing"] == {
        "chosen": {"source": {"x": 0.625, "y": 0.375}},
        "all": {},
    }
    assert record["published"]["condensed"] == {"metrics.routing.chosen": publish.CHOSEN}


# Rows of routing

PLACES = st.fixed_dictionaries(
    {
        "library": st.sampled_from(["task", "knowledge"]),
        "layer": st.sampled_from(["layers.0.up", "layers.1.up"]),
        "direction": st.sampled_from(["en-de", "en-fr", "en-hi"]),
        "side": st.sampled_from(["source", "target"]),
    }
)


@st.composite
def rows_of_routing(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows with whole numbers of tokens for each adapter; the right one is a direction's own."""
    rows = []
    for place in draw(st.lists(PLACES, min_size=1, unique_by=lambda p: tuple(p.values()))):
        tokens = draw(st.dictionaries(st.sampled_from("abc"), st.integers(1, 50), min_size=1))
        total, own = sum(tokens.values()), {"en-de": "a", "en-fr": "b"}.get(place["direction"])
        agreement = None if own is None else tokens.get(own, 0) / total
        shares = {name: count / total for name, count in tokens.items()}
        rows.append({**place, "tokens": total, "shares": shares, "agreement": agreement})
    return rows


def counted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Tokens, and the share of the right adapter's where it is known."""
    known = [row for row in rows if row["agreement"] is not None]
    tokens = sum(row["tokens"] for row in known)
    right = sum(row["agreement"] * row["tokens"] for row in known)
    return {
        "tokens": sum(row["tokens"] for row in rows),
        "agreement": pytest.approx(right / tokens, abs=1e-6) if tokens else None,
    }


@given(rows_of_routing())
def test_rows_of_routing_become_sums(rows: list[dict[str, Any]]) -> None:
    routing = {"agreement": {"task": {"source": 0.5}}, "rows": rows}
    record = publish.condensed_record(run_record(metrics={"routing": routing}))
    sums = record["metrics"]["routing"]
    assert sums.keys() == {"agreement", "layers", "directions", "shares"}
    assert record["published"]["condensed"].keys() == {"metrics.routing.rows"}
    for part, key in (("layers", "layer"), ("directions", "direction")):
        places = {(row["library"], row[key], row["side"]) for row in rows}
        assert {
            (library, place, side): value
            for library, by_place in sums[part].items()
            for place, sides in by_place.items()
            for side, value in sides.items()
        } == {
            place: counted([r for r in rows if (r["library"], r[key], r["side"]) == place])
            for place in places
        }
    for library, sides in sums["shares"].items():
        for side, shares in sides.items():
            own = [row for row in rows if (row["library"], row["side"]) == (library, side)]
            tokens = sum(row["tokens"] for row in own)
            weights = {n: sum(r["shares"].get(n, 0) * r["tokens"] for r in own) for n in shares}
            assert shares == {n: pytest.approx(w / tokens, abs=1e-6) for n, w in weights.items()}
            assert sum(shares.values()) == pytest.approx(1, abs=1e-5)


def test_rows_by_layer_have_no_directions() -> None:
    row = {"library": "task", "layer": "up", "side": "source", "tokens": 4, "agreement": 0.25}
    layers = [row | {"shares": {"a": 0.25, "b": 0.75}}]
    routing = publish.condensed_record(run_record(metrics={"routing": {"layers": layers}}))[
        "metrics"
    ]
    assert routing["routing"] == {
        "layers": {"task": {"up": {"source": {"tokens": 4, "agreement": 0.25}}}},
        "shares": {"task": {"source": {"a": 0.25, "b": 0.75}}},
    }


# The command


def test_the_same_run_gives_the_same_bytes(run_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = run_folder()
    for out in ("first", "second"):
        publish_to(tmp_path / out, folder)
    text = (tmp_path / "first" / "demo.json").read_bytes()
    assert text == (tmp_path / "second" / "demo.json").read_bytes()
    publish_to(tmp_path / "first", folder)
    publish_to(tmp_path / "first", tmp_path / "second" / "demo.json")
    assert text == (tmp_path / "first" / "demo.json").read_bytes()


def test_scratch_and_failed_runs_are_refused_unless_asked_for(
    run_folder: Callable[..., Path], tmp_path: Path
) -> None:
    out, good = tmp_path / "out", run_folder("good")
    dirty, failed = run_folder("dirty", scratch=True), run_folder("failed", status="failed")
    for bad, reason in ((dirty, "changed working tree"), (failed, "failed")):
        message = refusal(out, good, bad)
        assert str(bad) in message and reason in message
    assert not out.exists(), "one refusal leaves the others unpublished"
    publish_to(out, "--scratch", dirty, failed)
    assert records.read(out / "dirty.json")["scratch"]
    assert records.read(out / "failed.json")["status"] == "failed"


def test_another_record_is_not_replaced_unless_asked_for(
    run_folder: Callable[..., Path], tmp_path: Path
) -> None:
    publish_to(tmp_path / "out", run_folder("first"), "--name", "demo")
    second = run_folder("second", seconds=99.0)
    assert "demo.json holds something else" in refusal(tmp_path / "out", second, "--name", "demo")
    assert records.read(tmp_path / "out" / "demo.json")["seconds"] == 1.5
    publish_to(tmp_path / "out", second, "--name", "demo", "--replace")
    assert records.read(tmp_path / "out" / "demo.json")["seconds"] == 99.0


def test_names_come_from_runs_and_may_be_given(
    run_folder: Callable[..., Path], tmp_path: Path
) -> None:
    runs = [run_folder("one"), run_folder("two")]
    publish_to(tmp_path / "out", *runs, "--name", "tongues_{}_seed1")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["tongues_one_seed1.json", "tongues_two_seed1.json"]
    assert "several runs would be" in refusal(tmp_path / "out", *runs, "--name", "both")
    assert "is no name of a file" in refusal(tmp_path / "out", *runs, "--name", "../{}")


def test_what_is_no_record_is_named(tmp_path: Path) -> None:
    broken, other = tmp_path / "broken.json", tmp_path / "other.json"
    broken.write_text("{", encoding="utf-8")
    other.write_text("[1]", encoding="utf-8")
    assert "record.json does not exist" in refusal(tmp_path / "out", tmp_path)
    assert "broken.json is not JSON" in refusal(tmp_path / "out", broken)
    assert "other.json is no record of a run: it lacks command" in refusal(tmp_path / "out", other)


def test_translations_are_copied_where_they_are_asked_for(
    run_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder, outputs = run_folder(), tmp_path / "outputs"
    options = ("--outputs", outputs, folder)
    assert "has no translations" in refusal(tmp_path / "out", *options)
    (folder / "outputs").mkdir()
    (folder / "outputs" / "en-de.txt").write_text("Hallo\n", encoding="utf-8")
    (outputs / "demo").mkdir(parents=True)
    (outputs / "demo" / "en-fr.txt").write_text("of an earlier run\n", encoding="utf-8")
    publish_to(tmp_path / "out", *options)
    assert [path.name for path in (outputs / "demo").iterdir()] == ["en-de.txt"]
    assert (outputs / "demo" / "en-de.txt").read_text(encoding="utf-8") == "Hallo\n"


def test_a_benchmark_is_published_from_its_file(tmp_path: Path) -> None:
    rows = [{"phase": "decode", "rounds": 3, "over_ours": {"peft": {"median": 2.0}}}]
    record = run_record(benchmark="demo", rows=rows)
    for key in ("run", "config", "data", "metrics", "status"):
        del record[key]
    (tmp_path / "demo.json").write_text(json.dumps(record), encoding="utf-8")
    publish_to(tmp_path / "results", tmp_path / "demo.json")
    published = records.read(tmp_path / "results" / "demo.json")
    assert published.pop("published")["condensed"] == {}
    assert published == record
