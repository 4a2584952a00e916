"""Loggers: the real W&B client offline, TensorBoard, and the CSV files of every run."""

import base64
import csv
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import NO_STOP, OWN, stopping
from omegaconf import OmegaConf
from tensorboardX.proto.event_pb2 import Event
from wandb.proto import wandb_internal_pb2

import polylect
from polylect.cli import run
from polylect.config.roots import ConfigError
from polylect.run.monitor import loggers
from polylect.run.session import register_resolvers
from polylect.run.sweep.process import RUN_FOLDER

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


def wandb_entries(content: bytes) -> Iterator[bytes]:
    """The entries of the file: a header, then blocks of 32 KiB as in a log of LevelDB."""
    block, whole = 2**15, b""
    position = 7
    while position + 7 <= len(content):
        if block - position % block < 7:  # no room for another part
            position += block - position % block
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        if position + 7 + length > len(content):  # cut short, as the writer was killed
            return
        whole += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole in one part, or the last one
            yield whole
            whole = b""


def read_wandb(offline: Path) -> dict[str, Any]:
    """What the offline client has written: the run, its configuration, summary and history."""
    (path,) = offline.glob("*.wandb")
    written: dict[str, Any] = {"config": {}, "summary": {}, "history": [], "metrics": {}}
    written["artifacts"] = []
    for data in wandb_entries(path.read_bytes()):
        line = wandb_internal_pb2.Record.FromString(data)
        match line.WhichOneof("record_type"):
            case "run":
                written["run"] = line.run
                written["config"] |= items(line.run.config.update)
            case "config":
                written["config"] |= items(line.config.update)
            case "summary":
                written["summary"] |= items(line.summary.update)
            case "artifact":
                written["artifacts"].append(line.artifact)
            case "metric":
                written["metrics"][line.metric.glob_name or line.metric.name] = line.metric
            case "history":
                written["history"].append(items(line.history.item))
    return written


def items(entries: Any) -> dict[str, Any]:
    return {
        entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries
    }


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with two loggers, and the CSV file beside them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.mktemp("staged")))
        settings = ["logger=[wandb,tensorboard]", "logger.wandb.project=mine"]
        settings += ["callbacks=ledger", "strategy=lora"]
        return train(tmp_path_factory.mktemp("logged"), *settings, "evaluate_base=true")


def test_wandb_offline_gets_config_metrics_and_translations(logged: Path) -> None:
    (client,) = (logged / "wandb").glob("offline-run-*")
    (table,) = (client / "files" / "media" / "table").rglob("translations*.json")
    content = json.loads(table.read_text(encoding="utf-8"))
    assert content["columns"] == ["direction", "source", "translation", "reference"]
    assert len(content["data"]) == 8
    assert {row[0] for row in content["data"]} == {"en-de", "en-hi"}
    record = json.loads((logged / "record.json").read_text(encoding="utf-8"))
    written = read_wandb(client)
    assert written["run"].display_name == f"tongues/{logged.name}"
    assert written["run"].project == "mine"
    assert not written["run"].run_group and not written["run"].tags
    assert written["config"]["strategy"]["rank"] == 16
    message = [name for line in written["history"] for name in line]
    assert {"train/loss", "val/loss/en-de", "train/running/en-hi"} <= set(message)
    assert {"ledger/cosine/en-de/en-hi", "ledger/cancelled/en-de"} <= set(message)
    summary, test = written["summary"], record["metrics"]["test"]
    assert summary["test/chrf++/en-de"] == test["en-de"]["chrf++"]["value"]
    mean = (test["en-de"]["chrf++"]["value"] + test["en-hi"]["chrf++"]["value"]) / 2
    assert summary["test/chrf++/mean"] == pytest.approx(mean)
    assert "test/bleu/mean" not in summary, "two tokenizers do not make a mean"
    base = record["metrics"]["base"]
    assert summary["base/bleu/en-hi"] == base["en-hi"]["bleu"]["value"]
    assert summary["signature/bleu/en-hi"] == test["en-hi"]["bleu"]["signature"]
    for name in ("off_target", "empty"):
        rate = test["en-de"]["diagnosis"][name]
        if rate["of"]:
            assert summary[f"test/{name}/en-de"] == rate["count"] / rate["of"]
    assert "test/empty/mean" in summary


