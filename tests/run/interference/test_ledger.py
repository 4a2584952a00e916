"""The interference ledger in whole trainings."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.interference import measured
from helpers.neurons import write_neurons
from helpers.small import DIRECTIONS, base, batch_of, build, train_a_little
from helpers.tiny import (
    NO_STOP,
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

from polylect.programs.train import main
from polylect.run.interference.history import cancelled, cosines
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import target_losses

LEDGER = ["callbacks=ledger", "callbacks.ledger.every=2"]


def rows(folder: Path, name: str = "cosines") -> list[dict[str, str]]:
    with (folder / "ledger" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def overall(folder: Path) -> dict[str, Any]:
    return record(folder)["metrics"]["ledger"]["means"]["all"]


# The numbers


def test_cosines_and_shares_of_plain_vectors() -> None:
    vectors = torch.tensor([[1.0, 0.0], [-0.5, 0.5], [0.0, 2.0], [0.0, 0.0]])
    gram = (vectors @ vectors.T)[None]
    assert cosines(gram)[0, 0, 1] == pytest.approx(-(0.5**0.5))
    assert cosines(gram)[0, 0, 2] == 0
    assert math.isnan(cosines(gram)[0, 0, 3])
    shares = cancelled(gram)[0]
    assert shares[0] == pytest.approx(0.5)
    assert shares[2] == 0  # helped by the second
    assert math.isnan(shares[3])
    opposed = torch.tensor([[1.0], [-3.0]])
    assert cancelled((opposed @ opposed.T)[None])[0].tolist() == pytest.approx([1, 1 / 3])


def measure(module: TranslationModule, size: int, *, own: bool = False) -> torch.Tensor:
    """The ledger's inner products of the batch; `own` where gradients lie in the parameters."""
    if own:
        loss_of_step(module).backward()
    return measured(module, batch_of(module), size)


def loss_of_step(module: TranslationModule, only: str | None = None) -> torch.Tensor:
    """What the training step differentiates, or the part of one direction."""
    batch, units = batch_of(module), module.units()
    with module.routing(batch):
        losses, which = target_losses(module.backbone, batch)
    unit = torch.tensor([units[d] for d in batch.directions])[which]
    kept = torch.tensor([only in (None, d) for d in batch.directions])[which]
    return (losses * kept / unit.bincount()[unit]).sum()


def exact(module: TranslationModule) -> torch.Tensor:
    """The same from whole gradients, over all layers."""
    parameters = [p for group in module.parameter_groups() for p in group["params"]]
    flat = []
    for direction in DIRECTIONS:
        loss = loss_of_step(module, direction)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        pairs = zip(parameters, gradients, strict=True)
        whole = [torch.zeros_like(p) if g is None else g for p, g in pairs]
        flat.append(torch.cat([g.flatten() for g in whole]))
    stacked = torch.stack(flat)
    return stacked @ stacked.T


def settings(strategy: str, folder: Path) -> list[str]:
    if strategy != "landermt":
        return []
    file = write_neurons(folder, base()[0], DIRECTIONS)
    return [f"strategy.neurons={file}", "strategy.soft=true"]


@pytest.mark.parametrize("strategy", ["full", "lora", "lora_switch", "landermt", "mix_moe"])
def test_with_room_for_all_entries_it_is_the_exact_gradient(strategy: str, tmp_path: Path) -> None:
    module = train_a_little(build(strategy, *settings(strategy, tmp_path)))
    gram = measure(module, 50_000, own=strategy == "lora_switch")
    torch.testing.assert_close(gram.sum(0), exact(module), rtol=1e-3, atol=1e-6)


def test_directions_that_share_an_adapter_are_told_apart(tmp_path: Path) -> None:
    adapters = "strategy.adapters={both: [en-de, en-fr], hi: [en-hi]}"
    module = train_a_little(build("lora_switch", adapters))
    gram = measure(module, 50_000, own=True).sum(0)
    torch.testing.assert_close(gram, exact(module), rtol=1e-3, atol=1e-6)
    assert gram[0, 1] != 0
    assert gram[0, 2] == gram[1, 2] == 0


def test_sketches_come_near_the_exact_gradient() -> None:
    module = build("full")
    whole = exact(module)
    sizes = whole.diagonal().sqrt()
    assert ((measure(module, 499).sum(0) - whole).abs() < 0.1 * torch.outer(sizes, sizes)).all()


# Training is not touched, and nothing is lost


