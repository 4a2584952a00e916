"""Expert linears against a loop over rows, transformers' experts, and their kernels."""

from itertools import pairwise

import jaxtyping
import pytest
import torch
from helpers.targets import SHARED_MEMORY, compile_all
from torch import Tensor
from torch.library import opcheck
from torch.nn import functional
from transformers import MixtralConfig, Qwen3MoeConfig
from transformers.models.mixtral.modeling_mixtral import MixtralExperts
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from polylect.kernels.dispatch import combine, dispatch, gather
from polylect.kernels.expert_linear import (
    expert_linear,
    gathered_expert_linear,
    gathered_expert_linears,
)

OFFSETS = {
    "mixed": [0, 3, 4, 9],
    "equally many": [0, 3, 6, 9],
    "empty experts": [0, 0, 5, 5, 9, 9],
    "all to one": [0, 0, 9, 9],
    "rows of nobody": [0, 2, 2, 6],
    "no expert has a row": [0, 0, 0],
}
cases = pytest.mark.parametrize("name", OFFSETS)


def made(name: str, d_in: int = 5, d_out: int = 3, rows: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and transposed weights that need a gradient, in float64, and the offsets."""
    offsets = torch.tensor(OFFSETS[name])
    x = torch.randn(rows, d_in, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(len(offsets) - 1, d_out, d_in, dtype=torch.float64, requires_grad=True)
    return x, weight.transpose(1, 2), offsets


def by_row(x: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """Row for row, each looking for its expert."""
    rows = [torch.zeros(weight.shape[2], dtype=x.dtype) for _ in x]
    for expert, (begin, end) in enumerate(pairwise(offsets.tolist())):
        for row in range(begin, end):
            rows[row] = x[row] @ weight[expert]
    return torch.stack(rows)


@cases
def test_every_row_meets_its_expert(name: str) -> None:
    x, weight, offsets = made(name)
    torch.testing.assert_close(expert_linear(x, weight, offsets), by_row(x, weight, offsets))


@cases
def test_gradients(name: str) -> None:
    x, weight, offsets = made(name)
    inputs = (x, weight.detach().requires_grad_(), offsets)
    assert torch.autograd.gradcheck(expert_linear, inputs)


def test_gradient_of_a_gathered_linear() -> None:
    indices = torch.tensor([[0, 2], [2, -1], [2, 0]])
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    routes = dispatch(indices, torch.rand(3, 2), 3)

    def gathered(x: Tensor, weight: Tensor) -> Tensor:
        return gathered_expert_linear(x, weight, routes)

    assert torch.autograd.gradcheck(gathered, (x, weight))
    expected = expert_linear(gather(x, routes), weight, routes.offsets)
    assert torch.equal(gathered(x, weight), expected)


@pytest.mark.parametrize("learned", [(True, True), (False, True), (False, False)])
def test_several_gathered_linears_are_each_by_itself(learned: tuple[bool, bool]) -> None:
    routes = dispatch(torch.tensor([[0, 2], [2, -1], [2, 0]]), torch.rand(3, 2), 3)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weights = [torch.randn(3, 4, d_out, dtype=torch.float64) for d_out in (2, 5)]
    learning = [w.requires_grad_() for w, learns in zip(weights, learned, strict=True) if learns]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        together = gathered_expert_linears(x, weights, routes)
    assert any(t is x for t in kept) == any(learned)
    alone = [gathered_expert_linear(x, weight, routes) for weight in weights]
    sums = [sum((y.square().sum() for y in ys), start=x.new_zeros(())) for ys in (together, alone)]
    found_grads, expected = (torch.autograd.grad(total, (x, *learning)) for total in sums)
    for grad, wanted in zip((*together, *found_grads), (*alone, *expected), strict=True):
        torch.testing.assert_close(grad, wanted)


def test_no_rows() -> None:
    weight = torch.randn(2, 3, 4, requires_grad=True)
    y = expert_linear(torch.randn(0, 3), weight, torch.zeros(3, dtype=torch.long))
    y.sum().backward()
    assert y.shape == (0, 4) and not weight.grad.any()


def test_a_frozen_weight_keeps_no_input_and_gets_no_gradient() -> None:
    x, weight, offsets = made("mixed")
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = expert_linear(x, weight.detach(), offsets)
    assert not any(t.shape == x.shape for t in kept)
    y.sum().backward()  # a gradient without memory of its own
    expected = by_row(x, weight, offsets).sum()
    torch.testing.assert_close(x.grad, *torch.autograd.grad(expected, x))


@pytest.mark.parametrize("name", ["mixed", "equally many"])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 2, 0)])
def test_the_gradient_of_a_parameter_seen_in_another_order_is_not_copied(
    name: str, order: tuple[int, int, int]
) -> None:
    x, weight, offsets = made(name)
    back = [order.index(axis) for axis in range(3)]
    parameter = weight.detach().permute(back).contiguous().requires_grad_()
    y, toward = expert_linear(x, parameter.permute(order), offsets), torch.randn(9, 3).double()
    (grad,) = torch.autograd.grad(y, parameter, toward)
    assert grad.is_contiguous()
    expected = torch.autograd.grad(by_row(x, parameter.permute(order), offsets), parameter, toward)
    torch.testing.assert_close(grad, *expected)


@pytest.mark.parametrize("layout", ["strided", "expanded", "bfloat16", "float16"])
def test_any_strides_and_dtypes(layout: str) -> None:
    x, weight, offsets = (t.detach() for t in made("mixed"))
    if layout == "strided":
        x, weight = (
            torch.randn(18, 10).double()[::2, ::2],
            torch.randn(6, 5, 9).double()[::2, :, 6:],
        )
    elif layout == "expanded":
        x, weight = x[:1].expand(9, 5), weight[:1].expand(3, 5, 3)
    else:
        dtype = getattr(torch, layout)
        x, weight = x.to(dtype), weight.to(dtype)
    y = expert_linear(x, weight, offsets)
    near = {"rtol": 1e-2, "atol": 1e-2} if x.dtype.itemsize == 2 else {}
    expected = by_row(x.double(), weight.double(), offsets).to(x.dtype)
    torch.testing.assert_close(y, expected, **near)


def test_autocast_casts_as_for_a_linear() -> None:
    x, weight, offsets = made("mixed")
    x, weight = x.detach().float(), weight.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = expert_linear(x, weight, offsets)
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16 and weight.grad.dtype == torch.float32


@pytest.mark.parametrize(
    "change, says",
    [
        ({"x": torch.randn(9, 4).double()}, r"x \(9, 4\) and weight \(3, 5, 3\)"),
        ({"x": torch.randn(9, 5)}, "x is torch.float32 and weight torch.float64"),
        ({"offsets": torch.tensor([0, 3, 9])}, r"3 experts need \(4,\)"),
        ({"offsets": torch.tensor([0, 3, 2, 9])}, "must rise from 0 to at most the 9 rows"),
        ({"offsets": torch.tensor([0, 3, 4, 10])}, "must rise from 0 to at most the 9 rows"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, Tensor], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, offsets = (t.detach() for t in made("mixed"))
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    with pytest.raises(ValueError, match=says):
        expert_linear(**({"x": x, "weight": weight, "offsets": offsets} | change))


def test_tokens_of_another_dispatch_are_refused() -> None:
    routes = dispatch(torch.tensor([[0], [1]]), torch.rand(2, 1), 2)
    with pytest.raises(ValueError, match="x has 3 rows, but the dispatch is of 2 tokens"):
        gathered_expert_linear(torch.randn(3, 4), torch.randn(2, 4, 4), routes)
    with pytest.raises(ValueError, match="x has 3 rows, but the dispatch is of 2 tokens"):
        gathered_expert_linears(torch.randn(3, 4), [torch.randn(2, 4, 4)], routes)


@pytest.mark.parametrize("gathered", [False, True])
def test_the_operators_are_sound(gathered: bool) -> None:
    routes = dispatch(torch.tensor([[0, 2], [2, 1], [2, 0]]), torch.rand(3, 2), 4)
    weight = torch.randn(4, 2, 5).transpose(1, 2).requires_grad_()
    x = torch.randn(3 if gathered else 6, 5, requires_grad=True)
    index = (routes.tokens, routes.places) if gathered else (None, None)
    ops = torch.ops.polylect
    opcheck(ops.expert_linear.default, (x, weight, routes.offsets, *index))
    grad = torch.randn(6, 2)
    arguments = (x.detach(), grad, weight.detach(), routes.offsets, index[0])
    opcheck(ops.expert_linear_weight_grad.default, arguments)


SIZES = {"hidden_size": 12, "num_experts_per_tok": 2, "hidden_act": "silu"}
PEERS = {
    "Mixtral": (MixtralExperts, MixtralConfig(num_local_experts=4, intermediate_size=10, **SIZES)),
    "Qwen3-MoE": (
        Qwen3MoeExperts,
        Qwen3MoeConfig(num_experts=4, moe_intermediate_size=10, **SIZES),
    ),
}


@pytest.mark.parametrize("family", PEERS)
def test_experts_of_transformers(family: str) -> None:
    """Same output and gradients as their experts with the same weights and routing."""
    kind, config = PEERS[family]
    experts = kind(config)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(11, 12, requires_grad=True)
    weights, indices = torch.randn(11, 4).softmax(-1).topk(2)
    weights = weights.detach().requires_grad_()

    def ours(x: Tensor, weights: Tensor) -> Tensor:
        actual = dispatch(indices, weights, 4)
        both = gathered_expert_linear(x, experts.gate_up_proj.mT, actual)
        gate, up = both.chunk(2, dim=-1)
        y = expert_linear(functional.silu(gate) * up, experts.down_proj.mT, actual.offsets)
        return combine(y, actual)

    leaves = (x, weights, *experts.parameters())
    toward = torch.randn(11, 12)
    theirs = experts(x, indices, weights)
    torch.testing.assert_close(ours(x, weights), theirs, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(theirs, leaves, toward)
    for actual, grad in zip(
        torch.autograd.grad(ours(x, weights), leaves, toward), expected, strict=True
    ):
        torch.testing.assert_close(actual, grad, rtol=1e-5, atol=1e-5)


def parity(
    offsets: Tensor, d_in: int, d_out: int, dtype: torch.dtype, device: str, near: float
) -> None:
    """The kernels against the reference in float32, on inputs that are not contiguous."""
    from polylect.kernels.expert_linear import kernel, reference

    experts, rows = len(offsets) - 1, int(offsets[-1]) + 3
    tokens = torch.randint(rows // 2, (rows,), device=device)
    x = torch.randn(d_in, rows, device=device).to(dtype).t()
    weight = torch.randn(experts, d_out, d_in, device=device).to(dtype).transpose(1, 2) / d_in**0.5
    grad = torch.randn(rows, 2 * d_out, device=device).to(dtype)[:, ::2]
    offsets = offsets.to(device)
    for index in (None, tokens):
        actual = kernel.expert_linear(x, weight, offsets, index, None)
        exact = reference.expert_linear(x.float(), weight.float(), offsets, index, None)
        torch.testing.assert_close(actual, exact.to(dtype), rtol=near, atol=near)
        actual = kernel.weight_grad(x, grad, weight, offsets, index)
        exact = reference.weight_grad(x.float(), grad.float(), weight.float(), offsets, index)
        assert actual.stride() == weight.stride()
        torch.testing.assert_close(actual, exact.to(dtype), rtol=near, atol=near)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU")
@pytest.mark.usefixtures("poisoned")
@cases
def test_interpreted_kernels_agree(name: str) -> None:
    # single sums of up to 37 products, in another order
    parity(torch.tensor(OFFSETS[name]), 37, 21, torch.float32, "cpu", 1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU")
@pytest.mark.usefixtures("poisoned")
def test_interpreted_kernels_agree_over_several_tiles() -> None:
    parity(torch.tensor([0, 0, 70, 71, 130]), 70, 65, torch.float32, "cpu", 1e-4)


@pytest.mark.gpu
@cases
@pytest.mark.parametrize("d_in, d_out", [(37, 21), (256, 512)])
@pytest.mark.parametrize(
    # one rounding of the result, after sums in float32; weight gradients reach about 20
    "dtype, near",
    [(torch.float32, 1e-4), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)],
)
def test_kernels_agree(name: str, d_in: int, d_out: int, dtype: torch.dtype, near: float) -> None:
    parity(50 * torch.tensor(OFFSETS[name]), d_in, d_out, dtype, "cuda", near)


@pytest.mark.parametrize(
    "element, size, precision",
    [("*bf16", 2, "tf32"), pytest.param("*fp32", 4, "ieee", marks=pytest.mark.slow)],
)
def test_kernels_compile_for_gpus(element: str, size: int, precision: str) -> None:
    from polylect.kernels.expert_linear import kernel

    fixed = {"GATHER": True, "PRECISION": precision, **kernel.blocks(1000, 1024, 1024, size)}
    forward = {
        "kernel": "expert_linear_kernel",
        "types": dict.fromkeys(("x", "weight", "grad", "out"), element)
        | dict.fromkeys(("tokens", "offsets"), "*i64"),
        "constants": {**fixed, "GROUPS": 16, "x_column": 1, "weight_in": 1},
        "options": kernel.LAUNCH,
    }
    constants = {**fixed, "x_column": 1, "grad_column": 1, "out_in": 1}
    backward = forward | {"kernel": "weight_grad_kernel", "constants": constants}
    compiled = compile_all(kernel.__name__, [forward, backward])
    assert len(compiled) == 4
    assert all(case["shared"] <= SHARED_MEMORY[case["target"]] for case in compiled)