def test_wandb_knows_what_is_good_and_gets_matrices(logged: Path) -> None:
    (client,) = (logged / "wandb").glob("offline-run-*")
    metrics = read_wandb(client)["metrics"]
    assert metrics["val/loss*"].summary.min and not metrics["val/loss*"].summary.max
    assert metrics["val/chrf*"].summary.max and metrics["val/chrf*"].step_metric
    (file,) = (client / "files" / "media" / "table" / "matrices").glob("gradient_cosine*.json")
    table = json.loads(file.read_text(encoding="utf-8"))
    assert table["columns"] == ["direction", "en-de", "en-hi"]
    (first, one, cosine), (second, same, other) = table["data"]
    assert (first, second, one, other) == ("en-de", "en-hi", 1, 1)
    assert cosine == same and -1 <= cosine <= 1


def test_wandb_gets_the_source_and_adapters_with_their_passports(logged: Path) -> None:
    (client,) = (logged / "wandb").glob("offline-run-*")
    artifacts = [a for a in read_wandb(client)["artifacts"] if a.type != "run_table"]
    assert [artifact.type for artifact in artifacts] == ["code", "model"]
    source, adapter = artifacts
    paths = {entry.path: entry for entry in source.manifest.contents}
    assert {"polylect/cli.py", "conf/train.yaml"} <= paths.keys()
    assert not [path for path in paths if path.endswith((".safetensors", ".pyc"))]
    (folder,) = (logged / "adapters").iterdir()
    assert adapter.name.startswith(f"{folder.name}-")
    entries = {entry.path: entry for entry in adapter.manifest.contents}
    assert {"adapter_model.safetensors", "passport.json"} <= entries.keys()
    weights = folder / "adapter_model.safetensors"
    assert Path(entries[weights.name].local_path) == weights, "not a copy"
    digest = hashlib.md5(weights.read_bytes(), usedforsecurity=False).digest()
    assert entries[weights.name].digest == base64.b64encode(digest).decode()
    passport = json.loads((folder / "passport.json").read_text(encoding="utf-8"))
    shown = json.loads(adapter.metadata)
    assert (
        shown["scores"] == passport["scores"] and shown["base"] == passport["base"]["fingerprint"]
    )


def wandb_id(resumed: str | None = None) -> str:
    register_resolvers(Path("runs/x"), resumed=resumed)
    node = OmegaConf.create({"one": "${wandb_id:}", "two": "${wandb_id:}"})
    assert node.one == node.two
    return node.one


def test_a_resumed_run_keeps_its_id(logged: Path, tmp_path: Path) -> None:
    record = json.loads((logged / "record.json").read_text(encoding="utf-8"))
    own = record["config"]["logger"]["wandb"]["id"]
    (client,) = (logged / "wandb").glob("offline-run-*")
    assert read_wandb(client)["run"].run_id == own
    assert wandb_id(str(logged)) == wandb_id(str(logged / "checkpoints" / "last.ckpt")) == own
    new = [wandb_id(), wandb_id(), wandb_id(str(tmp_path))]
    record["config"]["logger"]["wandb"]["id"] = "../../elsewhere"
    (tmp_path / "record.json").write_text(json.dumps(record), encoding="utf-8")
    new.append(wandb_id(str(tmp_path)))
    assert len({own, *new}) == 5, "each is new"