SLOW = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("lora_switch", "landermt", "mix_moe")
]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "lora", *SLOW])
def test_training_is_the_same_to_the_bit(strategy: str, tmp_path: Path) -> None:
    both = [f"strategy={strategy}", *settings(strategy, tmp_path)]
    both += ["strategy.dropout=0.3"] * strategy.startswith("lora")
    both += ["data.directions=[en-de,en-fr,en-hi]"] * (strategy == "landermt")
    both += ["trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.1"]
    without, measuring = (
        train(tmp_path / n, *both, *more) for n, more in (("a", []), ("b", LEDGER))
    )
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert same(checkpoint(without)[part], checkpoint(measuring)[part])
    for name in ("train/loss", "val/loss", "train/running/en-de"):
        assert logged_values(without, name) == logged_values(measuring, name)
    assert record(measuring)["metrics"]["ledger"]["steps"] == [0, 2, 4]


@pytest.mark.parametrize("strategy", ["lora", "lora_switch"])
def test_one_direction_in_a_batch_is_waited_for(strategy: str, tmp_path: Path) -> None:
    one = [f"strategy={strategy}", "+data.mixing=by_direction", "callbacks.ledger.every=6"]
    folder = train(tmp_path, *LEDGER, *one, "trainer.max_steps=12")
    assert record(folder)["metrics"]["ledger"]["steps"] == [0, 6]
    values = [row["cosine"] for row in rows(folder) if row["layer"] == "all"]
    assert all(values), values  # both directions were seen


def test_a_direction_that_does_not_come_has_no_cosine(tmp_path: Path) -> None:
    one = ["strategy=lora", "+data.mixing=by_direction", "callbacks.ledger.every=1"]
    folder = train(tmp_path, *LEDGER, *one)
    assert not any(row["cosine"] for row in rows(folder))
    seen = [row["norm"] for row in rows(folder, "updates") if row["layer"] == "all"]
    assert sum(map(bool, seen)) == 6  # one in each step


@pytest.mark.parametrize(
    ("after", "strategy"),
    [
        (1, "lora"),
        pytest.param(6, "lora", marks=pytest.mark.slow),
        pytest.param(3, "lora_switch", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_goes_on_with_its_ledger(after: int, strategy: str, tmp_path: Path) -> None:
    long = [*LEDGER, f"strategy={strategy}", "strategy.dropout=0.3"]
    long += ["trainer.accumulate_grad_batches=2"]
    whole = train(tmp_path / "whole", *long)
    with pytest.raises(SystemExit):
        attempt(tmp_path / "parts", *long, *stopping(after=after))
    (first,) = folders(tmp_path / "parts")
    second = train(tmp_path / "parts", *long, f"resume={first}", NO_STOP)
    for name in ("cosines", "updates"):
        assert rows(second, name) == rows(whole, name)
    own, other = (record(folder)["metrics"]["ledger"] for folder in (second, whole))
    assert own | {"overhead": 0} == other | {"overhead": 0}


# What is told


@pytest.mark.pictures
def test_files_record_loggers_and_picture(tmp_path: Path) -> None:
    folder = train(tmp_path, *LEDGER, "strategy=lora")
    layers = {row["layer"] for row in rows(folder)}
    assert layers == {"model.layers.0", "model.layers.1", "all"}
    last = [row for row in rows(folder) if row["step"] == "4" and row["layer"] == "all"]
    (logged,) = (logged_values(folder, "ledger/cosine/en-de/en-fr")[4],)
    assert float(last[0]["cosine"]) == pytest.approx(logged, rel=1e-4)
    means = overall(folder)
    written = [float(row["cosine"]) for row in rows(folder) if row["layer"] == "all"]
    assert means["cosine"]["en-de"]["en-fr"] == pytest.approx(sum(written) / 3, abs=1e-5)
    assert means["cosine"]["en-de"]["en-de"] == 1
    assert (folder / "plots" / "interference.png").is_file()


def test_one_direction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has only en-de: leave the ledger out"):
        attempt(tmp_path, *LEDGER, "data.directions=[en-de]")


@pytest.mark.parametrize(("key", "value"), [("every", 0), ("share", 0), ("share", 2), ("size", 1)])
def test_settings_out_of_range(key: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"callbacks\.ledger\.{key} must be"):
        attempt(tmp_path, *LEDGER, f"callbacks.ledger.{key}={value}")


@pytest.mark.slow
def test_the_record_says_what_share_of_the_time_it_took(tmp_path: Path) -> None:
    # The quick start's model and batches; how large the share is, is measured and not tested.
    choices = ["strategy=lora", f"runs={tmp_path}", "callbacks=ledger", "trainer.max_steps=40"]
    main(config("train", *choices, "evaluate=false", "evaluate_base=false"))
    (folder,) = folders(tmp_path)
    ledger = record(folder)["metrics"]["ledger"]
    assert ledger["steps"] == [0, 20]
    assert 0 < ledger["overhead"] < 1
