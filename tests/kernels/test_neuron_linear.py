"""The linear layer with replaced rows or columns, and its gradients, against a dense copy."""

import inspect
from dataclasses import replace

import pytest
import torch
from helpers.replaced import BOTH, TOLERANCE, Case, assert_near, assert_same, make
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

from polylect.kernels.neuron_linear import neuron_linear, neuron_linear_in, patched_linear

ops = torch.ops.polylect

shapes = st.fixed_dictionaries(
    {
        "batch": st.sampled_from([(), (1,), (0,), (4,), (2, 3), (2, 0, 3)]),
        "d_out": st.integers(1, 9),
        "d_in": st.integers(1, 9),
        "n": st.integers(0, 9),
        "bias": st.booleans(),
    }
)


@BOTH
@settings(max_examples=24)
@given(shapes)
def test_is_the_linear_with_the_values_written_in(dim, shape):
    size = (shape["d_out"], shape["d_in"])[dim]
    assert_same(make(dim, **shape | {"n": min(shape["n"], size)}), TOLERANCE[torch.float64])


@BOTH
@pytest.mark.parametrize("n", [0, 4, 6])
def test_gradcheck(dim, n):
    case = make(dim, d_out=6, d_in=6, n=n)

    def ours(*learned):
        names = [name for name in ("x", "values", "own_bias") if getattr(case, name) is not None]
        return replace(case, **dict(zip(names, learned, strict=True))).ours()

    assert torch.autograd.gradcheck(ours, case.parameters)


@BOTH
def test_operators_keep_to_their_schemas(dim):
    case = make(dim, dtype=torch.float32)
    own_bias = case.own_bias if dim == 0 else None
    plain = (case.weight, case.index, case.values)
    opcheck(ops.neuron_linear.default, (case.x, *plain, case.bias, own_bias, dim))
    x, values, grad = case.x.detach(), case.values.detach(), torch.randn(5, 7)
    opcheck(ops.neuron_linear_input_grad.default, (grad, case.weight, case.index, values, dim))
    opcheck(ops.neuron_linear_values_grad.default, (grad, x, case.index, values, dim))


@BOTH
def test_any_strides_are_welcome(dim):
    case = make(dim, batch=(4, 5), d_out=8, d_in=6)
    case.x = torch.randn(6, 5, 4, dtype=torch.float64).permute(2, 1, 0).requires_grad_()
    case.weight = torch.randn(6, 8, dtype=torch.float64).t()
    case.values = case.values.detach().t().contiguous().t().requires_grad_()
    assert_same(case, TOLERANCE[torch.float64])
    case.ours().sum().backward()  # an expanded gradient
    assert_near(case.x.grad, torch.autograd.grad(case.expected().sum(), case.x)[0], 1e-12)


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masters_are_float32_and_so_is_their_gradient(dim, dtype):
    case = make(dim, batch=(33,), d_out=24, d_in=20, n=5, dtype=torch.float32)
    for name in ("weight", "bias", "x"):
        setattr(case, name, getattr(case, name).detach().to(dtype))
    case.x.requires_grad_()
    assert case.values.dtype == torch.float32
    assert_same(case, TOLERANCE[dtype])


