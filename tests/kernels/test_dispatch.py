"""Dispatch against loops over tokens and slots, its invariants, and its kernels."""

import pytest
import torch
from helpers.targets import SHARED_MEMORY, compile_all
from torch import Tensor
from torch.library import opcheck

from polylect.kernels.dispatch import Dispatch, combine, dispatch, gather, reference

EXPERTS = 5
LAYOUTS = {
    "mixed": [[0, 3], [3, 1], [4, 0], [1, 3], [3, 4], [0, 1], [3, 0]],
    "all to one": [[2], [2], [2]],
    "three choices": [[0, 1, 2], [4, 2, 0], [1, 0, 4]],
    "nobody here and there": [[0, -1], [-1, -1], [4, 0], [-1, 3]],
    "nobody at all": [[-1, -1], [-1, -1]],
}
cases = pytest.mark.parametrize("layout", LAYOUTS)


def made(layout: str) -> tuple[Tensor, Tensor, Dispatch]:
    indices = torch.tensor(LAYOUTS[layout])
    weights = torch.rand(indices.shape, dtype=torch.float64, requires_grad=True)
    return indices, weights, dispatch(indices, weights, EXPERTS)


def untrimmed(layout: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gates, tokens, offsets and places as on a GPU, where slots of nobody have rows."""
    indices, weights, _ = made(layout)
    order, offsets, places = reference.expert_order(indices, EXPERTS)
    return weights.detach().flatten()[order], order // indices.shape[1], offsets, places


@cases
def test_rows_are_sorted_by_expert_and_in_order_within_one(layout: str) -> None:
    indices, weights, routes = made(layout)
    k = indices.shape[1]
    slots = [
        (expert, slot)
        for expert in range(EXPERTS)
        for slot in range(indices.numel())
        if indices.flatten()[slot] == expert
    ]
    assert routes.order.tolist() == [slot for _, slot in slots]
    assert routes.tokens.tolist() == [slot // k for _, slot in slots]
    assert routes.gates.tolist() == [weights.flatten().tolist()[slot] for _, slot in slots]
    for expert in range(EXPERTS):
        rows = range(int(routes.offsets[expert]), int(routes.offsets[expert + 1]))
        assert [slots[row][0] for row in rows] == [expert] * int((indices == expert).sum())
    for row, (_, slot) in enumerate(slots):
        assert routes.places.flatten()[slot] == row


@cases
def test_combine_is_the_weighted_sum_of_each_tokens_rows(layout: str) -> None:
    indices, weights, routes = made(layout)
    y = torch.randn(len(routes.order), 3, dtype=torch.float64)
    for weighted in (True, False):
        total = torch.zeros(len(indices), 3, dtype=torch.float64)
        for row, slot in enumerate(routes.order.tolist()):
            token, choice = divmod(slot, indices.shape[1])
            total[token] += y[row] * (weights[token, choice].detach() if weighted else 1)
        torch.testing.assert_close(combine(y, routes, weighted=weighted).detach(), total)


@cases
def test_gather_and_combine_are_transposes(layout: str) -> None:
    _, _, routes = made(layout)
    x = torch.randn(len(routes.places), 4, dtype=torch.float64)
    y = torch.randn(len(routes.order), 4, dtype=torch.float64)
    rows = gather(x, routes)
    assert torch.equal(rows, x[routes.tokens])
    torch.testing.assert_close((rows * y).sum(), (x * combine(y, routes, weighted=False)).sum())


@cases
@pytest.mark.parametrize("weighted", [True, False])
def test_gradients_reach_tokens_rows_and_weights(layout: str, weighted: bool) -> None:
    indices, weights, _ = made(layout)
    x = torch.randn(len(indices), 3, dtype=torch.float64, requires_grad=True)
    scale = torch.rand(3, dtype=torch.float64)

    def there_and_back(x: Tensor, weights: Tensor) -> Tensor:
        routes = dispatch(indices, weights, EXPERTS)
        return combine(torch.sin(gather(x, routes)) * scale, routes, weighted=weighted)

    assert torch.autograd.gradcheck(there_and_back, (x, weights))


NEARLY_EVEN = torch.tensor([[0, 1], [2, 3], [4, 0], [-1, 1]])


def test_experts_may_share_rows_of_nobody_so_that_all_have_equally_many() -> None:
    weights = torch.rand(4, 2, dtype=torch.float64)
    routes = dispatch(NEARLY_EVEN, weights, EXPERTS, spare=1)
    assert routes.offsets.tolist() == [0, 2, 4, 6, 8, 10]
    for slot, expert in enumerate(NEARLY_EVEN.flatten().tolist()):
        row = int(routes.places.flatten()[slot])
        if expert < 0:
            assert row >= 10
        else:
            assert 2 * expert <= row < 2 * expert + 2 and routes.order[row] == slot
            assert routes.gates[row] == weights.flatten()[slot]
    assert int(routes.gates.count_nonzero()) == 7
    y = torch.randn(10, 3, dtype=torch.float64)
    of_slots = y[routes.places.clamp(max=9)] * (NEARLY_EVEN >= 0).unsqueeze(2)
    for weighted in (True, False):
        expected = of_slots * weights.unsqueeze(2) if weighted else of_slots
        torch.testing.assert_close(combine(y, routes, weighted=weighted), expected.sum(1))


def test_no_gradient_comes_from_rows_of_nobody() -> None:
    def there_and_back(x: Tensor, weights: Tensor) -> Tensor:
        routes = dispatch(NEARLY_EVEN, weights, EXPERTS, spare=1)
        return combine(torch.sin(gather(x, routes)), routes)

    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(there_and_back, (x, weights))


@pytest.mark.parametrize(
    ("indices", "spare"),
    [([[0, 1], [2, 3], [4, 0], [-1, 1]], 0), ([[0], [1], [2], [3], [4]], 9), ([[0], [0], [1]], 9)],
)
def test_rows_stay_as_many_where_evening_is_idle_or_takes_too_many(
    indices: list[list[int]], spare: int
) -> None:
    indices = torch.tensor(indices)
    routes = dispatch(indices, torch.rand(indices.shape), EXPERTS, spare=spare)
    assert len(routes.order) == int((indices >= 0).sum())


def test_no_tokens() -> None:
    routes = dispatch(torch.empty(0, 2, dtype=torch.long), torch.empty(0, 2), EXPERTS)
    assert routes.offsets.tolist() == [0] * (EXPERTS + 1)
    assert combine(gather(torch.empty(0, 3), routes), routes).shape == (0, 3)


def test_the_same_numbers_every_time() -> None:
    indices = torch.stack([torch.randperm(8)[:3] for _ in range(400)])
    weights = torch.rand(400, 3)
    y = torch.randn(1200, 16)
    once, again = (combine(y, dispatch(indices, weights, 8)) for _ in range(2))
    assert torch.equal(once, again)


def test_half_precision_is_summed_in_single() -> None:
    indices, weights, _ = made("three choices")
    routes = dispatch(indices, weights.detach().float(), EXPERTS)
    y = torch.randn(9, 16).bfloat16()
    exact = combine(y.float(), routes).bfloat16()
    assert torch.equal(combine(y, routes), exact)


@pytest.mark.parametrize(
    "indices, weights, says",
    [
        (torch.tensor([[0, 5]]), torch.ones(1, 2), "between -1 .nobody. and 4"),
        (torch.tensor([[-2, 0]]), torch.ones(1, 2), "from -2 to 0"),
    ],
)
def test_an_unknown_expert_is_refused(indices: Tensor, weights: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        dispatch(indices, weights, EXPERTS)


def test_rows_of_another_dispatch_are_refused() -> None:
    _, _, routes = made("mixed")
    with pytest.raises(ValueError, match=r"combine: y has the shape \(13, 4\).*\(14, d\)"):
        combine(torch.randn(13, 4), routes)
    with pytest.raises(ValueError, match=r"gather: x .* 7 tokens"):
        gather(torch.randn(8, 4), routes)


@pytest.mark.parametrize("layout", ["mixed", "nobody here and there"])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_operators_are_sound(layout: str, weighted: bool) -> None:
    gates, tokens, offsets, places = untrimmed(layout)
    gates = gates.float().requires_grad_() if weighted else None
    x, y = torch.randn(len(places), 4), torch.randn(len(tokens), 4)
    ops = torch.ops.polylect
    opcheck(ops.gather.default, (x.requires_grad_(), gates, tokens, offsets, places))
    opcheck(ops.combine.default, (y.requires_grad_(), gates, tokens, offsets, places))
    opcheck(ops.gate_grad.default, (y.detach(), x.detach(), tokens, offsets))


def parity(layout: str, d: int, dtype: torch.dtype, device: str, tolerance: float) -> None:
    """The kernels against the reference, on inputs that are not contiguous."""
    from polylect.kernels.dispatch import kernel

    gates, *index = (t.to(device) for t in untrimmed(layout))
    tokens, offsets, places = index
    x = torch.randn(d, len(places), device=device).to(dtype).t()
    y = torch.randn(len(tokens), 2 * d, device=device).to(dtype)[:, ::2]
    near = {"rtol": tolerance, "atol": tolerance}
    for given in (None, gates.float()):
        for name, rows in (("gather", x), ("combine", y)):
            actual = getattr(kernel, name)(rows, given, *index)
            exact = getattr(reference, name)(rows, given, *index)
            torch.testing.assert_close(actual, exact, **near)
    actual = kernel.gate_grad(y, x, tokens, offsets)
    torch.testing.assert_close(actual, reference.gate_grad(y, x, tokens, offsets), **near)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU")
@pytest.mark.usefixtures("poisoned")
@cases
@pytest.mark.parametrize("d", [1, 37])
def test_interpreted_kernels_agree(layout: str, d: int) -> None:
    parity(layout, d, torch.float32, "cpu", 1e-6)


@pytest.mark.gpu
@cases
@pytest.mark.parametrize("d", [1, 37, 2048])
@pytest.mark.parametrize(
    # one rounding of the result, after sums in float32
    "dtype, tolerance",
    [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)],
)
def test_kernels_agree(layout: str, d: int, dtype: torch.dtype, tolerance: float) -> None:
    parity(layout, d, dtype, "cuda", tolerance)


def test_kernels_compile_for_gpus() -> None:
    types = dict.fromkeys(("x", "y", "grad", "out"), "*bf16") | {"gates": "*fp32"}
    types |= dict.fromkeys(("tokens", "places", "offsets"), "*i64")
    fixed = {"WEIGHTED": True, "PRECISE": "tl.float32", "BLOCK": 1024}
    sums = {"PRECISE": "tl.float32", "BLOCK": 1024, "y_column": 1, "grad_column": 1}
    compiled = compile_all(
        "polylect.kernels.dispatch.kernel",
        [
            {"kernel": "gather_kernel", "types": types, "constants": {**fixed, "x_column": 1}},
            {"kernel": "combine_kernel", "types": types, "constants": {**fixed, "y_column": 1}},
            {"kernel": "gate_grad_kernel", "types": types | {"out": "*fp32"}, "constants": sums},
        ],
    )
    assert len(compiled) == 6
    assert all(case["shared"] <= SHARED_MEMORY[case["target"]] for case in compiled)
