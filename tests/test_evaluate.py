"""The evaluate program: a run, a checkpoint or a base model on any data."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import DATA, LENGTH, MODEL, config, folders, record

from polylect.cli import run
from polylect.evaluate import main

TONGUES = ["data=tongues", *DATA]


def evaluate(runs: Path, *overrides: str) -> Path:
    """Score to the end; the folder with the results."""
    before = folders(runs)
    main(config("evaluate", f"runs={runs}", *overrides))
    (made,) = folders(runs) - before
    return made


def scores(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))


def outputs(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text(encoding="utf-8") for p in (folder / "outputs").iterdir()}


def test_a_run_is_scored_as_at_its_end(tiny_run: Path, tmp_path: Path) -> None:
    folder = evaluate(tmp_path, f"run={tiny_run}")
    assert scores(folder) == scores(tiny_run)
    assert outputs(folder) == outputs(tiny_run)
    found = record(folder)
    assert found["status"] == "done"
    assert found["metrics"]["objective"] == record(tiny_run)["metrics"]["objective"]
    assert not {p.name for p in folder.iterdir()} - {"outputs", "scores.json", "record.json"}


def test_every_score_has_its_signature(tiny_run: Path) -> None:
    for direction in ("en-de", "en-fr"):
        found = scores(tiny_run)[direction]
        assert found["sentences"] == 5
        for metric in ("bleu", "chrf++", "ter"):
            assert "version:" in found[metric]["signature"]
        assert found["diagnosis"]


def test_outputs_are_in_input_order_whatever_the_batching(tiny_run: Path, tmp_path: Path) -> None:
    longer = ["generation.extra=12"]
    expected = outputs(evaluate(tmp_path, f"run={tiny_run}", *(f"+{o}" for o in longer)))
    assert expected != outputs(tiny_run)
    for batching in (["+generation.rows=1"], ["+generation.rows=3", "+generation.sort=false"]):
        settings = [*(f"+{o}" for o in longer), *batching]
        assert outputs(evaluate(tmp_path, f"run={tiny_run}", *settings)) == expected


def test_a_base_model_is_scored_as_before_training(tiny_run: Path, tmp_path: Path) -> None:
    length = [f"+{o}" for o in LENGTH]
    folder = evaluate(tmp_path, "model=tiny", "model.hidden=32", *TONGUES, *length)
    assert scores(folder) == record(tiny_run)["metrics"]["base"]
    assert outputs(folder) == outputs(tiny_run / "base")


def test_a_checkpoint_is_scored_on_other_data(tiny_run: Path, tmp_path: Path) -> None:
    lines = {"en": "A cat.\nWe read the new book.\n", "fr": "Un chat.\nNous lisons le livre.\n"}
    for language, text in lines.items():
        (tmp_path / f"other.{language}").write_text(text, encoding="utf-8")
    other = ["data=files", "data.directions=[en-fr]", f"data.test='{tmp_path}/other.{{lang}}'"]
    checkpoint = tiny_run / "checkpoints" / "last.ckpt"
    folder = evaluate(tmp_path, f"run={checkpoint}", *other)
    assert list(scores(folder)) == ["en-fr"]
    assert len(outputs(folder)["en-fr.txt"].splitlines()) == 2
    # The prompt is what the run was trained with, not what the other data's file names.
    tag = evaluate(tmp_path, f"run={checkpoint}", *other, "data.template=tag")
    assert outputs(folder) == outputs(tag)


def test_part_of_another_split_is_scored(tiny_run: Path, tmp_path: Path) -> None:
    folder = evaluate(tmp_path, f"run={tiny_run}", "split=val", "limit=2", "metrics=[chrf++]")
    assert scores(folder)["en-de"]["sentences"] == 2
    assert "bleu" not in scores(folder)["en-de"]
    assert {len(text.splitlines()) for text in outputs(folder).values()} == {2}


def test_only_the_directions_of_the_data_are_scored(tiny_run: Path, tmp_path: Path) -> None:
    folder = evaluate(tmp_path, f"run={tiny_run}", *TONGUES, "data.directions=[en-fr]")
    assert outputs(folder) == {"en-fr.txt": outputs(tiny_run)["en-fr.txt"]}


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["run=nowhere"], "nowhere is neither a checkpoint nor a run folder"),
        (["run=RUN", "split=dev"], "split must be val or test, got dev"),
        (["run=RUN", "limit=0"], "limit must be at least 1, got 0"),
        (["run=RUN", "metrics=[chrf+]"], "chrf+ does not exist; did you mean chrf"),
        (["run=RUN", "generation.beam=2"], "did you mean generation.beams"),
        (["run=RUN", "device=tpu"], "device=tpu"),
        ([], "give run=FOLDER"),
        (MODEL, "give data=… beside model=…"),
        (
            ["run=RUN", "data=tongues", "data.directions=[en-ta]"],
            "no adapter serves direction en-ta",
        ),
        (["run=RUN", "data=tongues", "data.test=null"], "no test corpora"),
    ],
)
def test_a_mistake_is_one_sentence(
    overrides: list[str],
    sentence: str,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [o.replace("RUN", str(tiny_run)) for o in overrides]
    assert run(["evaluate", f"runs={tmp_path}", *given]) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error.splitlines()[-1]
    assert error.splitlines()[-1].startswith("polylect: ")
