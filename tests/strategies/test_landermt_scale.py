"""Gradients scaled by awareness: exact over accumulated batches, clipping, processes; recorded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.neurons import write_rows
from helpers.small import ROWS, batch_of
from helpers.tiny import MODEL, config, train
from helpers.tiny import record as record_of
from torch import Tensor

from polylect.layers.neurons.layer import NeuronLayer
from polylect.library.neurons.kinds import ModuleNeurons
from polylect.models.backbone import tiny_backbone
from polylect.run.build import build_strategy
from polylect.strategies.base import TranslationModule
from polylect.strategies.loop.divergence import clip_units
from polylect.strategies.loss import StepLoss, target_losses

DIRECTIONS = "data.directions=[en-de,en-fr,en-hi]"
LANGUAGES = ("en", "de", "fr", "hi")
MICRO_BATCHES = [ROWS[:1], ROWS[1:3], ROWS[3:]]  # of one, two and one direction


@pytest.fixture(params=[False, True], ids=["own", "shared"])
def shared(request: pytest.FixtureRequest) -> bool:
    return request.param


def make(folder: Path, *overrides: str) -> TranslationModule:
    model, tokenizer = tiny_backbone(hidden=32)
    file = write_rows(folder, model, LANGUAGES)
    settings = (f"strategy.neurons={file}", "strategy.gate=none", *overrides)
    module = build_strategy(config("train", *MODEL, DIRECTIONS, "strategy=landermt", *settings))
    module.set_backbone(model, tokenizer)
    return module


def accumulated(module: TranslationModule, micro_batches: Any) -> dict[str, Tensor]:
    """The gradients of an optimizer step over micro-batches, before it is clipped."""
    losses = StepLoss(1)
    for rows in micro_batches:
        batch = batch_of(module, rows)
        with module.routing(batch):
            nats, of_row = target_losses(module.backbone, batch)
        losses.add(nats, torch.zeros_like(of_row), torch.zeros(())).backward()
    losses.correct(module.parameter_groups())
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def by_hand(folder: Path, shared: bool) -> dict[str, Tensor]:
    """Gradients of each sentence alone without scales, each row multiplied by its awareness."""
    module = make(folder, f"strategy.shared={str(shared).lower()}")
    found = ModuleNeurons.read(folder / "rows.safetensors")
    names = {id(p): name for name, p in module.named_parameters()}
    totals: dict[str, Tensor] = {}
    tokens = 0
    for row in ROWS:
        module.zero_grad()
        batch = batch_of(module, [row])
        with module.routing(batch):
            nats, _ = target_losses(module.backbone, batch)
        nats.sum().backward()
        tokens += len(nats)
        for layer in (m for m in module.backbone.modules() if isinstance(m, NeuronLayer)):
            number, _, kind = layer.bank.name.removeprefix("layer_").partition(".")
            scores = found.kinds[kind].scores()[:, int(number)]
            sides = [scores[LANGUAGES.index(code)] for code in row[0].split("-")]
            for name, own in layer.bank.sets.items():
                index = layer.bank.index(name)
                if own.general:
                    factor = (sides[0] + sides[1])[index] / 2
                else:
                    factor = scores[LANGUAGES.index(own.owners[0])][index]
                for parameter in (layer.neuron_values[name], dict(layer.neuron_bias).get(name)):
                    if parameter is None or parameter.grad is None:
                        continue
                    scaled = parameter.grad * factor.view(-1, *[1] * (parameter.dim() - 1))
                    key = names[id(parameter)]
                    totals[key] = totals.get(key, 0) + scaled
    return {name: total / tokens for name, total in totals.items()}


def test_scaled_gradients_are_exact_over_accumulated_batches(tmp_path: Path, shared: bool) -> None:
    expected = by_hand(tmp_path, shared)
    settings = ("strategy.scaling=awareness", f"strategy.shared={str(shared).lower()}")
    for micro_batches in (MICRO_BATCHES, [ROWS], [[row] for row in ROWS]):
        found = accumulated(make(tmp_path, *settings), micro_batches)
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name].float(), atol=1e-7, rtol=1e-4)


def test_a_mask_at_the_step_scales_the_sum_of_all(tmp_path: Path) -> None:
    """By the factors of the last direction, as the published code does."""
    plain = make(tmp_path, "strategy.shared=true", "strategy.mask_at_step=true")
    scaled = make(tmp_path, *("strategy.shared=true", "strategy.mask_at_step=true"),
                  "strategy.scaling=awareness")  # fmt: skip
    expected, found = accumulated(plain, MICRO_BATCHES), accumulated(scaled, MICRO_BATCHES)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    for module in (plain, scaled):
        module._last = "en-hi"
        module._losses.first = module._losses.total = module._losses.sums = torch.ones(1)
        module.log = lambda *_, **__: None
        module.on_before_optimizer_step(torch.optim.SGD(module.parameter_groups()[0]["params"], 1))
    for layer in (m for m in scaled.backbone.modules() if isinstance(m, NeuronLayer)):
        for name, values in layer.neuron_values.items():
            weight = layer.bank.weight("en-hi", name)
            if weight is None:
                assert values.grad is None
            else:
                key = next(n for n, p in scaled.named_parameters() if p is values)
                by_row = weight.view(-1, *[1] * (values.dim() - 1))
                torch.testing.assert_close(values.grad, expected[key] * by_row)


def test_clipping_is_by_the_norm_of_the_scaled_gradients(tmp_path: Path, shared: bool) -> None:
    expected = by_hand(tmp_path, shared)
    settings = ("strategy.scaling=awareness", f"strategy.shared={str(shared).lower()}")
    module = make(tmp_path, *settings)
    accumulated(module, MICRO_BATCHES)
    norm = torch.stack([gradient.square().sum() for gradient in expected.values()]).sum().sqrt()
    most = float(norm) / 3
    (found,) = clip_units(module.parameter_groups(), most, "norm").values()
    torch.testing.assert_close(found, norm.float(), rtol=1e-4, atol=0)
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            clipped = (expected[name] / 3).float()
            torch.testing.assert_close(parameter.grad, clipped, atol=1e-7, rtol=1e-4)


@pytest.mark.slow
def test_the_scale_is_in_the_record(tmp_path: Path) -> None:
    model, _ = tiny_backbone(hidden=32)
    file = write_rows(tmp_path, model, ("en", "de", "fr"))
    neurons = [f"strategy.neurons={file}", "strategy.gate=none"]
    settings = ["strategy=landermt", *neurons, "trainer.max_steps=1"]
    plain = train(tmp_path / "plain", *settings)
    scaled = train(tmp_path / "scaled", *settings, "strategy.scaling=awareness")
    assert "scaling" not in record_of(plain)["metrics"]
    told = record_of(scaled)["metrics"]["scaling"]
    assert told.keys() == {"en-de", "en-fr"}
    found = ModuleNeurons.read(file).kinds["self_attn.q_proj"]
    scores = found.scores()
    for direction, to in (("en-de", 1), ("en-fr", 2)):
        own = told[direction]["self_attn.q_proj"]
        general = ((scores[0] + scores[to]) / 2)[found.general]
        specific = torch.cat([scores[i][found.specific[:, i]] for i in (0, to)])
        for part, factors in (("general", general), ("specific", specific)):
            assert own[part]["rows"] == len(factors)
            for name, value in (("least", min), ("most", max)):
                assert own[part][name] == pytest.approx(float(value(factors)), rel=1e-6)
            assert own[part]["mean"] == pytest.approx(float(factors.mean()), rel=1e-6)
