"""Whole training runs on a tiny model."""

import itertools
import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
import torch
import yaml
from helpers.tiny import (
    DATA,
    OWN,
    TRAIN,
    attempt,
    checkpoint,
    config,
    folders,
    logged_values,
    record,
    same,
    stopping,
    train,
)
from hydra.errors import InstantiationException
from safetensors.torch import load_file

from polylect.cli import run
from polylect.files import write_text
from polylect.models.backbone import tiny_backbone
from polylect.programs.train import main
from polylect.run.build import build_data, build_strategy
from polylect.strategies.base import TranslationModule
from polylect.strategies.loop import training
from polylect.strategies.loss import target_losses

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
    stop = stopping(hook=hook, after=after, number=int(number))
    with pytest.raises(SystemExit) as error:
        attempt(tmp_path, *LONG, *stop)
    assert error.value.code == 143
    (first,) = folders(tmp_path)
    assert record(first)["status"] == "interrupted"
    assert record(first)["data"]["drawn"]["batches"] >= 1
    before = contents(first)

    second = train(tmp_path, *LONG, f"resume={first}")
    assert contents(first) == before
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert same(checkpoint(second)[part], checkpoint(uninterrupted)[part])
    for name in ("train/loss", "train/lr", "val/loss"):
        assert logged_values(first, name) | logged_values(second, name) == logged_values(
            uninterrupted, name
        )
    best = checkpoint(second, "best")["state_dict"]
    assert same(best, checkpoint(uninterrupted, "best")["state_dict"])


def test_dropout_acts_in_training(uninterrupted: Path, tmp_path: Path) -> None:
    without = train(tmp_path, *LONG, "strategy.dropout=0")
    assert logged_values(without, "train/loss") != logged_values(uninterrupted, "train/loss")


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    first = train(tmp_path, "trainer.max_steps=2")
    second = train(tmp_path, f"resume={first}", "trainer.max_steps=5")
    assert list(logged_values(second, "train/loss")) == [2, 3, 4]
    assert checkpoint(second)["global_step"] == 5
    assert record(second)["metrics"]["steps"] == 5
    drawn = "data/batches"
    assert (
        max(logged_values(first, drawn).values()),
        max(logged_values(second, drawn).values()),
    ) == (2, 5)


def test_resuming_with_other_data_is_refused(tmp_path: Path) -> None:
    first = train(tmp_path, "trainer.max_steps=2")
    with pytest.raises(ValueError, match=r"data\.tokens_per_batch was 512 and is 600"):
        attempt(tmp_path, f"resume={first}", "data.tokens_per_batch=600")
    with pytest.raises(ValueError, match=r"data\.data changed since"):  # what the files hold
        attempt(tmp_path, f"resume={first}", "data.train.size=50")
    assert record(*folders(tmp_path) - {first})["status"] == "failed"


def test_init_from_takes_the_weights_alone(tmp_path: Path) -> None:
    first = train(tmp_path)
    second = train(tmp_path, f"init_from={first}", "trainer.max_steps=1", "optim.optimizer.lr=0")
    assert same(checkpoint(second)["state_dict"], checkpoint(first, "best")["state_dict"])
    states = checkpoint(second)["optimizer_states"][0]["state"]
    assert {int(state["step"]) for state in states.values()} == {1}
    assert list(logged_values(second, "train/loss")) == [0]


