"""A frozen linear layer whose last rows or columns are trained and stand in the weight already."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def patched_linear(
    x: Float[Tensor, "*batch d_in"],
    weight: Float[Tensor, "d_out d_in"],
    values: Sequence[Tensor],
    axis: int,
    bias: Float[Tensor, " d_out"] | None = None,
    row_biases: Sequence[Tensor] = (),
) -> Float[Tensor, "*batch d_out"]:
    """Return the plain linear layer.

    Differentiable in x, and in values and row_biases as parts of it.

    Gradients of the values are formed for them alone, in their dtype. A weight that is written to
    between forward and backward pass is refused by autograd, as any other.

    Args:
        x: in the dtype of `weight`.
        weight: frozen. Its last rows (`axis` 0) or columns (1) must be `values`, one tensor after
            the other, rounded to its dtype; that is not checked.
        values: (n, d_in) or (d_out, n) each.
        bias: frozen; its last entries must be `row_biases`.
        row_biases: (n,) each, or none at all; for rows only.

    Raises:
        ValueError: the values do not fit into the weight.
    """
    fits = all(v.shape[1 - axis] == weight.shape[1 - axis] for v in values)
    if not fits or sum(v.shape[axis] for v in values) > weight.shape[axis]:
        shapes = ", ".join(str(tuple(v.shape)) for v in values)
        raise ValueError(
            f"values of the shapes {shapes} cannot be the last {('rows', 'columns')[axis]} of a "
            f"weight of shape {tuple(weight.shape)}"
        )
    flat = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled():
        y = _WrittenLinear.apply(flat, weight, bias, axis, len(values), *values, *row_biases)
    else:
        y = functional.linear(flat, weight, bias)
    return y.view(*x.shape[:-1], weight.shape[0])


class _WrittenLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        axis: int,
        count: int,
        *parameters: Tensor,
    ) -> Tensor:
        values, biases = parameters[:count], parameters[count:]
        ctx.save_for_backward(x if any(ctx.needs_input_grad[5:]) else None, weight)
        ctx.axis, ctx.sizes = axis, [v.shape[axis] for v in values]
        ctx.dtypes, ctx.bias_dtypes = [v.dtype for v in values], [b.dtype for b in biases]
        return functional.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x = grad @ weight if ctx.needs_input_grad[0] else None
        if x is None:
            return for_x, *[None] * (len(ctx.needs_input_grad) - 1)
        n = sum(ctx.sizes)
        if ctx.axis == 0:
            grad = _last(grad, n)
        else:
            x = _last(x, n)
        for_values = (grad.t() @ x).split(ctx.sizes, ctx.axis)
        parameter_grads = [g.to(dtype) for g, dtype in zip(for_values, ctx.dtypes, strict=True)]
        if ctx.bias_dtypes:
            for_biases = grad.sum(0).split(ctx.sizes)
            parameter_grads += [g.to(d) for g, d in zip(for_biases, ctx.bias_dtypes, strict=True)]
        return for_x, None, None, None, None, *parameter_grads


def _last(rows: Tensor, n: int) -> Tensor:
    return rows.narrow(1, rows.shape[1] - n, n)