@BOTH
def test_autocast_computes_in_its_dtype(dim):
    case = make(dim, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(case, TOLERANCE[torch.bfloat16])


@BOTH
def test_only_what_is_learned_has_a_gradient(dim):
    case = make(dim)
    case.x = case.x.detach()
    case.ours().sum().backward()
    assert case.x.grad is None
    assert case.values.grad.shape == case.values.shape
    assert case.weight.grad is None
    assert case.bias.grad is None
    with torch.no_grad():
        assert not case.ours().requires_grad


class LargestTensor(TorchDispatchMode):
    """Entries of the largest tensor that is made inside."""

    def __init__(self, known: set[int]) -> None:
        super().__init__()
        self.known, self.entries = known, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in self.known:
            self.entries = max(self.entries, result.untyped_storage().nbytes() // 4)
        return result


@BOTH
@pytest.mark.parametrize("n", [20, 300])
def test_no_gradient_of_the_whole_weight_is_ever_made(dim, n):
    case = make(dim, batch=(64,), d_out=1024, d_in=1280, n=n, dtype=torch.float32)
    grad = torch.randn(64, 1024)
    y = case.ours()
    tensors = (case.x, case.weight, case.values, grad)
    with LargestTensor({t.untyped_storage().data_ptr() for t in tensors}) as largest:
        y.backward(grad)
    assert 0 < largest.entries <= case.weight.numel() // 2


def test_a_wrong_argument_is_named_with_its_shape():
    # unwrapped: in tests the annotations would refuse wrong shapes first
    rows, columns = inspect.unwrap(neuron_linear), inspect.unwrap(neuron_linear_in)
    x, weight, index = torch.randn(5, 6), torch.randn(7, 6), torch.tensor([2, 0])
    values, values_in = torch.randn(2, 6), torch.randn(7, 2)
    wrong = {
        r"x has shape \(5, 7\), expected \(\*batch, 6\)": lambda: rows(
            torch.randn(5, 7), weight, index, values
        ),
        r"weight has shape \(6,\), expected \(d_out, d_in\)": lambda: rows(
            x, weight[0], index, values
        ),
        r"rows has shape \(1, 2\), expected \(n,\)": lambda: rows(x, weight, index[None], values),
        r"columns has dtype torch.bool": lambda: columns(x, weight, index > 0, values_in),
        r"values has shape \(7, 2\), expected \(2, 6\) for 2 rows": lambda: rows(
            x, weight, index, values_in
        ),
        r"values has shape \(2, 6\), expected \(7, 2\) for 2 columns": lambda: columns(
            x, weight, index, values
        ),
        r"bias has shape \(2,\), expected \(7,\)": lambda: rows(
            x, weight, index, values, torch.randn(2)
        ),
        r"row_bias has shape \(7,\), expected \(2,\)": lambda: rows(
            x, weight, index, values, torch.randn(7), torch.randn(7)
        ),
        r"weight requires a gradient": lambda: rows(
            x, torch.randn(7, 6, requires_grad=True), index, values
        ),
        r"bias requires a gradient": lambda: columns(
            x, weight, index, values_in, torch.randn(7, requires_grad=True)
        ),
        r"rows has entries from 0 to 7, expected from 0 to 6": lambda: rows(
            x, weight, torch.tensor([7, 0]), values
        ),
        r"columns has entries from -1 to 0, expected from 0 to 5": lambda: columns(
            x, weight, torch.tensor([0, -1]), values_in
        ),
        r"rows has an entry twice": lambda: rows(x, weight, torch.tensor([3, 3]), values),
    }
    for message, call in wrong.items():
        with pytest.raises(ValueError, match=message):
            call()


class Written(Case):
    """A case whose index is the end, with two tensors of values, which the weight holds."""

    def ours(self) -> Tensor:
        with torch.no_grad():
            weight = self.weight.index_copy(self.dim, self.index, self.values.to(self.weight.dtype))
            bias, biases = self.bias, ()
            if self.own_bias is not None:
                bias = bias.index_copy(0, self.index, self.own_bias.to(bias.dtype))
        sizes = [1, len(self.index) - 1]
        if self.own_bias is not None:
            biases = self.own_bias.split(sizes)
        values = self.values.split(sizes, self.dim)
        return patched_linear(self.x, weight, values, self.dim, bias, biases)


def written(dim, **shape) -> Written:
    case = make(dim, d_out=9, d_in=8, n=4, **shape)
    case.index = torch.arange((9, 8)[dim] - 4, (9, 8)[dim])
    return Written(**vars(case))


@BOTH
@pytest.mark.parametrize("batch", [(), (5,), (0,), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_that_are_written_learn_as_replacing_ones(dim, batch, bias):
    case = written(dim, batch=batch, bias=bias)
    assert_same(case, TOLERANCE[torch.float64])
    with torch.no_grad():
        assert_near(case.ours(), case.expected(), 1e-12)
    case.x = case.x.detach()
    assert_same(case, TOLERANCE[torch.float64])


@BOTH
def test_written_values_are_masters_of_a_weight_of_half_precision(dim):
    case = written(dim, batch=(33,), dtype=torch.float32)
    for name in ("weight", "bias", "x"):
        setattr(case, name, getattr(case, name).detach().bfloat16())
    case.x.requires_grad_()
    assert_same(case, TOLERANCE[torch.bfloat16])


def test_a_weight_written_to_before_the_backward_pass_is_refused():
    values = torch.randn(2, 6, requires_grad=True)
    weight = torch.cat([torch.randn(3, 6), values.detach()])
    y = patched_linear(torch.randn(4, 6, requires_grad=True), weight, [values], 0)
    weight[3:] = 0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_values_that_are_no_part_of_the_weight_are_refused():
    x, weight = torch.randn(4, 6), torch.randn(5, 6)
    for wrong, axis in ((torch.randn(2, 5), 0), (torch.randn(6, 6), 0), (torch.randn(2, 6), 1)):
        with pytest.raises(ValueError, match="cannot be the last"):
            patched_linear(x, weight, [wrong], axis)


@pytest.mark.parametrize("share", [0.3, 0.9], ids=["some", "nearly_all"])
@pytest.mark.parametrize("lines", [0, 1, 3], ids=["unscaled", "a_line", "a_line_each"])
def test_gradients_of_patched_rows_are_those_of_the_whole_weight(share: float, lines: int) -> None:
    """Scaled by row of the batch: the sum of what each row of the batch gives, times its line."""
    generator = torch.Generator().manual_seed(0)
    batch, length, d_in, d_out = 3, 5, 7, 20
    index = torch.randperm(d_out, generator=generator)[: round(share * d_out)]
    x = torch.randn(batch, length, d_in, generator=generator, dtype=torch.float64)
    weight = torch.randn(d_out, d_in, generator=generator, dtype=torch.float64)
    bias = torch.randn(d_out, generator=generator, dtype=torch.float64)
    out = torch.randn(batch, length, d_out, generator=generator, dtype=torch.float64)
    sizes = [2, len(index) - 2]
    values = [v.clone().requires_grad_() for v in weight[index].split(sizes)]
    biases = [b.clone().requires_grad_() for b in bias[index].split(sizes)]
    scale = torch.rand(lines, len(index), generator=generator).double() if lines else None
    y = patched_linear(x, weight, values, 0, bias, biases, index, scale)
    (y * out).sum().backward()
    by_row = torch.ones(batch, len(index)) if scale is None else scale.expand(batch, -1)
    own = out[..., index] * by_row[:, None]
    expected = torch.einsum("bto,bti->oi", own, x).split(sizes)
    for found, gradient in zip(values, expected, strict=True):
        torch.testing.assert_close(found.grad, gradient)
    for found, gradient in zip(biases, own.sum((0, 1)).split(sizes), strict=True):
        torch.testing.assert_close(found.grad, gradient)
