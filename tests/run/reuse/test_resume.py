"""Which settings of the run before may change, and that every other change is named."""

import copy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from helpers.neurons import write_neurons
from helpers.tiny import (
    TRAIN,
    attempt,
    checkpoint,
    config,
    folders,
    record,
    same,
    train,
)
from omegaconf import DictConfig, OmegaConf

from polylect.cli import run
from polylect.config.roots import ConfigError, plain
from polylect.models.backbone import tiny_backbone
from polylect.run.reuse.resume import (
    CONTINUED,
    MAY_CHANGE,
    check_unchanged,
    describe_differences,
    differences,
    resume_config,
    stored_values,
)
from polylect.run.reuse.stored_config import read_config
from polylect.run.session import register_resolvers


@pytest.fixture(scope="module")
def cfg() -> DictConfig:
    register_resolvers(Path("runs/now"))
    return config("train", *TRAIN, "callbacks=early_stopping", "resume=before")


def stored(cfg: DictConfig) -> dict[str, Any]:
    """A checkpoint of a run with this configuration."""
    config = {key: plain(cfg[key]) for key in CONTINUED}
    return {"polylect": {"about": {"config": config}}}


# Comparing


def test_settings_are_compared_with_what_a_target_takes_by_default() -> None:
    lora = {"_target_": "polylect.strategies.lora_switch.LoRASwitch", "rank": 8}
    assert not list(differences(lora, lora | {"dropout": 0.0, "targets": "all"}))
    assert not list(differences(lora | {"dropout": 0}, lora))
    assert list(differences(lora, lora | {"dropout": 0.1}, "s")) == [("s.dropout", 0.0, 0.1)]
    assert list(differences(lora | {"alpha": 8}, lora, "s")) == [("s.alpha", 8, 16)]
    other = lora | {"_target_": "polylect.strategies.full.Full"}
    assert [key for key, *_ in differences(lora, other, "s")] == ["s._target_"]
    assert not list(differences({"a": (1, [2])}, {"a": [1, (2,)]}))
    assert describe_differences({"a": {"b": 1}}, {"a": {}}) == "a.b was 1 and is not given"
    assert describe_differences({"a": 1, "b": 1}, {"a": 2, "b": 2}, ["a"]) == "b was 1 and is 2"
    assert len(describe_differences({"a": "x " * 200}, {"a": 1})) < 120


