"""Whole training runs on a tiny model."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from safetensors.torch import load_file
from tiny import attempt, checkpoint, folders, logged, record, same, train

from polylect.strategies.base import TranslationModule

# Dropout makes the random state matter; validation falls between two optimizer steps.
LONG = [
    "strategy.dropout=0.3",
    "trainer.max_steps=4",
    "trainer.accumulate_grad_batches=2",
    "trainer.val_check_interval=3",
]
STOPS = [
    ("on_train_batch_end", 1, signal.SIGTERM),  # a micro-batch has been accumulated
    ("on_train_batch_end", 2, signal.SIGINT),
    ("on_train_batch_end", 3, signal.SIGTERM),  # a validation follows
    ("on_validation_batch_end", 1, signal.SIGTERM),
    ("on_validation_end", 1, signal.SIGTERM),
]


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("whole"), *LONG)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Resuming


@pytest.mark.parametrize(("hook", "after", "number"), STOPS)
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    uninterrupted: Path, tmp_path: Path, hook: str, after: int, number: int
) -> None:
    stop = {"_target_": "tiny.Stop", "hook": hook, "after": after, "number": int(number)}
    with pytest.raises(SystemExit) as caught:
        attempt(tmp_path, *LONG, *(f"+callbacks.stop.{k}={v}" for k, v in stop.items()))
    assert caught.value.code == 143
    (first,) = folders(tmp_path)
    assert record(first)["status"] == "interrupted"
    assert record(first)["data"]["drawn"]["batches"] >= 1
    before = contents(first)

    second = train(tmp_path, *LONG, f"resume={first}")
    assert contents(first) == before
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert same(checkpoint(second)[part], checkpoint(uninterrupted)[part])
    for name in ("train/loss", "train/lr", "val/loss"):
        assert logged(first, name) | logged(second, name) == logged(uninterrupted, name)
    best = checkpoint(second, "best")["state_dict"]
    assert same(best, checkpoint(uninterrupted, "best")["state_dict"])


def test_dropout_acts_in_training(uninterrupted: Path, tmp_path: Path) -> None:
    without = train(tmp_path, *LONG, "strategy.dropout=0")
    assert logged(without, "train/loss") != logged(uninterrupted, "train/loss")


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    first = train(tmp_path, "trainer.max_steps=2")
    second = train(tmp_path, f"resume={first}", "trainer.max_steps=5")
    assert list(logged(second, "train/loss")) == [2, 3, 4]
    assert checkpoint(second)["global_step"] == 5
    assert record(second)["metrics"]["steps"] == 5
    drawn = "data/batches"
    assert (max(logged(first, drawn).values()), max(logged(second, drawn).values())) == (2, 5)


def test_resuming_with_other_data_is_refused(tmp_path: Path) -> None:
    first = train(tmp_path, "trainer.max_steps=2")
    with pytest.raises(ValueError, match=r"data\.tokens_per_batch changed since"):
        attempt(tmp_path, f"resume={first}", "data.tokens_per_batch=600")


def test_init_from_takes_the_weights_alone(tmp_path: Path) -> None:
    first = train(tmp_path)
    second = train(tmp_path, f"init_from={first}", "trainer.max_steps=1", "optim.optimizer.lr=0")
    assert same(checkpoint(second)["state_dict"], checkpoint(first, "best")["state_dict"])
    states = checkpoint(second)["optimizer_states"][0]["state"]
    assert {int(state["step"]) for state in states.values()} == {1}
    assert list(logged(second, "train/loss")) == [0]


@pytest.mark.parametrize("key", ["resume", "init_from"])
def test_a_checkpoint_of_something_else_is_refused(
    key: str, tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="does not fit LoRASwitch: it lacks"):
        attempt(tmp_path, f"{key}={tiny_run}", "strategy=lora")
    with pytest.raises(ValueError, match="belongs to another base model"):
        attempt(tmp_path, f"{key}={tiny_run}", "+model.seed=1")
    with pytest.raises(FileNotFoundError, match="nowhere is neither a checkpoint nor a run"):
        attempt(tmp_path, f"{key}={tmp_path / 'nowhere'}")
    assert {record(folder)["status"] for folder in folders(tmp_path)} == {"failed"}


# Which checkpoint is the best


def test_the_best_by_loss_is_kept_and_training_stops_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 2.0, 2.5, 2.2, 1.0])

    def validation_step(module: TranslationModule, *_: object) -> None:
        module._val = module._val or {"en-de": [next(losses), 1]}

    monkeypatch.setattr(TranslationModule, "validation_step", validation_step)
    folder = train(
        tmp_path,
        "trainer.val_check_interval=1",
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=2",
    )
    assert logged(folder, "val/loss") == {0: 3.0, 1: 2.0, 2: 2.5, 3: pytest.approx(2.2)}
    assert checkpoint(folder, "best")["global_step"] == 2
    assert checkpoint(folder)["global_step"] == 4
    assert record(folder)["status"] == "done"
    exported = load_file(folder / "adapters" / "en-de" / "adapter_model.safetensors")
    weights = checkpoint(folder, "best")["state_dict"]
    assert exported
    for name, tensor in exported.items():
        path = name.removeprefix("base_model.model.").removesuffix(".weight")
        path = path.replace("lora_A", "lora_a").replace("lora_B", "lora_b")
        assert torch.equal(tensor, weights[f"backbone.{path}.en-de"])


def test_the_best_by_chrf_is_kept_and_counts_when_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([10.0, 20.0, 50.0, 40.0, 30.0, 20.0, 41.0, 41.0])

    def score(*_: object) -> object:
        return type("Score", (), {"score": next(scores)})

    monkeypatch.setattr("sacrebleu.metrics.CHRF.corpus_score", score)
    by_chrf = ["callbacks.checkpoint.monitor=val/chrf", "callbacks.checkpoint.mode=max"]
    by_chrf += ["+strategy.validate_translations=2"]
    first = train(tmp_path, *by_chrf)
    assert logged(first, "val/chrf") == {1: 15.0, 3: 45.0, 5: 25.0}
    assert logged(first, "val/chrf/en-fr") == {1: 20.0, 3: 40.0, 5: 20.0}
    assert checkpoint(first, "best")["global_step"] == 4
    second = train(tmp_path, *by_chrf, f"resume={first}", "trainer.max_steps=8")
    assert logged(second, "val/chrf") == {7: 41.0}
    assert checkpoint(second, "best")["global_step"] == 4


# What a run leaves behind


def test_a_run_is_recorded(tiny_run: Path) -> None:
    found = record(tiny_run)
    assert found["status"] == "done"
    assert found["config"]["strategy"]["rank"] == 16
    assert found["command"]
    assert found["seconds"] > 0
    assert found["environment"]["packages"]["torch"]
    assert found["data"]["read"]["train"]["en-de"]["kept"] == 60
    assert found["data"]["drawn"]["batches"] == 6
    assert found["metrics"]["steps"] == 6
    assert found["metrics"]["train"]["val/loss"] > 0
    for part in ("base", "test"):
        assert found["metrics"][part]["en-de"]["bleu"]["signature"].startswith("nrefs:1")
    scores = json.loads((tiny_run / "scores.json").read_text(encoding="utf-8"))
    assert scores == found["metrics"]["test"]
    assert len((tiny_run / "outputs" / "en-fr.txt").read_text().splitlines()) == 5
    assert (tiny_run / "config.yaml").is_file()


def test_a_failed_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        attempt(tmp_path, "+callbacks.fail._target_=tiny.Fail")
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "failed"
    assert record(folder)["metrics"] == {}
    assert not (folder / "scores.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_stopped_while_it_loads_says_so(tmp_path: Path, number: int) -> None:
    stop = {"_target_": "tiny.Stop", "hook": "setup", "number": int(number)}
    with pytest.raises(SystemExit) as caught:
        attempt(tmp_path, *(f"+callbacks.stop.{k}={v}" for k, v in stop.items()))
    assert caught.value.code == 143
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "interrupted"
    assert not (folder / "checkpoints").exists()


def test_a_run_stopped_while_it_scores_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("polylect.evaluate.evaluate", stopped)
    with pytest.raises(SystemExit) as caught:
        attempt(tmp_path, "evaluate_base=true")
    assert caught.value.code == 143
    assert record(*folders(tmp_path))["status"] == "interrupted"


def test_a_dry_run_shows_examples_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt(tmp_path, "dry_run=true")
    shown = capsys.readouterr().out
    for direction in ("en-de", "en-fr"):
        example = shown.split(f"\n{direction}\n")[1].splitlines()
        assert f"<2{direction[3:]}>" in example[0]
        assert example[0].endswith("[</s>]")
        assert "learned" in example[3]
    assert "parameters  " in shown
    assert "memory      about" in shown
    assert "steps       6" in shown
    assert not list(tmp_path.iterdir())


# Settings that go together, and those that do not


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["strategy=frozen"], "does not train: score it with `polylect evaluate"),
        (["callbacks.checkpoint.monitor=val/chrf"], "set strategy.validate_translations"),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/chrf/en-de"],
            "callbacks.early_stopping.monitor=val/chrf/en-de needs translations",
        ),
        (["callbacks.checkpoint.monitor=val/los"], "did you mean val/loss"),
        (["trainer.max_steps=-1"], "trainer.max_steps must be positive, got -1"),
        (["trainer.accumulate_grad_batches=0"], "must be positive, got 0"),
        (["trainer.val_check_interval=0.0"], "must be positive, got 0.0"),
        (["seed=-1"], "seed must be from 0"),
        (["metrics=[]"], "metrics is empty"),
        (["optim.optimizer.lr=-1"], "optim.optimizer: Invalid learning rate"),
        (["runs=/dev/null"], "runs=/dev/null cannot be written to"),
        (["resume=a", "init_from=b"], "resume or init_from, not both"),
        (["data.max_length=600"], "is above data.tokens_per_batch"),
        (["strategy.adapters={both: [en-de]}"], "leaves en-fr without an adapter"),
        (["generation.beams=0"], "generation.beams must be at least 1"),
        (["metrics=[bleu,comet]"], "comet does not exist"),
        (["optim.schedule.shape=cosin"], "did you mean cosine"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(
    overrides: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, InstantiationException)) as caught:
        attempt(tmp_path, *overrides)
    wrapped = isinstance(caught.value, InstantiationException)
    message = str(caught.value.__cause__ if wrapped else caught.value)
    assert sentence in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "check"),
    [
        (["trainer.val_check_interval=200"], lambda f: len(logged(f, "val/loss")) == 1),
        (["data.val=null"], lambda f: record(f)["metrics"]["objective"] is None),
        (["data.test=null", "evaluate=true", "evaluate_base=true"], lambda f: True),
        (["callbacks.checkpoint=null"], lambda f: not (f / "checkpoints/best.ckpt").exists()),
        (["logger=none"], lambda f: not (f / "metrics.csv").exists()),
        (["+trainer.limit_val_batches=0"], lambda f: not logged(f, "val/loss")),
        (["+data.mixing=by_direction"], lambda f: record(f)["metrics"]["objective"] < 0),
        (["strategy=full", "optim=full"], lambda f: not (f / "adapters").exists()),
    ],
)
def test_what_goes_together_runs(
    overrides: list[str], check: Callable[[Path], bool], tmp_path: Path
) -> None:
    folder = train(tmp_path, "trainer.max_steps=2", *overrides)
    assert record(folder)["status"] == "done"
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    assert check(folder)