@pytest.mark.parametrize(
    ("key", "shared", "seeded"),
    [
        ("resume", "adapters was per_direction and is shared", "model.seed was 0 and is 1"),
        ("init_from", "does not fit LoRASwitch: it lacks", "belongs to another base model"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(
    key: str, shared: str, seeded: str, tiny_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=shared):
        attempt(tmp_path, f"{key}={tiny_run}", "strategy=lora")
    with pytest.raises(ValueError, match=seeded):
        attempt(tmp_path, f"{key}={tiny_run}", "+model.seed=1")
    with pytest.raises(FileNotFoundError, match="nowhere is neither a checkpoint nor a run"):
        attempt(tmp_path, f"{key}={tmp_path / 'nowhere'}")
    assert not folders(tmp_path)


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
    assert logged_values(folder, "val/loss") == {0: 3.0, 1: 2.0, 2: 2.5, 3: pytest.approx(2.2)}
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
    by_chrf += ["+strategy.validate_translations=2", "objective=val/chrf"]
    first = train(tmp_path, *by_chrf)
    assert logged_values(first, "val/chrf") == {1: 15.0, 3: 45.0, 5: 25.0}
    assert logged_values(first, "val/chrf/en-fr") == {1: 20.0, 3: 40.0, 5: 20.0}
    assert checkpoint(first, "best")["global_step"] == 4
    second = train(tmp_path, *by_chrf, f"resume={first}", "trainer.max_steps=8")
    assert logged_values(second, "val/chrf") == {7: 41.0}
    assert checkpoint(second, "best")["global_step"] == 4
    assert [record(run)["metrics"]["objective"] for run in (first, second)] == [45.0, 45.0]


# What a run leaves behind


def test_a_run_is_recorded(tiny_run: Path) -> None:
    run_record = record(tiny_run)
    assert run_record["status"] == "done"
    assert run_record["config"]["strategy"]["rank"] == 16
    assert run_record["command"]
    assert run_record["seconds"] > 0
    assert run_record["environment"]["packages"]["torch"]
    assert run_record["data"]["read"]["train"]["en-de"]["kept"] == 60
    assert run_record["data"]["drawn"]["batches"] == 6
    assert run_record["metrics"]["steps"] == 6
    assert 0 < run_record["metrics"]["seconds_per_step"] < run_record["seconds"]
    assert run_record["metrics"]["train"]["val/loss"] > 0
    for part in ("base", "test"):
        assert run_record["metrics"][part]["en-de"]["bleu"]["signature"].startswith("nrefs:1")
    scores = json.loads((tiny_run / "scores.json").read_text(encoding="utf-8"))
    assert scores == run_record["metrics"]["test"]
    assert len((tiny_run / "outputs" / "en-fr.txt").read_text().splitlines()) == 5
    assert (tiny_run / "config.yaml").is_file()


def test_a_failed_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        attempt(tmp_path, OWN, "+callbacks.fail._target_=helpers.tiny.Fail")
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "failed"
    assert record(folder)["metrics"] == {}
    assert not (folder / "scores.json").exists()


@pytest.mark.parametrize("good", [0, 1])
def test_a_full_disk_leaves_the_checkpoint_before_whole(
    good: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save, calls = torch.save, itertools.count()

    def full(value: object, file: IO[bytes]) -> None:
        if "last.ckpt" not in file.name or next(calls) < good:
            save(value, file)
            return
        file.write(b"part")
        with Path("/dev/full").open("wb", buffering=0) as disk:
            save(value, disk)

    monkeypatch.setattr(torch, "save", full)
    assert run(["train", *TRAIN, f"runs={tmp_path}"]) == 2
    (folder,) = folders(tmp_path)
    last = folder / "checkpoints" / "last.ckpt"
    way = f"go on with resume={last}" if good else "give the same command again"
    (stderr,) = capsys.readouterr().err.strip().splitlines()
    assert (
        stderr
        == f"polylect: {last} cannot be written (No space left on device): make room, "
        + (f"then {way}.")
    )
    assert record(folder)["status"] == "failed"
    assert {p.name for p in last.parent.iterdir()} == {"best.ckpt", *(["last.ckpt"] * good)}
    if good:
        assert checkpoint(folder)["global_step"] == 2 < checkpoint(folder, "best")["global_step"]


# Numbers that are not finite


def finite(value: object) -> bool:
    """Whether every tensor in what a checkpoint holds is finite."""
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return all(map(finite, value)) if isinstance(value, list | tuple) else True


def spoil_losses(patch: pytest.MonkeyPatch, after: int) -> None:
    """After so many batches of training those of en-fr are NaN."""
    calls = itertools.count()

    def losses(backbone: object, batch: object) -> object:
        target_loss, rows = target_losses(backbone, batch)
        fr = torch.tensor([d == "en-fr" for d in batch.directions])
        bad = torch.is_grad_enabled() and next(calls) >= after
        return torch.where(fr[rows] & bad, torch.nan, target_loss), rows

    patch.setattr(training, "target_losses", losses)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil_losses(monkeypatch, after=3)
    assert run(["train", *TRAIN, f"runs={tmp_path}"]) != 0
    (folder,) = folders(tmp_path)
    stderr = capsys.readouterr().err.strip().splitlines()[-1]
    last = folder / "checkpoints" / "last.ckpt"
    assert re.fullmatch(
        r"polylect: the loss is not finite \(step 4, direction en-fr, learning rate [0-9.e-]+\), "
        rf"so the training has ended: begin from the last good checkpoint, init_from={last}, with "
        r"a lower optim.optimizer.lr.",
        stderr,
    )
    assert record(folder)["status"] == "diverged"
    assert checkpoint(folder)["global_step"] == 2
    assert finite(checkpoint(folder)) and finite(checkpoint(folder, "best"))
    assert not (folder / "adapters").exists()
    assert max(logged_values(folder, "train/loss")) == 2


def test_from_that_checkpoint_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        spoil_losses(patch, after=3)
        with pytest.raises(RuntimeError) as error:
            attempt(tmp_path)
    way = re.search(r"init_from=\S+(?=,)", str(error.value))[0]
    second = train(tmp_path / "second", way, "optim.optimizer.lr=1e-4")
    assert record(second)["status"] == "done"


EVERY = ("accumulate_grad_batches", "val_check_interval")


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_gradient_that_is_not_finite_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    batches = itertools.count(1)

    def spoil(module: TranslationModule) -> None:
        if next(batches) == 4:
            parameter = module.get_parameter(
                "backbone.model.layers.1.self_attn.q_proj.lora_b.en-de"
            )
            parameter.grad[1, 2] = float("nan")

    monkeypatch.setattr(TranslationModule, "on_after_backward", spoil)
    settings = [f"trainer.{key}={accumulate}" for key in EVERY]
    sentence = rf"gradient is not finite \(step {5 - accumulate}, direction en-de,"
    with pytest.raises(RuntimeError, match=sentence):
        attempt(tmp_path, *settings)
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "diverged"
    assert not (folder / "adapters").exists()


def test_a_validation_loss_that_is_not_finite_is_no_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, float("nan")])

    def validation_step(module: TranslationModule, *_: object) -> None:
        module._val = module._val or {"en-de": [next(losses), 1], "en-fr": [1.0, 1]}

    monkeypatch.setattr(TranslationModule, "validation_step", validation_step)
    with pytest.raises(
        RuntimeError, match=r"validation loss is not finite \(step 4, direction en-de,.*last\.ckpt"
    ):
        attempt(tmp_path)
    (folder,) = folders(tmp_path)
    assert [checkpoint(folder, name)["global_step"] for name in ("best", "last")] == [2, 2]
    assert record(folder)["status"] == "diverged"


LARGE = ["optim.optimizer._target_=torch.optim.SGD", "~optim.optimizer.betas"]
LARGE += ["optim.optimizer.lr=3e38", "optim.optimizer.weight_decay=100", "trainer.max_steps=1"]
NO_VALIDATION = ["+trainer.limit_val_batches=0"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([], "validation loss is not finite"),
        (
            ["+trainer.limit_val_batches=0"],
            r"what was learned \(backbone.* has NaN.*\) is not finite",
        ),
    ],
    ids=["validated", "not validated"],
)
def test_weights_that_the_last_step_made_infinite_are_not_kept(
    tmp_path: Path, settings: list[str], words: str
) -> None:
    with pytest.raises(RuntimeError, match=words + ".* begin again with a lower"):
        attempt(tmp_path, *LARGE, *settings)
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "diverged"
    assert not list(folder.glob("checkpoints/*.ckpt")) and not (folder / "adapters").exists()


@pytest.mark.parametrize("key", ["resume", "init_from"])
def test_a_run_does_not_go_on_from_what_is_not_finite(
    tmp_path: Path, tiny_run: Path, key: str
) -> None:
    """Runs of before left such checkpoints behind, with the status done."""
    folder = tmp_path / "old" / "run"
    shutil.copytree(tiny_run, folder)
    for name in ("best", "last"):
        path = folder / "checkpoints" / f"{name}.ckpt"
        state = torch.load(path, weights_only=True)
        next(iter(state["state_dict"].values())).fill_(float("nan"))
        torch.save(state, path)
    words = rf"{folder}/.*that has diverged, backbone.* take an earlier"
    with pytest.raises(ValueError, match=words):
        attempt(tmp_path, f"{key}={folder}", "trainer.max_steps=8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_stopped_while_it_loads_says_so(tmp_path: Path, number: int) -> None:
    with pytest.raises(SystemExit) as error:
        attempt(tmp_path, *stopping(hook="setup", number=int(number)))
    assert error.value.code == 143
    (folder,) = folders(tmp_path)
    assert record(folder)["status"] == "interrupted"
    assert not (folder / "checkpoints").exists()


def test_a_run_stopped_while_it_scores_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("polylect.run.results.scoring.score_module", stopped)
    with pytest.raises(SystemExit) as error:
        attempt(tmp_path, "evaluate_base=true")
    assert error.value.code == 143
    assert record(*folders(tmp_path))["status"] == "interrupted"


def test_a_test_line_longer_than_the_model_takes_is_counted_and_costs_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["A cat sleeps.", "house " * 200, "We read."]
    for language in ("en", "de", "fr"):
        write_text(tmp_path / f"test.{language}", "".join(f"{line}\n" for line in lines))
    test = f"+data.test={{kind: aligned, path: '{tmp_path}/test.{{lang}}'}}"
    settings = ["+model.context=128", "~data.test", test, "trainer.max_steps=2"]
    folder = train(tmp_path / "runs", *settings, "evaluate=true")
    shown = capsys.readouterr().out
    assert "warning: test en-de: 1 of 3 pairs of" in shown
    assert "too long for the 128 tokens that the model takes, the first of them pair 2;" in shown
    assert record(folder)["status"] == "done"
    for direction in ("en-de", "en-fr"):
        run_record = record(folder)["metrics"]["test"][direction]["diagnosis"]
        assert run_record["too_long"] == {"count": 1, "of": 3, "rate": 1 / 3, "lines": [2]}
        written = (folder / "outputs" / f"{direction}.txt").read_text(encoding="utf-8")
        assert written.count("\n") == 3 and written.split("\n")[1] == ""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["+model.context=100"], "data.max_length=128 is more than the 100 tokens"),
        (["~data.test", "+data.test={kind: tsv, path: lacks.tsv}"], "lacks.tsv does not exist"),
    ],
)
def test_what_would_fail_after_the_training_fails_before_it(
    settings: list[str], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        attempt(tmp_path, *settings, "evaluate=true", "trainer.max_steps=100000")
    assert not folders(tmp_path)


def test_the_date_that_chat_templates_print_is_stored_with_the_run() -> None:
    cfg = config("train", *TRAIN, "data.template=chat")
    build_data(cfg)
    module = build_strategy(cfg)
    assert cfg.data.template == module.template_name == "chat@2024-07-26"
    assert module.about["config"]["data"]["template"] == "chat@2024-07-26"
    other = config("train", *TRAIN, "data.template=chat@2031-03-05")
    build_data(other)
    assert build_strategy(other).template_name == "chat@2031-03-05"


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


@pytest.mark.parametrize(
    "strategy",
    [
        "lora_switch",
        pytest.param("full", marks=pytest.mark.slow),
        pytest.param("mix_moe", marks=pytest.mark.slow),
    ],
)
def test_a_dry_run_needs_no_weights(
    strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in tiny_backbone(hidden=32):
        part.save_pretrained(tmp_path / "base")
    own = [*DATA, "model=local", f"model.path={tmp_path / 'base'}", f"strategy={strategy}"]
    own += ["dry_run=true", "trainer.max_steps=7"]
    main(config("train", *own))
    with_weights = capsys.readouterr().out
    for file in (tmp_path / "base").glob("*.safetensors"):
        file.unlink()
    main(config("train", *own, "+trainer.max_epochs=0"))
    stdout = capsys.readouterr().out.splitlines()
    assert "no weights here" in stdout.pop(next(i for i, t in enumerate(stdout) if t[:4] == "base"))
    expected = with_weights.splitlines()
    steps = next(i for i, line in enumerate(stdout) if line.startswith("steps"))
    assert stdout[steps].startswith("steps       0, at most 0 tokens")
    measured = {steps, *(i for i, t in enumerate(stdout) if t.startswith(("memory", "  process")))}
    assert [t for i, t in enumerate(stdout) if i not in measured] == [
        t for i, t in enumerate(expected) if i not in measured
    ]


LONG_FIRST = [("house " * 99, "Haus " * 99)] * 9 + [("", "leer"), ("Cat 1.", "A 1.")] * 5


def _own_files(folder: Path) -> list[str]:
    """Settings of a run whose first nine training pairs of 19 are too long, and five empty."""
    write_text(folder / "a.tsv", "".join(f"{one}\t{other}\n" for one, other in LONG_FIRST))
    train = f"+data.train={{kind: tsv, path: {folder}/a.tsv, check_sides: false}}"
    return ["data.directions=[en-de]", "~data.train", train, "data.max_length=128"]


def test_a_dry_run_shows_no_example_that_training_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attempt(tmp_path / "runs", *_own_files(tmp_path), "dry_run=true")
    shown = capsys.readouterr().out
    examples = shown.split("\nen-de\n")[1].split("parameters")[0]
    assert examples.count("learned") == 2 and len(examples) < 1000
    (counts,) = [line.split() for line in shown.splitlines() if line.startswith("train en-de")]
    assert counts == ["train", "en-de", "19", "5", "9", "5", "5"]
    assert "warning: train en-de: 9 of 19 pairs of" in shown
    with pytest.raises(ValueError, match=r"data\.max_length=2 "):
        attempt(tmp_path / "runs", *_own_files(tmp_path), "dry_run=true", "data.max_length=2")


def test_a_run_says_and_records_what_becomes_of_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(tmp_path / "runs", *_own_files(tmp_path))
    assert "data.filters.empty=true" in capsys.readouterr().out
    (read,) = record(folder)["data"]["read"]["train"].values()
    assert read["dropped"] == {"empty": 5}
    wanted = {"read": 19, "kept": 14, "too_long": 9, "left": 5, "per_epoch": 5}
    for counts in (read, *read["corpora"]):
        assert {key: counts[key] for key in wanted} == wanted
    drawn = record(folder)["data"]["drawn"]
    assert drawn["too_long"]["en-de"] / drawn["examples"]["en-de"] == pytest.approx(9 / 5, rel=0.2)


# Settings that go together, and those that do not


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["strategy=frozen"], "does not train: score it with `polylect evaluate"),
        (["callbacks.checkpoint.monitor=val/chrf"], "set strategy.validate_translations"),
        (["objective=val/chrf"], "chosen by val/loss: set callbacks.checkpoint.monitor=val/chrf"),
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
        (["optim.optimizer.lr=-1"], "Invalid learning rate: -1"),
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
    with pytest.raises((ValueError, InstantiationException)) as error:
        attempt(tmp_path, *overrides)
    wrapped = isinstance(error.value, InstantiationException)
    message = str(error.value.__cause__ if wrapped else error.value)
    assert sentence in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "check"),
    [
        (["trainer.val_check_interval=200"], lambda f: len(logged_values(f, "val/loss")) == 1),
        (["trainer.log_every_n_steps=50"], lambda f: len(logged_values(f, "train/loss")) == 2),
        (["data.val=null"], lambda f: record(f)["metrics"]["objective"] is None),
        (["data.test=null", "evaluate=true", "evaluate_base=true"], lambda f: True),
        (["callbacks.checkpoint=null"], lambda f: not (f / "checkpoints/best.ckpt").exists()),
        (["logger=none"], lambda f: not (f / "metrics.csv").exists()),
        (["+trainer.limit_val_batches=0"], lambda f: not logged_values(f, "val/loss")),
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


# The same run again


def test_a_run_is_made_again_from_its_configuration(
    uninterrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(["train", "--config", str(uninterrupted), f"runs={tmp_path}"]) == 0
    (again,) = folders(tmp_path)
    assert same(checkpoint(again)["state_dict"], checkpoint(uninterrupted)["state_dict"])
    for name in ("train/loss", "val/loss", "val/loss/en-de", "val/loss/en-fr"):
        assert logged_values(again, name) == logged_values(uninterrupted, name) != {}
    old, new = (yaml.safe_load((f / "config.yaml").read_text()) for f in (uninterrupted, again))
    where = {"runs", "config", "callbacks", "logger"}
    assert {k: v for k, v in old.items() if k not in where} == {
        k: v for k, v in new.items() if k not in where
    }


def test_what_is_given_stands_above_the_configuration_of_a_run(tmp_path: Path) -> None:
    first = train(tmp_path / "a", "strategy=lora", "trainer.max_steps=2")
    command = ["train", f"--config={first / 'config.yaml'}", f"runs={tmp_path / 'b'}"]
    assert run([*command, "strategy.dropout=0.25", "seed=3", "~trainer.enable_progress_bar"]) == 0
    (again,) = folders(tmp_path / "b")
    new = yaml.safe_load((again / "config.yaml").read_text())
    assert (new["strategy"]["_target_"], new["strategy"]["dropout"], new["seed"]) == (
        yaml.safe_load((first / "config.yaml").read_text())["strategy"]["_target_"],
        0.25,
        3,
    )
    assert "enable_progress_bar" not in new["trainer"]


@pytest.mark.slow
def test_code_of_ones_own_is_named_in_the_command_and_not_by_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first = train(tmp_path / "a", *stopping(after=99), "trainer.max_steps=2")
    for how in (["--config", str(first)], [f"resume={first}"]):
        command = ["train", *how, f"runs={tmp_path / 'b'}"]
        assert run(command) == 2
        stderr = capsys.readouterr().err
        assert "names helpers.tiny.Stop, which is not on the list" in stderr
        typed = f"type polylect train {' '.join(how)} 'packages=[helpers]'"
        assert typed in stderr and stderr.count("\n") == 1
        assert not (tmp_path / "b").exists()
    assert run([*command, "packages=[helpers]", "trainer.max_steps=3"]) == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--config", "nowhere"], "config=nowhere is neither a run folder with a config.yaml"),
        (["--config", "RUN", "resume=RUN"], "not both"),
        (["--config", "RUN", "strategy.rnk=4"], "did you mean strategy.rank"),
        (["--config"], "--config: expected one argument"),
    ],
)
def test_a_configuration_that_cannot_be_taken_is_a_sentence(
    given: list[str], said: str, tiny_run: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(["train", *(text.replace("RUN", str(tiny_run)) for text in given)]) == 2
    stderr = capsys.readouterr().err
    assert said in stderr and stderr.count("\n") == 1
