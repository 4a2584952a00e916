"""The fused step against the definition, and the definition against a loop over rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from polylect.layers.context import RowGroups
from polylect.layers.lora.low_rank import (
    FrozenLinearUpdate,
    Plan,
    add_update,
    gather_factors,
    stack_factors,
)

NAMES = ("", "de", "fr", "ta")


def make(names, ranks, tokens=3, width=5, out=4, bias=True, dtype=torch.float64):
    """A batch with its adapters: x, weight, bias, plan, the A and the B of the adapters in use."""
    scaling = {name: 0.5 + rank for name, rank in ranks.items()}
    x = torch.randn(len(names), tokens, width, dtype=dtype, requires_grad=True)
    weight = torch.randn(out, width, dtype=dtype)
    plan = Plan.from_groups(RowGroups.from_names(tuple(names)), scaling, x)
    a = [torch.randn(ranks[n], width, dtype=dtype, requires_grad=True) for n in plan.adapters]
    b = [torch.randn(out, ranks[n], dtype=dtype, requires_grad=True) for n in plan.adapters]
    return x, weight, torch.randn(out, dtype=dtype) if bias else None, plan, a, b


def by_rows(names, ranks, x, weight, bias, plan, a, b):
    """The oracle: one row after the other."""
    rows = []
    for name, row in zip(names, x, strict=True):
        y = row @ weight.T + (0 if bias is None else bias)
        if name in plan.adapters:
            k = plan.adapters.index(name)
            y = y + (0.5 + ranks[name]) * (row @ a[k].T) @ b[k].T
        rows.append(y)
    return torch.stack(rows)


batches = st.lists(st.sampled_from(NAMES), min_size=1, max_size=8).filter(any)
some_ranks = st.fixed_dictionaries({name: st.integers(1, 4) for name in NAMES[1:]})


@settings(max_examples=40)
@given(batches, some_ranks, st.booleans())
def test_fused_step_and_its_gradients_are_the_loop_over_rows(names, ranks, bias):
    x, weight, bias, plan, a, b = make(names, ranks, bias=bias)
    y = FrozenLinearUpdate.apply(x, weight, bias, plan.scaling, plan.order, *a, *b)
    expected = by_rows(names, ranks, x, weight, bias, plan, a, b)
    torch.testing.assert_close(y, expected)
    direction = torch.randn_like(y)
    ours = torch.autograd.grad(y, [x, *a, *b], direction)
    theirs = torch.autograd.grad(expected, [x, *a, *b], direction)
    for actual, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(actual, want)


@settings(max_examples=20)
@given(batches, some_ranks)
def test_definition_is_the_loop_over_rows(names, ranks):
    x, weight, bias, plan, a, b = make(names, ranks)
    groups, order = len(plan.order), torch.tensor(plan.order)
    y = functional.linear(x, weight, bias)
    result = add_update(
        y.view(groups, -1, 4),
        x.view(groups, -1, 5),
        stack_factors(a, 0, x.dtype)[order],
        stack_factors(b, 1, x.dtype)[order],
        plan.scaling,
    )
    expected = by_rows(names, ranks, x, weight, bias, plan, a, b)
    torch.testing.assert_close(result.view_as(expected), expected)


@pytest.mark.parametrize("names", [["de"], ["de", "fr", "", "de"], ["de", "de", "ta", "ta"]])
def test_gradcheck(names):
    x, weight, bias, plan, a, b = make(names, {"de": 2, "fr": 1, "ta": 3})
    assert torch.autograd.gradcheck(
        FrozenLinearUpdate.apply, (x, weight, bias, plan.scaling, plan.order, *a, *b)
    )


def test_only_what_needs_a_gradient_gets_one():
    x, weight, bias, plan, a, b = make(["de", "fr"], {"de": 2, "fr": 2})
    x.requires_grad_(False)
    a[0].requires_grad_(False)
    y = FrozenLinearUpdate.apply(x, weight, bias, plan.scaling, plan.order, *a, *b)
    y.sum().backward()
    assert x.grad is None
    assert a[0].grad is None
    assert all(f.grad is not None for f in (a[1], *b))


def test_a_transposed_input_and_an_expanded_gradient_are_welcome():
    x, weight, bias, plan, a, b = make(["de", "fr"], {"de": 2, "fr": 3}, tokens=4)
    other = x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    for each in (x, other):
        y = FrozenLinearUpdate.apply(each, weight, bias, plan.scaling, plan.order, *a, *b)
        y.sum().backward()
    torch.testing.assert_close(x.grad, other.grad)


def test_lower_ranks_are_filled_up_with_zeros():
    factors = [torch.ones(1, 3), torch.ones(2, 3)]
    torch.testing.assert_close(
        gather_factors(factors, (1, 0, 1), 0, torch.float32),
        torch.tensor([[[1.0] * 3, [1.0] * 3], [[1.0] * 3, [0.0] * 3], [[1.0] * 3, [1.0] * 3]]),
    )


def test_a_row_does_not_feel_its_neighbours():
    ranks = {"de": 4, "fr": 2, "ta": 3}
    x, weight, bias, plan, a, b = make(["de", "fr", "ta", ""], ranks, dtype=torch.float32)
    y = FrozenLinearUpdate.apply(x, weight, bias, plan.scaling, plan.order, *a, *b)
    alone = Plan.from_groups(RowGroups.from_names(("fr",)), {"fr": 2.5}, x)
    row = FrozenLinearUpdate.apply(x[1:2], weight, bias, alone.scaling, alone.order, a[1], b[1])
    torch.testing.assert_close(y[1:2], row, atol=1e-6, rtol=1e-6)
