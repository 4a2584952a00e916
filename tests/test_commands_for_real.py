"""The README's main commands, run on a shortened budget and judged by what comes out."""

import csv
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from polylect.cli import run

pytestmark = pytest.mark.slow

DIRECTIONS = ("en-de", "en-fr")
TWO = "data.directions=[en-de,en-fr]"
SETS = "data.train.size=2000 data.val.size=10 data.test.size=20"
SHORT = "trainer.val_check_interval=15 trainer.log_every_n_steps=5 data.tokens_per_batch=768"
WITHOUT_SCORES = "evaluate=false evaluate_base=false"
Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(autouse=True)
def in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are given where the folder `runs` is, as a user gives them."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("WANDB_SILENT", "true")


def polylect(command: str) -> None:
    assert run(shlex.split(command)) == 0, command


def only(folder: Path) -> Path:
    (path,) = [path for path in folder.iterdir() if path.is_dir()]
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def chrf(folder: Path) -> dict[str, float]:
    return {d: row["chrf++"]["value"] for d, row in read(folder / "scores.json").items()}


def logged_values(folder: Path) -> dict[str, float]:
    """The last value of every column of metrics.csv."""
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return {k: float(v) for row in csv.DictReader(file) for k, v in row.items() if v}


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    """The quick start on a short budget: the run that the other commands use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        polylect(f"train {TWO} {SETS} {SHORT} trainer.max_steps=30")
        return (place / "runs" / "tongues").resolve() / only(place / "runs" / "tongues").name


def test_training_beats_the_base_and_leaves_what_the_readme_says(trained: Path) -> None:
    record = read(trained / "record.json")
    assert (record["status"], record["metrics"]["steps"]) == ("done", 30)
    for direction in DIRECTIONS:
        base = record["metrics"]["base"][direction]["chrf++"]["value"]
        assert chrf(trained)[direction] > base + 5
        assert len((trained / "outputs" / f"{direction}.txt").read_text().splitlines()) == 20
        assert (trained / "adapters" / direction / "adapter_config.json").is_file()
    assert {"directions.png", "scores.png"} <= {p.name for p in (trained / "plots").iterdir()}


def test_resume_goes_on_with_the_settings_of_the_run(trained: Path, place: Path) -> None:
    polylect(f"train resume={trained} trainer.max_steps=45 runs=longer {WITHOUT_SCORES}")
    longer = only(place / "longer" / "tongues")
    record = read(longer / "record.json")
    assert record["metrics"]["steps"] == 45
    assert record["config"]["data"]["directions"] == list(DIRECTIONS)
    assert logged_values(longer)["val/loss"] < logged_values(trained)["val/loss"]


def test_an_evaluation_scores_as_training_did_and_logs(trained: Path, place: Path) -> None:
    # In a process of its own: the client keeps the settings of the first run in a process.
    arguments = ["evaluate", f"run={trained}", "logger=[csv,wandb]", "runs=scored"]
    subprocess.run([sys.executable, "-m", "polylect.cli", *arguments], check=True)
    scored = only(place / "scored" / "evaluate")
    assert chrf(scored) == chrf(trained)
    values = logged_values(scored)
    for direction in DIRECTIONS:
        assert math.isclose(values[f"test/chrf++/{direction}"], chrf(trained)[direction])
    assert list((scored / "wandb").glob("offline-run-*/*.wandb"))


def test_systems_are_compared(trained: Path, place: Path) -> None:
    """An adapter in the place of the other is worse, and that is no chance."""
    polylect(f"evaluate run={trained} adapter=en-de name=wrong compare={trained}")
    wrong = only(place / "runs" / "wrong")
    assert chrf(wrong)["en-de"] == pytest.approx(chrf(trained)["en-de"])
    assert chrf(wrong)["en-fr"] < chrf(trained)["en-fr"]
    polylect(f"compare {trained} {wrong} out=table.md")
    table = (place / "table.md").read_text(encoding="utf-8")
    assert all(direction in table for direction in DIRECTIONS)


def test_text_is_translated_with_a_run_and_with_a_library(trained: Path, place: Path) -> None:
    lines = ["The farmer sees two dogs.", "My friend sleeps near our house."]
    (place / "in.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = "direction=en-de input=in.txt"
    polylect(f"translate run={trained} {files} output=run.txt")
    library = f"model=tongues library={trained}/adapters template=tag"
    polylect(f"translate {library} {files} output=library.txt")
    text = (place / "run.txt").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 2 and all(text.splitlines())
    assert (place / "library.txt").read_text(encoding="utf-8") == text


def test_a_library_is_listed_checked_and_compared(
    trained: Path, place: Path, capsys: Printed
) -> None:
    for action in ("list", "check model=tongues", "compare out=compared.json"):
        polylect(f"library path={trained}/adapters action={action}")
        shown = capsys.readouterr().out
        assert all(direction in shown for direction in DIRECTIONS), shown
    assert {"update", "arrow", "subspace"} <= read(place / "compared.json").keys()


def test_lag_scores_a_folder_of_adapters(trained: Path, place: Path) -> None:
    polylect(
        f"evaluate model=tongues data=tongues {TWO} data.test.size=6 strategy=lag "
        f"library={trained}/adapters name=lag"
    )
    routing = read(only(place / "runs" / "lag") / "record.json")["metrics"]["routing"]
    assert routing["rows"] and routing["agreement"]


def test_data_are_reported_without_training(place: Path, capsys: Printed) -> None:
    polylect(f"data {TWO} {SETS} out=report.json")
    assert read(place / "report.json")
    shown = capsys.readouterr().out
    assert all(direction in shown for direction in DIRECTIONS)


def test_an_export_is_a_plain_model(trained: Path, place: Path) -> None:
    polylect(f"export run={trained} out=merged")
    prompt = torch.tensor([[5, 6, 7, 8]])
    logits = {}
    for direction in DIRECTIONS:
        model = AutoModelForCausalLM.from_pretrained(place / "merged" / direction)
        logits[direction] = model(prompt).logits
    assert not torch.allclose(*logits.values())
    first = {d: load_file(place / "merged" / d / "model.safetensors") for d in DIRECTIONS}
    assert all("lora" not in name for name in first["en-de"])


def test_a_sweep_over_a_group_trains_each_choice(place: Path) -> None:
    polylect(
        f"train -m strategy=lora,lora_switch name=grid model=tiny {TWO} {SETS} {SHORT} "
        f"trainer.max_steps=4 trainer.val_check_interval=4 {WITHOUT_SCORES}"
    )
    jobs = sorted(only(place / "runs" / "sweeps" / "grid").glob("*/record.json"))
    assert [read(path)["status"] for path in jobs] == ["done", "done"]
    adapters = [sorted(p.name for p in (job.parent / "adapters").iterdir()) for job in jobs]
    assert len(adapters[0]) == 1, "one for both"
    assert adapters[1] == list(DIRECTIONS)


def test_a_recipe_detects_and_trains_with_a_setting_of_one_stage(place: Path) -> None:
    few = f"trainer.max_steps=4,trainer.val_check_interval=4,{WITHOUT_SCORES.replace(' ', ',')}"
    polylect(
        f"recipe recipe=landermt \"common=['{TWO}',data.train.size=2000,data.val.size=10]\" "
        f"extra.joint=[{few}] extra.detect=[sentences=8] 'extra.train=[strategy.gate=none,{few}]'"
    )
    (recipe,) = (place / "runs" / "landermt").iterdir()
    (record,) = recipe.glob("*train*/record.json")
    assert read(record)["config"]["strategy"]["gate"] == "none"
    assert list(recipe.glob("*detect*/neurons.safetensors"))
    rows = sorted(path.stem for path in (record.parent / "rows").glob("*.safetensors"))
    assert rows == list(DIRECTIONS)
