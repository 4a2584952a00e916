"""Two processes at once: every strategy learns what one process would, whoever holds the weights.

Each start of two processes runs many programs, since a start takes longest.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers.neurons import write_neurons
from helpers.tiny import (
    DATA,
    MODEL,
    OWN,
    TRAIN,
    checkpoint,
    config,
    folders,
    logged_values,
    record,
    stopping,
    train,
)
from helpers.together import run_together

from polylect.library.neurons.file import NeuronFile
from polylect.models.backbone import tiny_backbone
from polylect.programs import detect, evaluate, translate

pytestmark = pytest.mark.slow

BY_DIRECTION = "+data.mixing=by_direction"  # a process lacks gradients that the other has
DECAY = "optim.optimizer.weight_decay=0.5"  # moves what should not have been stepped
OF_ONE = ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval=4"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    neurons = write_neurons(
        tmp_path_factory.mktemp("neurons"), tiny_backbone(hidden=32)[0], ("en-de", "en-fr")
    )
    return {
        "full": ["strategy=full", "optim=full_small"],
        "lora": ["strategy=lora", "model.gradient_checkpointing=true"],
        "lora_switch": ["strategy=lora_switch", BY_DIRECTION],
        "landermt": [
            "strategy=landermt", f"strategy.neurons={neurons}", "strategy.noise=0", BY_DIRECTION
        ],
        "mix_moe": ["strategy=mix_moe", "+strategy.validate_translations=1"],
    }  # fmt: skip


@pytest.fixture(scope="module")
def of_one(
    settings: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of a strategy's run in one process, which every test compares with."""
    runs = tmp_path_factory.mktemp("one")
    return cache(lambda name: train(runs / name, *OF_ONE, DECAY, *settings[name]))


def assert_same_training(found: Path, expected: Path) -> None:
    for name in ("train/loss", "val/loss", "val/loss/en-fr", "val/chrf"):
        values = logged_values(expected, name)
        assert logged_values(found, name) == pytest.approx(values, abs=1e-5), name
    assert_same_weights(found, expected)


def assert_same_weights(found: Path, expected: Path) -> None:
    one, other = checkpoint(expected), checkpoint(found)
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, tensor in one["state_dict"].items():
        # Adam evens out sizes: where gates begin, gradients are all rounding, and the sign decides.
        atol = 2e-3 if ".gates." in name else 1e-4
        torch.testing.assert_close(other["state_dict"][name], tensor, atol=atol, rtol=0)
    of_one, of_two = (part["optimizer_states"][0]["state"] for part in (one, other))
    assert {k: v["step"] for k, v in of_two.items()} == {k: v["step"] for k, v in of_one.items()}
    assert all(of_two[k]["exp_avg"].shape == v["exp_avg"].shape for k, v in of_one.items())


@pytest.mark.parametrize("trainer", ["ddp", "fsdp"])
def test_every_strategy_learns_in_two_processes_what_it_learns_in_one(
    trainer: str,
    settings: dict[str, list[str]],
    of_one: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    two = [f"trainer={trainer}", "trainer.accelerator=cpu", DECAY]
    runs = {name: f"runs={tmp_path / name}" for name in settings}
    run_together(tmp_path, *(["train", *TRAIN, *two, *own, runs[n]] for n, own in settings.items()))
    for name in settings:
        (folder,) = folders(tmp_path / name)
        assert record(folder)["status"] == "done"
        assert_same_training(folder, of_one(name))
        exported = {p.name for p in of_one(name).rglob("*.safetensors")}
        assert {p.name for p in folder.rglob("*.safetensors")} == exported


def test_another_number_of_processes_goes_on(
    settings: dict[str, list[str]], of_one: Callable[[str], Path], tmp_path: Path
) -> None:
    """From one process to two that share the weights out, and back, after step three of six."""
    own = [DECAY, *settings["lora_switch"]]
    fsdp = ["trainer=fsdp", "trainer.accelerator=cpu", *own]
    with pytest.raises(SystemExit):
        train(tmp_path / "one", *OF_ONE, *own, *stopping(after=6))
    (one,) = folders(tmp_path / "one")
    assert checkpoint(one)["global_step"] == 3
    run_together(
        tmp_path,
        ["train", *TRAIN, *fsdp, f"runs={tmp_path / 'two'}", f"resume={one}"],
        ["train", *TRAIN, *fsdp, f"runs={tmp_path / 'stopped'}", *stopping(after=3, rank=1)],
    )
    (two,), (stopped,) = folders(tmp_path / "two"), folders(tmp_path / "stopped")
    assert record(stopped)["status"] == "interrupted"
    assert checkpoint(stopped)["global_step"] == 3
    back = train(tmp_path / "back", *OF_ONE, *own, OWN, f"resume={stopped}")
    for folder in (two, back):
        assert record(folder)["status"] == "done"
        assert_same_weights(folder, of_one("lora_switch"))
        assert (
            record(folder)["data"]["drawn"]["examples"]
            == (record(of_one("lora_switch"))["data"]["drawn"]["examples"])
        )


def test_programs_share_their_work_out(tiny_run: Path, tmp_path: Path) -> None:
    """Scores, translations and neurons are those of one process, in the order of the input."""
    source = tmp_path / "in.txt"
    source.write_text("".join(f"The {n} cats sleep.\n" * (n % 3) + "\n" for n in range(9)))
    translating = [f"run={tiny_run}", "direction=en-de", f"input={source}", "lines_per_chunk=4"]
    small = [*MODEL, *DATA, "data.tokens_per_batch=128", "save_every=3"]
    commands = {
        "evaluate": ["evaluate", f"run={tiny_run}"],
        "translate": ["translate", *translating],
        "detect": ["detect", *small],
    }

    def places(name: str) -> dict[str, list[str]]:
        of_runs = {program: [f"runs={tmp_path / name / program}"] for program in commands}
        return of_runs | {"translate": [f"output={tmp_path / name}.txt"]}

    (tmp_path / "two").mkdir()
    run_together(tmp_path, *([*commands[name], *places("two")[name]] for name in commands))
    for program in (evaluate, translate, detect):
        name = program.__name__.rpartition(".")[2]
        program.main(config(*commands[name], *places("one")[name]))

    found, expected = ((tmp_path / f"{name}.txt").read_text() for name in ("two", "one"))
    assert found == expected
    assert found.count("\n") == source.read_text().count("\n")
    (two,), (one,) = (folders(tmp_path / name / "evaluate") for name in ("two", "one"))
    assert json.loads((two / "scores.json").read_text()) == (
        json.loads((one / "scores.json").read_text())
    )
    (two,), (one,) = (folders(tmp_path / name / "detect") for name in ("two", "one"))
    two_file, one_file = (NeuronFile.read(folder / detect.FILE) for folder in (two, one))
    torch.testing.assert_close(two_file.awareness, one_file.awareness)
    assert torch.equal(two_file.specific, one_file.specific)
    assert two_file.about["tokens"] == one_file.about["tokens"]
    assert two_file.about["nats_per_token"] == pytest.approx(one_file.about["nats_per_token"])
