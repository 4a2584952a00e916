"""A linear layer with replaced rows or columns, and a copy of the weight with them written in."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from polylect.kernels.neuron_linear import neuron_linear, neuron_linear_in, reference

# Relative to the largest entry. float32 and float64: order of summation; 16 bits: a rounding or
# three of the result.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 3e-6,
    torch.float16: 3e-3,
    torch.bfloat16: 2e-2,
}
BOTH = pytest.mark.parametrize("dim", [0, 1], ids=reference.NAMES)


@dataclass
class Case:
    """The arguments of either function."""

    x: Tensor
    weight: Tensor
    index: Tensor
    values: Tensor
    dim: int
    bias: Tensor | None = None
    own_bias: Tensor | None = None

    @property
    def arguments(self) -> tuple:
        own_bias = (self.own_bias,) if self.dim == 0 else ()
        return (self.x, self.weight, self.index, self.values, self.bias, *own_bias)

    @property
    def parameters(self) -> list[Tensor]:
        tensors = (self.x, self.values, self.own_bias)
        return [t for t in tensors if t is not None and t.requires_grad]

    def ours(self) -> Tensor:
        return (neuron_linear, neuron_linear_in)[self.dim](*self.arguments)

    def expected(self) -> Tensor:
        """One row or column after the other written into a copy."""
        weight, values = self.weight.clone(), self.values.to(self.weight.dtype)
        bias = self.bias
        if self.own_bias is not None:
            bias = self.weight.new_zeros(len(weight)) if bias is None else bias.clone()
        for position, number in enumerate(self.index.tolist()):
            if self.dim == 0:
                weight[number] = values[position]
            else:
                weight[:, number] = values[:, position]
            if self.own_bias is not None:
                bias[number] = self.own_bias[position]
        return functional.linear(self.x, weight, bias)


def make(
    dim, batch=(5,), d_out=7, d_in=6, n=3, dtype=torch.float64, bias=True, device="cpu"
) -> Case:
    def random(*shape, learned=False):
        return torch.randn(*shape, dtype=dtype, device=device).requires_grad_(learned)

    return Case(
        x=random(*batch, d_in, learned=True),
        weight=random(d_out, d_in),
        index=torch.randperm((d_out, d_in)[dim], device=device)[:n],
        values=random(*((n, d_in) if dim == 0 else (d_out, n)), learned=True),
        dim=dim,
        bias=random(d_out) if bias else None,
        own_bias=random(n, learned=True) if bias and dim == 0 else None,
    )


def assert_near(ours: Tensor, expected: Tensor, tolerance: float) -> None:
    largest = expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(
        ours.double(), expected.double(), rtol=0, atol=tolerance * max(1.0, largest)
    )


def assert_same(case: Case, tolerance: float) -> None:
    """Outputs and gradients are those of the copy."""
    ours, expected = case.ours(), case.expected()
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    assert_near(ours, expected, tolerance)
    direction = torch.randn_like(expected)
    grads = [
        # without rows the copy does not depend on the values
        torch.autograd.grad(
            y, case.parameters, direction, allow_unused=True, materialize_grads=True
        )
        for y in (ours, expected)
    ]
    for grad, expected_grad, tensor in zip(*grads, case.parameters, strict=True):
        assert grad.dtype == tensor.dtype
        assert_near(grad, expected_grad, tolerance)
