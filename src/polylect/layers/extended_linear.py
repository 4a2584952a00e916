"""A frozen linear layer with further trainable rows or columns behind its own.

Rows make the output wider, columns take a wider input. Weight and extension are multiplied as one
matrix, made once for forward and backward: one product, and no concatenation of two outputs.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def extended(
    weight: Float[Tensor, "out in"], values: Tensor, axis: int
) -> Float[Tensor, "more_out more_in"]:
    """The weight with `values` as further rows (`axis` 0) or columns (1), in its precision."""
    return torch.cat([weight, values.to(weight.dtype)], axis)


class ExtendedLinear(torch.autograd.Function):
    """x (weight and values)ᵀ; differentiable in x and values, nothing is formed for the weight."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        weight: Tensor,
        values: Tensor,
        bias: Tensor | None,
        axis: int,
    ) -> Tensor:
        """x (tokens, in), values as in `extended`, bias of the result, (out,)."""
        whole = extended(weight, values, axis)
        ctx.save_for_backward(x, whole)
        ctx.axis, ctx.own, ctx.dtype = axis, weight.shape[axis], values.dtype
        return functional.linear(x, whole, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple:
        x, whole = ctx.saved_tensors
        for_x = for_values = for_bias = None
        if ctx.needs_input_grad[0]:
            for_x = grad @ whole
        if ctx.needs_input_grad[2]:
            rows, columns = (grad[:, ctx.own :], x) if ctx.axis == 0 else (grad, x[:, ctx.own :])
            for_values = (rows.t() @ columns).to(ctx.dtype)
        if ctx.needs_input_grad[3]:
            for_bias = grad.sum(0)
        return for_x, None, for_values, for_bias, None