@pytest.mark.slow
def test_a_run_that_is_killed_keeps_configuration_metrics_and_id(tmp_path: Path) -> None:
    """W&B writes its file every 15 seconds; here more often."""
    settings = [*TINY, f"runs={tmp_path}", "logger=wandb", "trainer.log_every_n_steps=1"]
    settings += ["evaluate=false", "trainer.val_check_interval=2", "trainer.max_steps=8"]
    kill = stopping(after=6, number=int(signal.SIGKILL), wait=2.0)
    folders = [str(Path(__file__).parents[1]), str(Path(polylect.__file__).parents[1])]
    made = subprocess.run(
        [sys.executable, "-m", "polylect.cli", "train", *settings, *kill],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(folders), "WANDB_SILENT": "true"}
        | {"WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": "0.5"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == -signal.SIGKILL, made.stderr
    (killed,) = (tmp_path / "tongues").iterdir()
    (client,) = (killed / "wandb").glob("offline-run-*")
    written = read_wandb(client)
    assert written["config"]["strategy"]["rank"] == 16
    steps = [line["trainer/global_step"] for line in written["history"] if "train/loss" in line]
    assert steps and max(steps) >= 3, "but perhaps the last ones"
    assert any("val/loss/en-de" in line for line in written["history"])
    assert run(["train", f"resume={killed}", f"runs={tmp_path}", "logger=wandb", OWN, NO_STOP]) == 0
    (resumed,) = set((tmp_path / "tongues").iterdir()) - {killed}
    (client,) = (resumed / "wandb").glob("offline-run-*")
    assert read_wandb(client)["run"].run_id == written["run"].run_id


@pytest.mark.slow
def test_an_evaluation_logs_too_and_jobs_of_a_sweep_are_a_group(tmp_path: Path) -> None:
    sweep = tmp_path / "sweeps" / "grid" / "noon"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(RUN_FOLDER, str(sweep / "000_seed=1"))
        settings = ["model=tiny", "model.vocabulary=600", "data=tongues", "data.test.size=2"]
        settings += ["data.directions=[en-de]", "generation.limit=5", "logger=[csv,wandb]"]
        assert run(["evaluate", *settings]) == 0
    folder = sweep / "000_seed=1"
    assert (folder / "metrics.csv").is_file()
    (client,) = (folder / "wandb").glob("offline-run-*")
    written = read_wandb(client)
    assert written["run"].display_name == "grid/noon/000_seed=1"
    assert written["run"].run_group == "grid/noon"
    assert list(written["run"].tags) == ["sweep"]
    assert "test/chrf++/en-de" in written["summary"]


def test_tensorboard_gets_the_metrics(logged: Path) -> None:
    # One file: a second one of the same second would take the place of the first.
    (path,) = (logged / "tensorboard").rglob("events.*")
    names, content = set(), path.read_bytes()
    while content:  # length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        names |= {value.tag for value in event.summary.value}
        content = content[16 + length :]
    assert {"train/loss", "val/loss/en-de", "test/chrf__/mean"} <= names, "TensorBoard knows no +"


def test_a_logger_without_its_package_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    assert run(["train", *TINY, f"runs={tmp_path}", "logger=tensorboard"]) == 2
    expected = "logger=tensorboard needs a package: pip install 'polylect[tensorboard]'."
    assert expected in capsys.readouterr().err


def test_a_logger_by_itself_and_none_and_what_is_none(tmp_path: Path) -> None:
    own = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path)}
    assert len(loggers.build_loggers(own, tmp_path)) == 1, "as runs once stored it"
    assert loggers.build_loggers({}, tmp_path) == []
    assert loggers.build_loggers({"csv": None}, tmp_path) == []
    with pytest.raises(
        ConfigError, match=r"logger\.project is no logger: settings .* logger\.wandb"
    ):
        loggers.build_loggers({"csv": own, "project": "mine"}, tmp_path)


def test_metrics_csv_stands_beside_any_logger_and_follows_the_grammar(logged: Path) -> None:
    with (logged / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {name for row in rows for name, value in row.items() if value}
    for name in ("train/loss", "train/lr", "val/loss", "val/loss/en-de", "test/bleu/en-hi"):
        assert name in columns
    assert {"data/share/en-de", "data/padding"} <= columns
    drawn = json.loads((logged / "record.json").read_text(encoding="utf-8"))["data"]["drawn"]
    assert sum(drawn["examples"].values()) > 0