def leaves(node: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        return [leaf for key, value in node.items() for leaf in leaves(value, f"{path}.{key}")]
    return [(path.lstrip("."), node)]


def test_every_setting_may_change_or_is_refused_by_its_name(cfg: DictConfig) -> None:
    before = stored(cfg)
    values = before["polylect"]["about"]["config"]
    check_unchanged(before, cfg)
    settings = [(key, value) for key, value in leaves(values) if not key.endswith("_target_")]
    assert len(settings) > 60
    allowed = set()
    for key, value in settings:
        other = copy.deepcopy(cfg)
        OmegaConf.update(other, key, ["else"] if isinstance(value, list) else 123456, merge=False)
        if any(fnmatchcase(key, pattern) for pattern in MAY_CHANGE):
            check_unchanged(before, other)
            allowed.add(key)
            continue
        with pytest.raises(ConfigError) as error:
            check_unchanged(before, other)
        now = "['else']" if isinstance(value, list) else "123456"
        assert f"resume=before goes on with the settings it was begun with, but {key} was " in str(
            error.value
        )
        assert f" and is {now}: leave that out" in str(error.value)
    assert {"trainer.max_steps", "name", "generation.extra", "trainer.devices"} <= allowed
    assert not allowed & {
        "seed", "optim.optimizer.lr", "optim.optimizer.betas", "optim.schedule.share",
        "strategy.alpha", "strategy.rank", "strategy.dropout", "trainer.precision",
        "trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "data.max_length",
        "data.directions", "data.val.size", "callbacks.checkpoint.monitor",
        "callbacks.early_stopping.patience",
    }  # fmt: skip


def test_all_changes_are_named_together(cfg: DictConfig) -> None:
    other = copy.deepcopy(cfg)
    other.optim.optimizer.lr, other.strategy.alpha = 1.0, 320
    with pytest.raises(ConfigError) as error:
        check_unchanged(stored(cfg), other)
    assert "strategy.alpha was 32 and is 320" in str(error.value)
    assert "optim.optimizer.lr was 0.006 and is 1.0" in str(error.value)


def test_callbacks_may_come_and_go(cfg: DictConfig) -> None:
    fewer = copy.deepcopy(cfg)
    fewer.callbacks.early_stopping = None
    check_unchanged(stored(cfg), fewer)
    check_unchanged(stored(fewer), cfg)


# The configuration of the run that goes on


def test_a_run_goes_on_with_its_own_settings_and_those_given_on_top(
    tmp_path: Path, tiny_run: Path
) -> None:
    """The command names no setting of the tiny run but those that change."""
    whole = train(tmp_path / "whole", "trainer.max_steps=8", f"resume={tiny_run}")
    given = ["trainer.max_steps=8", "logger=none", "generation.beams=2"]
    OmegaConf.clear_resolver("run_folder")  # as in a process that has just begun
    assert run(["train", f"resume={tiny_run}", f"runs={tmp_path / 'more'}", *given]) == 0
    (again,) = folders(tmp_path / "more")
    assert same(checkpoint(again)["state_dict"], checkpoint(whole)["state_dict"])
    assert same(checkpoint(again)["optimizer_states"], checkpoint(whole)["optimizer_states"])
    before, after = (read_config(folder / "config.yaml") for folder in (tiny_run, again))
    changed = dict((key, (old, new)) for key, old, new in differences(before, after))
    assert changed.pop("callbacks.checkpoint.dirpath")[1] == str(again / "checkpoints")
    assert changed.pop("runs") and changed.pop("resume") == (None, str(tiny_run))
    assert {key for key in changed if not key.startswith("logger")} == {
        "trainer.max_steps",
        "generation.beams",
    }
    assert not (again / "metrics.csv").exists()
    assert record(again)["metrics"]["steps"] == 8


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("optim.optimizer.lr=1", "optim.optimizer.lr was 0.006 and is 1:"),
        ("strategy.alpha=320", "strategy.alpha was 32 and is 320:"),
        ("strategy=lora", "strategy.adapters was per_direction and is shared"),
        ("strategy=full", "but strategy._target_ was polylect.strategies.lora_switch.LoRASwitch"),
        ("optim=adamw", "optim.optimizer.lr was 0.006 and is 0.0002:"),
        ("data.tokens_per_batch=600", "data.tokens_per_batch was 512 and is 600:"),
        ("+strategy.rslora=true", "strategy.rslora was False and is True:"),
        ("~optim.optimizer.betas", "optim.optimizer.betas was [0.9, 0.98] and is (0.9, 0.999):"),
        ("callbacks.checkpoint.mode=max", "callbacks.checkpoint.mode was min and is max:"),
        ("experiment=tongues_joint", "strategy._target_ was"),
        ("seed=2", "seed was 1 and is 2"),
    ],
)
def test_a_changed_setting_is_refused_before_anything_is_made(
    given: str, sentence: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", f"resume={tiny_run}", f"runs={tmp_path}", given]) == 2
    stderr = capsys.readouterr().err
    assert sentence in stderr
    assert len(stderr.splitlines()) == 1
    assert not folders(tmp_path)


def test_callbacks_of_the_run_write_where_the_command_says(cfg: DictConfig) -> None:
    before = stored(cfg)
    callbacks = before["polylect"]["about"]["config"]["callbacks"]
    callbacks["checkpoint"] |= {"dirpath": "/etc", "filename": "../passwd", "mode": "max"}
    callbacks["more"] = callbacks["checkpoint"] | {"monitor": "train/loss"}
    new = resume_config(cfg, stored_values(before), Path("x.ckpt"), ["resume=before"])
    assert new.callbacks.checkpoint.dirpath == cfg.callbacks.checkpoint.dirpath
    assert new.callbacks.checkpoint.filename == "best"
    assert new.callbacks.checkpoint["mode"] == "max"
    assert new.callbacks.more.monitor == "train/loss"
    assert not {"dirpath", "filename"} & set(new.callbacks.more)
    less = copy.deepcopy(cfg)
    less.callbacks = {"more": None, "checkpoint": {"mode": "min"}}
    given = ["+callbacks.more=null", "~callbacks.early_stopping"]
    new = resume_config(less, stored_values(before), Path("x.ckpt"), given)
    assert new.callbacks.more is None and new.callbacks.checkpoint["mode"] == "max"
    assert "early_stopping" not in new.callbacks
    new = resume_config(less, stored_values(before), Path("x.ckpt"), ["callbacks=mine"])
    assert new.callbacks == less.callbacks


def test_where_a_stored_configuration_logs_to_is_not_taken(cfg: DictConfig) -> None:
    before = stored(cfg)
    spy = {"_target_": "lightning.pytorch.loggers.WandbLogger", "entity": "someone"}
    before["polylect"]["about"]["config"] |= {"logger": spy, "runs": "/etc", "packages": ["tiny"]}
    new = resume_config(cfg, stored_values(before), Path("x.ckpt"), [])
    assert (new.logger, new.runs, new.packages) == (cfg.logger, cfg.runs, [])


@pytest.mark.parametrize("name", ["/tmp/elsewhere", "../elsewhere", "a/../../b"])
def test_a_stored_name_stays_in_the_folder_of_the_runs(name: str, cfg: DictConfig) -> None:
    before = stored(cfg)
    before["polylect"]["about"]["config"]["name"] = name
    with pytest.raises(ConfigError, match=r"x\.ckpt: name is .* leads out of the folder"):
        resume_config(cfg, stored_values(before), Path("x.ckpt"), [])


# Stages


def test_a_stage_gives_its_weights_the_same_meaning(tiny_run: Path, tmp_path: Path) -> None:
    for given, sentence in (
        ("strategy.alpha=320", "strategy.alpha was 32 and is 320"),
        ("+strategy.rslora=true", "strategy.rslora was False and is True"),
    ):
        with pytest.raises(ConfigError, match=f"best.ckpt mean something else .*{sentence}"):
            attempt(tmp_path, f"init_from={tiny_run}", given)
    with pytest.raises(ValueError, match=r"is \[16, 32\] in it and \[8, 32\] here"):
        attempt(tmp_path, f"init_from={tiny_run}", "strategy.rank=8")
    assert not folders(tmp_path)
    short = ["trainer.max_steps=1", "trainer.val_check_interval=1"]
    free = ["strategy.dropout=0.1", "+strategy.init_scale=0.1", "optim.optimizer.lr=0", "seed=3"]
    made = train(tmp_path, f"init_from={tiny_run}", *short, *free)
    assert same(checkpoint(made)["state_dict"], checkpoint(tiny_run, "best")["state_dict"])


@pytest.mark.slow
def test_a_stage_with_other_neurons_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    model = tiny_backbone(hidden=32)[0]
    directions = ["en-de", "en-fr"]
    write_neurons(Path(), model, directions)
    short = ["strategy=landermt", "trainer.max_steps=1", "trainer.val_check_interval=1"]
    first = train(Path("runs"), *short, "strategy.neurons=neurons.safetensors")
    Path("other").mkdir()
    write_neurons(Path("other"), model, directions)
    moved = "strategy.neurons=other/neurons.safetensors"
    train(Path("second"), *short, f"init_from={first}", moved)  # the same, in another place
    swap_neurons(Path("other/neurons.safetensors"))
    with pytest.raises(ValueError, match=r"other neurons than those of other/neurons\.safetensors"):
        attempt(Path("runs"), *short, f"init_from={first}", moved)
    with pytest.raises(ConfigError, match=r"strategy\.gate was token and is constant"):
        attempt(Path("runs"), *short, f"init_from={first}", moved, "strategy.gate=constant")
    # What a run goes on with are its own neurons, whatever has become of the file.
    Path("neurons.safetensors").unlink()
    same_file = "strategy.neurons=neurons.safetensors"
    again = train(Path("runs"), *short, same_file, f"resume={first}", "trainer.max_steps=2")
    before, after = (checkpoint(f)["polylect"]["structure"]["neurons"] for f in (first, again))
    assert same(before["specific"], after["specific"])


def swap_neurons(path: Path) -> None:
    """Exchange what two directions own."""
    from dataclasses import replace

    from polylect.library.neurons.file import NeuronFile

    file = NeuronFile.read(path)
    replace(file, specific=file.specific.flip(1)).write(path)


def test_a_stage_with_another_number_of_experts_per_token_is_refused(tmp_path: Path) -> None:
    short = ["strategy=mix_moe", "trainer.max_steps=1", "trainer.val_check_interval=1"]
    first = train(tmp_path, *short)
    with pytest.raises(ValueError, match=r"was trained with strategy\.top=None, this one has 1"):
        attempt(tmp_path, *short, f"init_from={first}", "strategy.top=1")
