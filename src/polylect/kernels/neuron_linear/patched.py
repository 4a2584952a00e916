"""A frozen linear layer whose trained rows or columns stand in the weight already."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
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
    index: Int[Tensor, " n"] | None = None,
    scale: Float[Tensor, "rows n"] | None = None,
) -> Float[Tensor, "*batch d_out"]:
    """Return the plain linear layer.

    Differentiable in x, and in values and row_biases as parts of it.

    Gradients of the values are formed for them alone, in their dtype. A weight that is written to
    between forward and backward pass is refused by autograd, as any other.

    Args:
        x: in the dtype of `weight`.
        weight: frozen. Its rows (`axis` 0) or columns (1) `index` must be `values`, one tensor
            after the other, rounded to its dtype; that is not checked.
        values: (n, d_in) or (d_out, n) each.
        bias: frozen; its entries `index` must be `row_biases`.
        row_biases: (n,) each, or none at all; for rows only.
        index: of all values; None for the last ones.
        scale: what the gradients of values and biases are multiplied by before they are summed up
            over the rows of x: one line for all of them, or one for each. The gradient of x is as
            without it.

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
        parameters = (*values, *row_biases)
        settings = (axis, index, scale, len(values))
        y = _WrittenLinear.apply(flat, weight, bias, *settings, *parameters)
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
        index: Tensor | None,
        scale: Tensor | None,
        count: int,
        *parameters: Tensor,
    ) -> Tensor:
        values, biases = parameters[:count], parameters[count:]
        kept = x if any(ctx.needs_input_grad[_BEFORE:]) else None
        ctx.save_for_backward(kept, weight, index, scale)
        ctx.axis, ctx.sizes = axis, [v.shape[axis] for v in values]
        ctx.dtypes, ctx.bias_dtypes = [v.dtype for v in values], [b.dtype for b in biases]
        return functional.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, index, scale = ctx.saved_tensors
        for_x = grad @ weight if ctx.needs_input_grad[0] else None
        if x is None:
            return for_x, *[None] * (len(ctx.needs_input_grad) - 1)
        for_matrix, for_bias = _own_gradients(ctx, grad, x, index, scale)
        for_values = for_matrix.split(ctx.sizes, ctx.axis)
        parameter_grads = [g.to(dtype) for g, dtype in zip(for_values, ctx.dtypes, strict=True)]
        if for_bias is not None:
            for_biases = for_bias.split(ctx.sizes)
            parameter_grads += [g.to(d) for g, d in zip(for_biases, ctx.bias_dtypes, strict=True)]
        wanted = ctx.needs_input_grad[_BEFORE:]
        parameter_grads = [
            g if own else None for g, own in zip(parameter_grads, wanted, strict=True)
        ]
        return for_x, *[None] * (_BEFORE - 1), *parameter_grads


_BEFORE = 7  # arguments of `forward` before the parameters
_NEARLY_ALL = 0.75  # of the rows; from there on it is cheaper to choose from the whole gradient


def _own_gradients(
    ctx: Any, grad: Tensor, x: Tensor, index: Tensor | None, scale: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of all values as one matrix, and of their biases, if there are any."""
    n = sum(ctx.sizes)
    line = scale[0] if scale is not None and len(scale) == 1 else None  # can wait for the product
    by_row = scale if line is None else None
    whole = ctx.axis == 0 and index is not None and by_row is None
    if whole and n > _NEARLY_ALL * grad.shape[1]:
        matrix = (grad.t() @ x).index_select(0, index)
        bias = grad.sum(0).index_select(0, index) if ctx.bias_dtypes else None
    else:
        if ctx.axis == 0:
            grad = _scaled(_chosen(grad, n, index), by_row)
        else:
            x = _scaled(_chosen(x, n, index), by_row)
        matrix = grad.t() @ x
        bias = grad.sum(0) if ctx.bias_dtypes else None
    if line is not None:
        factors = line.to(matrix.dtype)
        matrix.mul_(factors[:, None] if ctx.axis == 0 else factors)
        bias = None if bias is None else bias * factors
    return matrix, bias


def _chosen(columns: Tensor, n: int, index: Tensor | None) -> Tensor:
    if index is None:
        return columns.narrow(1, columns.shape[1] - n, n)
    return columns.index_select(1, index)


def _scaled(tokens: Tensor, scale: Tensor | None) -> Tensor:
    """Return the tokens, (tokens, n), each multiplied by the factors of its row."""
    if scale is None:
        return tokens
    by_row = tokens.view(len(scale), -1, tokens.shape[1])
    return (by_row * scale[:, None].to(tokens.dtype)).view_as(tokens)
