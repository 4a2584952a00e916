"""The evaluate program: a run, a checkpoint or a base model on any data."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import DATA, LENGTH, MODEL, config, folders, record

from polylect.cli import run
from polylect.files import Unwritable, write_text
from polylect.programs.evaluate import main
from polylect.run.build import build_data, load
from polylect.run.results.scoring import score_module as score

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


@pytest.mark.pictures
def test_a_run_is_scored_as_at_its_end(tiny_run: Path, tmp_path: Path) -> None:
    folder = evaluate(tmp_path, f"run={tiny_run}")
    assert scores(folder) == scores(tiny_run)
    assert outputs(folder) == outputs(tiny_run)
    run_record = record(folder)
    assert run_record["status"] == "done"
    assert run_record["metrics"]["objective"] == record(tiny_run)["metrics"]["objective"]
    left = {p.name for p in folder.iterdir()}
    assert left == {"outputs", "plots", "scores.json", "record.json", "passport.json"}


def test_what_becomes_of_the_data_is_said_and_recorded(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["The cat sees the house.", "We read.", "The old house " * 400]
    write_text(tmp_path / "a.tsv", "".join(f"{line}\tdas Haus\n" for line in lines))
    test = f"data.test={{kind: tsv, path: {tmp_path}/a.tsv, check_sides: false}}"
    own = ["data=files", "data.directions=[en-de]", test]
    folder = evaluate(tmp_path / "runs", f"run={tiny_run}", *own, "metrics=[chrf++]")
    shown = capsys.readouterr().out
    (counts,) = [line.split() for line in shown.splitlines() if line.startswith("test en-de")]
    assert counts == ["test", "en-de", "3", "1", "2"]
    assert "warning: test en-de: 1 of 3 pairs" in shown
    (read,) = record(folder)["data"]["test"].values()
    assert (read["read"], read["too_long"], read["left"]) == (3, 1, 2)


@pytest.mark.parametrize("name", ["en-fr.txt", "scores.json"])
def test_a_full_disk_is_a_sentence_that_says_how_to_go_on(
    name: str,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Path.write_bytes

    def write_bytes(path: Path, content: bytes) -> int:
        if name not in path.name:
            return real(path, content)
        real(path, content[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert run(["evaluate", f"run={tiny_run}", f"runs={tmp_path}", "metrics=[chrf++]"]) == 2
    error = capsys.readouterr().err.strip()
    assert f"{name} cannot be written (No space left on device): make room, then give the" in error
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "failed"
    assert not [p for p in folder.rglob("*") if name in p.name]
    trained = shutil.copytree(tiny_run, tmp_path / "trained")
    with pytest.raises(Unwritable, match=f"make room, then give polylect evaluate run={trained}"):
        load_and_score(trained)


def test_what_is_given_goes_on_top_of_the_data_of_the_run(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["evaluate", "metrics=[chrf++]"]
    assert run([*common, f"run={tiny_run}", "data.test.size=2", "name=folder"]) == 0
    checkpoint = tiny_run / "checkpoints" / "best.ckpt"
    assert run([*common, f"run={checkpoint}", "data.test.size=2", "name=checkpoint"]) == 0
    whole = outputs(tiny_run)
    for name in ("folder", "checkpoint"):
        (folder,) = (tmp_path / "runs" / name).iterdir()
        run_record = record(folder)["config"]["data"]
        own = record(tiny_run)["config"]["data"]
        assert run_record == own | {"test": own["test"] | {"size": 2}}
        assert outputs(folder) == {k: first_lines(text, 2) for k, text in whole.items()}


def first_lines(text: str, count: int) -> str:
    return "".join(text.splitlines(keepends=True)[:count])


def test_a_corpus_that_is_given_takes_the_place_of_that_of_the_run(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "mine.tsv", "The boy sees it.\tDer Junge sieht es.\n" * 3)
    given = ["data.directions=[en-de]", "data.test=mine.tsv", "metrics=[chrf++]"]
    assert run(["evaluate", f"run={tiny_run}", *given]) == 0
    (folder,) = (tmp_path / "runs" / "evaluate").iterdir()
    assert {d: row["sentences"] for d, row in scores(folder).items()} == {"en-de": 3}


def load_and_score(folder: Path) -> None:
    """As at the end of a training run, into its folder."""
    module, cfg = load(folder)
    data = build_data(cfg)
    data.set_backbone(module.backbone, module.tokenizer)
    score(module, data, folder, ["chrf++"], limit=1)


def test_every_score_has_its_signature(tiny_run: Path) -> None:
    for direction in ("en-de", "en-fr"):
        actual = scores(tiny_run)[direction]
        assert actual["sentences"] == 5
        for metric in ("bleu", "chrf++", "ter"):
            assert "version:" in actual[metric]["signature"]
        assert actual["diagnosis"]


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


def test_a_folder_of_adapters_is_scored_as_its_run(tiny_run: Path, tmp_path: Path) -> None:
    library = f"library={tiny_run}/adapters"
    folder = evaluate(tmp_path, *MODEL, *TONGUES, *(f"+{o}" for o in LENGTH), library)
    assert outputs(folder) == outputs(tiny_run)
    assert scores(folder) == scores(tiny_run)


def test_a_base_is_scored_zero_shot_few_shot_and_with_a_memory(tmp_path: Path) -> None:
    settings = [*MODEL, *TONGUES, *(f"+{o}" for o in LENGTH)]
    zero = evaluate(tmp_path / "zero", *settings)
    few = evaluate(tmp_path / "few", *settings, "shots=3")
    near = evaluate(tmp_path / "near", *settings, "memory.corpus=train", "memory.threshold=0.1")
    run_record = record(few)["metrics"]["shots"]
    assert {d: len(pairs) for d, pairs in run_record["pairs"].items()} == {"en-de": 3, "en-fr": 3}
    assert run_record["counts"]["en-de"]["sentences"] == 5
    assert record(near)["metrics"]["memory"]["counts"]["en-de"]["matched"] > 0
    assert outputs(zero).keys() == outputs(few).keys() == outputs(near).keys()
    assert "shots" not in record(zero)["metrics"]


def test_one_adapter_translates_all_directions(tiny_run: Path, tmp_path: Path) -> None:
    by_run = evaluate(tmp_path, f"run={tiny_run}", "adapter=en-de")
    assert outputs(by_run)["en-de.txt"] == outputs(tiny_run)["en-de.txt"]
    assert outputs(by_run)["en-fr.txt"] != outputs(tiny_run)["en-fr.txt"]
    settings = [*MODEL, *TONGUES, *(f"+{o}" for o in LENGTH), f"library={tiny_run}/adapters"]
    assert outputs(evaluate(tmp_path, *settings, "adapter=en-de")) == outputs(by_run)
    assert record(by_run)["config"]["adapter"] == "en-de"


def test_two_adapters_of_one_direction_have_to_be_named(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = shutil.copytree(tiny_run / "adapters", tmp_path / "library")
    shutil.copytree(library / "en-de", library / "second")
    settings = [*MODEL, "data=tongues", *DATA, "device=cpu"]
    settings += [f"library={library}", f"runs={tmp_path}", "metrics=[chrf++]"]
    assert run(["evaluate", *settings]) == 2
    error = capsys.readouterr().err.strip()
    assert "en-de is served by en-de and by second: name one with adapter=en-de" in error
    assert run(["evaluate", *settings, "adapter=second"]) == 0


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
        (["run=RUN", "shots=-1"], "shots must be at least 0, got -1"),
        (["run=RUN", "shots=2", "memory.corpus=train"], "give shots or memory.corpus, not both"),
        (["run=RUN", "shots=2"], "was trained on prompts without examples"),
        (["run=RUN", "library=x"], "give run=… or library=…, not both"),
        (["run=RUN", "adapter=en-ta"], "no adapter is named 'en-ta'; did you mean"),
        (["run=RUN/checkpoints/last.ckpt", "adapter=en-de"], "has no folder of adapters"),
        ([*MODEL, "data=tongues", "adapter=en-de"], "has no adapters to load or switch"),
        (
            [*MODEL, "data=tongues", "data.template=plain", "library=RUN/adapters"],
            "were trained with template tag, and would be asked with plain",
        ),
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
