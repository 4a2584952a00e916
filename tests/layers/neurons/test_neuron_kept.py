"""The matrices that feed-forward networks with slices keep, and the kernel that needs none."""

import copy
from typing import Any

import pytest
import torch
from test_neuron_ffn import FFN, HIDDEN, ROWS, SHAPES, make
from torch import Tensor

from polylect.layers.context import RoutingContext
from polylect.layers.neurons.bank import NeuronBank
from polylect.layers.neurons.gates import AwarenessGate

LEARNED = AwarenessGate(HIDDEN, 4, 1, soft=True).double().eval()
FORMS = pytest.mark.parametrize(
    ("gate", "literal", "bias"),
    [(None, False, False), (None, False, True), (LEARNED, False, True), (LEARNED, True, True)],
)


def step(ffn: FFN, context: RoutingContext, rows: list[str], optimizer: Any) -> Tensor:
    with context.route(rows):
        y = ffn(torch.randn(len(rows), 3, HIDDEN, dtype=torch.float64))
    y.square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return y


@FORMS
@pytest.mark.parametrize("rows", [["en-de"] * 2, ["en-de", "en-fr"], ROWS])
def test_what_is_kept_between_steps_follows_the_slices(
    gate: Any, literal: bool, bias: bool, rows: list[str]
) -> None:
    _, ffn, _, _ = make(gate, literal, bias=bias)
    context = ffn.neuron_bank.context
    values = [p for p in ffn.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(values, lr=0.1, fused=True)
    x = torch.randn(len(rows), 3, HIDDEN, dtype=torch.float64)
    with torch.inference_mode(), context.route(rows):
        ffn(x)  # as a validation before the training does
    layers = (ffn.gate, ffn.up, ffn.down)
    kept = [layer.patched.weight for layer in layers]
    for _ in range(3):
        before = [weight.clone() for weight in kept]
        step(ffn, context, rows, optimizer)
        with torch.no_grad(), context.route(rows):
            again = ffn(x)  # what a gate said in training could not be copied
        fresh = copy.deepcopy(ffn)
        assert fresh.up.patched.weight is None
        with fresh.neuron_bank.context.route(rows):
            expected = fresh(x)
        assert torch.equal(again, expected)
        with context.route(rows):
            assert torch.equal(ffn(x), expected)
        for layer, weight, old in zip(layers, kept, before, strict=True):
            assert layer.patched.weight is weight  # written in place,
            changed = (weight != old).any(1 - layer.axis).nonzero()[:, 0]
            plan = ffn.neuron_bank._planned[1]
            assert changed.min() == len(plan.order) - len(plan.index)  # and nothing but slices
    assert not any("patched" in name for name in ffn.state_dict())


def test_a_graph_outlives_other_slices_but_not_other_values() -> None:
    _, ffn, _, context = make()
    x = torch.randn(1, 3, HIDDEN, dtype=torch.float64)

    def forward(direction: str) -> Tensor:
        with context.route([direction]):
            return ffn(x).square().sum()

    values = [ffn.up.neuron_values[name] for name in ffn.neuron_bank.sets]
    expected = torch.autograd.grad(forward("en-de"), values)
    german, french = forward("en-de"), forward("en-fr")
    actual = torch.autograd.grad(german, values)
    assert all(torch.equal(*pair) for pair in zip(actual, expected, strict=True))
    french.backward()
    stale = forward("en-de")
    with torch.no_grad():
        values[0].add_(1)
    forward("en-de")
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


@pytest.mark.parametrize(("gated", "bias"), SHAPES)
def test_the_kernel_without_a_copy_gives_the_same(
    gated: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ffn, _, context = make(gated=gated, bias=bias)
    x = torch.randn(2, 3, HIDDEN, dtype=torch.float64)

    def results() -> list[Tensor]:
        with context.route(["en-de", "en-de"]):
            y = ffn(x)
        own = [p for n, p in ffn.named_parameters() if p.requires_grad]
        return [y, *torch.autograd.grad(y.square().sum(), own)]

    expected = results()
    monkeypatch.setattr(NeuronBank, "multiplies_in_place", lambda self, plan: True)
    for ours, theirs in zip(results(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_autocast_multiplies_in_its_precision() -> None:
    for gate in (None, LEARNED):
        _, ffn, _, context = make(gate)
        ffn.float()
        x = torch.randn(2, 3, HIDDEN)
        with context.route(["en-de", "en-fr"]):
            expected = ffn(x)
            with torch.autocast("cpu", torch.bfloat16):
                y = ffn(x)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
        y.float().sum().backward()
        assert ffn.down.neuron_values["general"].grad.dtype == torch.float32
