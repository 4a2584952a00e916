"""What a checkpoint holds, and what is refused."""

import random
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from helpers.small import ROWS, base, batch_of, build, train_a_little
from helpers.tiny import same

from polylect.models.backbone import tiny_backbone
from polylect.run.build import checkpoint_path, load
from polylect.strategies.base import TranslationModule


class OneProcess:
    """The part of a trainer that a checkpoint asks for."""

    world_size = 1
    accumulate_grad_batches = 2


def saved(module: TranslationModule) -> dict[str, Any]:
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


@pytest.mark.parametrize("strategy", ["lora", "lora_switch"])
def test_a_checkpoint_holds_the_adapters_and_no_base_weight(strategy: str) -> None:
    module = build(strategy)
    names = set(saved(module)["state_dict"])
    assert names == {n for n, p in module.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in names)


def test_full_training_stores_tied_weights_once() -> None:
    module = train_a_little(build("full"))
    state = saved(module)["state_dict"]
    assert "backbone.model.embed_tokens.weight" in state
    assert "backbone.lm_head.weight" not in state
    other = build("full")
    other.load_owned(saved(module))
    assert same(other.state_dict(), module.state_dict())


def test_weights_of_a_checkpoint_come_back_and_nothing_else_does() -> None:
    module = train_a_little(build("lora_switch"))
    checkpoint = saved(module)
    other = build("lora_switch")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    other.load_owned(checkpoint)
    other.on_train_start()
    assert torch.equal(torch.get_rng_state(), before)
    assert same(other.state_dict(), module.state_dict())


def test_the_random_state_is_that_of_the_checkpoint_when_training_goes_on() -> None:
    module = build("lora_switch")
    random.gauss(0, 1)
    numpy.random.normal()  # leaves a second number waiting
    checkpoint = saved(module)
    expected = [torch.rand(3).tolist(), numpy.random.normal(size=3).tolist(), random.gauss(0, 1)]
    module.on_load_checkpoint(checkpoint)
    module.on_train_start()
    actual = [torch.rand(3).tolist(), numpy.random.normal(size=3).tolist(), random.gauss(0, 1)]
    assert actual == expected


def test_accumulated_gradients_come_back() -> None:
    module, other = (train_a_little(build("lora_switch")) for _ in range(2))
    trainer = OneProcess()
    module.trainer = other.trainer = trainer
    module.training_step(batch_of(module, ROWS[:2]), 0).backward()
    checkpoint = saved(module)
    other.on_load_checkpoint(checkpoint)
    other.on_train_start()
    for each in (module, other):
        each.training_step(batch_of(each, ROWS[1:]), 1).backward()
        each._losses.correct(each.parameter_groups())
    gradients = {n: p.grad for n, p in module.named_parameters() if p.requires_grad}
    assert same({n: p.grad for n, p in other.named_parameters() if p.requires_grad}, gradients)
    module._losses.reset()
    assert saved(module)["polylect"]["accumulated"] is None


# What does not fit


def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="was not written by polylect"):
        build("lora").on_load_checkpoint({"state_dict": {}})
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt was not written by polylect"):
        load(tmp_path / "other.ckpt")


def test_a_checkpoint_of_another_base_is_refused() -> None:
    checkpoint = saved(build("lora"))
    other = build("lora")
    model, tokenizer = tiny_backbone(hidden=32, seed=1)
    module = type(other)(directions=other.directions, adapters="shared")
    module.set_backbone(model, tokenizer)
    with pytest.raises(ValueError, match=r"another base model: fingerprint \w{12}, this"):
        module.on_load_checkpoint(checkpoint)


def test_names_that_do_not_fit_are_counted() -> None:
    checkpoint = saved(build("lora_switch"))
    names = list(checkpoint["state_dict"])
    checkpoint["state_dict"]["backbone.strange"] = checkpoint["state_dict"].pop(names[0])
    with pytest.raises(ValueError, match=r"it lacks \['backbone\..*\(1 names\) and has .*strange"):
        build("lora_switch").on_load_checkpoint(checkpoint)


def test_tensors_of_another_shape_are_refused() -> None:
    checkpoint = saved(build("lora"))
    with pytest.raises(ValueError, match=r"lora_a.shared is \[16, \d+\] in it and \[4, \d+\] here"):
        build("lora", "strategy.rank=4").load_owned(checkpoint)


# What a user means by a run


def test_a_run_folder_means_its_best_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match=r"neither a checkpoint nor a run folder"):
        checkpoint_path(tmp_path)
    (folder / "last.ckpt").touch()
    assert checkpoint_path(tmp_path) == folder / "last.ckpt"
    (folder / "best.ckpt").touch()
    assert checkpoint_path(str(tmp_path)) == folder / "best.ckpt"
    assert checkpoint_path(folder / "last.ckpt") == folder / "last.ckpt"


def test_the_base_is_fingerprinted_before_anything_is_put_into_it() -> None:
    fingerprints = {build(name).base_fingerprint for name in ("frozen", "full", "lora_switch")}
    assert len(fingerprints) == 1
    assert base()[0] is not base()[0]


def test_a_stage_takes_the_adapters_of_its_own_directions() -> None:
    checkpoint = saved(train_a_little(build("lora_switch")))
    module = build("lora_switch", "data.directions=[en-fr,en-ta]")
    new = {name: t.clone() for name, t in module.state_dict().items() if name.endswith("en-ta")}
    module.load_stage(checkpoint)
    state = module.state_dict()
    french = [name for name in state if name.endswith("en-fr")]
    assert french and all(torch.equal(state[n], checkpoint["state_dict"][n]) for n in french)
    assert new and all(torch.equal(state[name], t) for name, t in new.items())
    other = build("lora_switch", "data.directions=[en-ta]")
    with pytest.raises(ValueError, match="does not fit LoRASwitch: it lacks"):
        other.load_stage(checkpoint)
