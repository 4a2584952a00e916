"""Loggers: the real W&B client offline, and the CSV files of every run."""

import csv
import json
from pathlib import Path

import pytest

from polylect.cli import run

TINY = [
    "model=tiny",
    "model.vocabulary=600",
    "trainer=smoke",
    "data.train.size=200",
    "data.val.size=4",
    "data.test.size=4",
    "data.directions=[en-de,en-hi]",
    "generation.limit=5",
    "evaluate_base=false",
]


def train(tmp_path: Path, *settings: str) -> Path:
    assert run(["train", *TINY, f"runs={tmp_path}", *settings]) == 0
    return next((tmp_path / "tongues").iterdir())


def test_wandb_offline_gets_config_metrics_and_translations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = train(tmp_path, "logger=wandb")
    (offline,) = (folder / "wandb").glob("offline-run-*")
    assert list(offline.glob("*.wandb"))
    (table,) = (offline / "files" / "media" / "table").rglob("translations*.json")
    content = json.loads(table.read_text(encoding="utf-8"))
    assert content["columns"] == ["direction", "source", "translation", "reference"]
    assert len(content["data"]) == 8
    assert {row[0] for row in content["data"]} == {"en-de", "en-hi"}
    assert (folder / "record.json").is_file()


def test_metrics_follow_the_grammar(tmp_path: Path) -> None:
    folder = train(tmp_path)
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {name for row in rows for name, value in row.items() if value}
    for name in ("train/loss", "train/lr", "val/loss", "val/loss/en-de", "test/bleu/en-hi"):
        assert name in columns
    assert {"data/share/en-de", "data/padding"} <= columns
    drawn = json.loads((folder / "record.json").read_text(encoding="utf-8"))["data"]["drawn"]
    assert sum(drawn["examples"].values()) > 0
