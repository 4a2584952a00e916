"""Losses and shares of routing against sums by hand and transformers' own balance loss."""

import math

import pytest
import torch
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from polylect.layers.experts.losses import (
    CollapseAlarm,
    assigned_shares,
    balance_loss,
    expert_shares,
    lm_prior_loss,
    routing_entropy,
    z_loss,
)

ALL = torch.ones(60, dtype=torch.bool)
MASK = torch.arange(60) % 3 > 0


def top1(logits: Tensor) -> Tensor:
    """What `assigned_shares` gives where the most probable expert alone runs."""
    return assigned_shares(
        logits.argmax(1, keepdim=True), torch.rand(60, 1) + 0.1, range(logits.shape[1])
    )


def test_a_token_is_divided_among_the_experts_of_the_group():
    indices = torch.tensor([[0, 3], [2, 4], [1, 0], [3, 2]])
    weights = torch.tensor([[2.0, 1.0], [3.0, 1.0], [1.0, 3.0], [0.5, 0.5]])
    lm, mt = (
        assigned_shares(indices, weights, range(0, 2)),
        assigned_shares(indices, weights, range(2, 5)),
    )
    assert lm.tolist() == [[1, 0], [0, 0], [0.75, 0.25], [0, 0]]
    assert mt.tolist() == [[0, 1, 0], [0.75, 0, 0.25], [0, 0, 0], [0.5, 0.5, 0]]


def test_shares_are_those_of_the_masked_tokens():
    logits = torch.randn(60, 4)
    shares = expert_shares(top1(logits), MASK)
    best = logits.argmax(1).tolist()
    for expert in range(4):
        count = sum(b == expert for b, counted in zip(best, MASK.tolist(), strict=True) if counted)
        assert shares[expert].item() == pytest.approx(count / 40)
    assert not expert_shares(top1(logits), ~ALL).any()


@pytest.mark.parametrize("experts", [1, 2, 5])
def test_balance_is_one_if_uniform_and_the_number_of_experts_if_collapsed(experts: int):
    zeros = torch.zeros(60, experts)
    turns = torch.arange(60)[:, None] % experts
    in_turn = assigned_shares(turns, torch.ones(60, 1), range(experts))
    everywhere = assigned_shares(
        torch.arange(experts).expand(60, -1), torch.ones(60, experts), range(experts)
    )
    for division in (in_turn, everywhere):
        assert balance_loss(zeros, division, ALL).item() == pytest.approx(1)
    collapsed = zeros.clone()
    collapsed[:, 0] = 50
    assert balance_loss(collapsed, top1(collapsed), ALL).item() == pytest.approx(experts)


def test_balance_is_that_of_transformers():
    logits = torch.randn(60, 4)
    for mask in (ALL, MASK):
        expected = load_balancing_loss_func((logits,), 4, 1, mask.view(6, 10))
        torch.testing.assert_close(balance_loss(logits, top1(logits), mask), expected)


@pytest.mark.parametrize("soft", [True, False])
def test_following_the_balance_loss_spreads_tokens(soft: bool):
    w = torch.tensor([[1.0, 0.3], [-1.0, 0.4]], requires_grad=True)
    x = torch.randn(60, 2) + torch.tensor([1.0, 0.0])

    def division() -> Tensor:
        logits = x @ w.T
        if not soft:
            return top1(logits)
        return assigned_shares(torch.arange(2).expand(60, -1), logits.softmax(1), range(2))

    before = expert_shares(division(), ALL).max()
    for _ in range(60):
        (gradient,) = torch.autograd.grad(balance_loss(x @ w.T, division(), ALL), w)
        w.data -= 0.3 * gradient
    assert expert_shares(division(), ALL).max() < min(0.62, before - 0.05)


def test_padding_does_not_count():
    logits = torch.randn(60, 3, requires_grad=True)
    rubbish = torch.where(MASK[:, None], logits, 1e4)
    gate = logits[:, 0]
    for loss, of_rubbish in (
        (balance_loss(logits, top1(logits), MASK), balance_loss(rubbish, top1(rubbish), MASK)),
        (z_loss(logits, MASK), z_loss(rubbish, MASK)),
        (lm_prior_loss(gate, MASK), lm_prior_loss(rubbish[:, 0], MASK)),
    ):
        torch.testing.assert_close(loss, of_rubbish)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.isfinite().all()
        assert not gradient[~MASK].any()


def test_no_tokens_cost_nothing():
    logits = torch.randn(60, 3, requires_grad=True)
    losses = (
        balance_loss(logits, top1(logits), ~ALL),
        z_loss(logits, ~ALL),
        lm_prior_loss(logits[:, 0], ~ALL),
        balance_loss(logits, torch.zeros(60, 3), ALL),
    )
    for loss in losses:
        assert loss.item() == 0
        assert not torch.autograd.grad(loss, logits)[0].any()


def test_the_z_loss_is_its_sum():
    logits = torch.randn(60, 3)
    rows = [row for row, counted in zip(logits.tolist(), MASK.tolist(), strict=True) if counted]
    expected = sum(math.log(sum(map(math.exp, row))) ** 2 for row in rows) / len(rows)
    assert z_loss(logits, MASK).item() == pytest.approx(expected, rel=1e-5)


def test_the_prior_is_the_probability_of_the_lm_group():
    gate = torch.randn(60)
    expected = -(1 - gate.sigmoid()).log()[MASK].mean()
    torch.testing.assert_close(lm_prior_loss(gate, MASK), expected)


def test_entropy_is_between_certain_and_uniform():
    logits = torch.tensor([[0.0, 0, 0, 0], [100, 0, 0, 0], [50, 50, -50, -50]])
    expected = torch.tensor([math.log(4), 0, math.log(2)])
    torch.testing.assert_close(routing_entropy(logits), expected)


def test_the_alarm_waits_and_rings_once():
    alarm = CollapseAlarm(threshold=0.1, patience=3)

    def rings(*shares: float) -> list[tuple[str, int]]:
        return alarm.step({"ffn.3": torch.tensor(shares)})

    assert rings(0.95, 0.05) == rings(0.95, 0.05) == []
    assert rings(0.5, 0.5) == []  # recovered: counted anew
    assert rings(0.95, 0.05) == rings(0.95, 0.05) == []
    assert rings(0.95, 0.05) == [("ffn.3", 1)]
    assert rings(0.95, 0.05) == []
    assert rings(0.5, 0.5) == []
    assert rings(0.01, 0.99) == rings(0.01, 0.99) == []
    assert rings(0.01, 0.99) == [("ffn.3", 0)]


def test_a_group_without_tokens_is_no_collapse():
    alarm = CollapseAlarm(threshold=0.1, patience=2)
    none, some = torch.zeros(2), torch.tensor([1.0, 0.0])
    assert alarm.step({"a": some, "b": none}) == []
    assert alarm.step({"a": none, "b": none}) == []
    assert alarm.step({"a": some, "b": none}) == [("a", 1)]


@pytest.mark.parametrize(("threshold", "patience"), [(0, 3), (1.5, 3), (0.1, 0)])
def test_an_alarm_that_cannot_ring_is_refused(threshold: float, patience: int):
    with pytest.raises(ValueError, match="share between 0 and 1 and at least 1 step"):
        CollapseAlarm(threshold, patience)
