"""Linear layers of many experts as one step: rows sorted by expert, one weight per expert."""

from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from polylect.kernels.dispatch import Dispatch, combine_rows
from polylect.kernels.expert_linear import reference
from polylect.kernels.operator import operator

__all__ = [
    "expert_linear",
    "expert_weight_grad",
    "gathered_expert_linear",
    "gathered_expert_linears",
]


def expert_linear(
    x: Float[Tensor, "rows d_in"],
    weight: Float[Tensor, "experts d_in d_out"],
    offsets: Int[Tensor, " experts_plus_1"],
) -> Float[Tensor, "rows d_out"]:
    """Return `x[r] @ weight[e]` for every row r of every expert e.

    Differentiable in `x` and `weight`; a gradient that nobody asks for is not computed, and `x` is
    kept for that of `weight` alone. The gradient of `weight` has the memory order of `weight`, so
    a view such as `parameter.transpose(1, 2)` costs no copy.

    Args:
        x: rows sorted by expert; any strides.
        weight: any strides. Under autocast it and `x` are cast, as those of a linear layer are.
        offsets: rows `offsets[e]` to `offsets[e + 1]` are those of expert e; none is fine. Rows at
            and behind the last offset come out as zero.

    Raises:
        ValueError: shapes or dtypes that do not fit, or, on a CPU, offsets that fall.
    """
    return _expert_linear(*_operands("expert_linear", x, weight, offsets), offsets, None, None)


def gathered_expert_linear(
    x: Float[Tensor, "tokens d_in"],
    weight: Float[Tensor, "experts d_in d_out"],
    dispatch: Dispatch,
) -> Float[Tensor, "rows d_out"]:
    """Do `expert_linear(gather(x, dispatch), weight, dispatch.offsets)`, but keep `x` instead.

    With k choices per token that is a k-th of the memory, and on a GPU the rows are read through
    their index and never written. Takes and raises what `expert_linear` does.
    """
    _check_tokens("gathered_expert_linear", x, dispatch)
    x, weight = _operands("gathered_expert_linear", x, weight, dispatch.offsets)
    return _expert_linear(x, weight, dispatch.offsets, dispatch.tokens, dispatch.places)


def gathered_expert_linears(
    x: Float[Tensor, "tokens d_in"],
    weights: Sequence[Float[Tensor, "experts d_in _"]],
    dispatch: Dispatch,
) -> tuple[Float[Tensor, "rows _"], ...]:
    """Do `gathered_expert_linear` with several weights, as of a gate and what it gates.

    On a CPU rows are gathered once for all of them, and their gradients are summed before they go
    back to the tokens.
    """
    _check_tokens("gathered_expert_linears", x, dispatch)
    name, offsets = "gathered_expert_linears", dispatch.offsets
    cast = [_operands(name, x, weight, offsets) for weight in weights]
    weights = [weight for _, weight in cast]
    return _Gathered.apply(cast[0][0], dispatch.tokens, offsets, dispatch.places, *weights)


def expert_weight_grad(
    x: Float[Tensor, "rows d_in"],
    grad: Float[Tensor, "rows d_out"],
    weight: Float[Tensor, "experts d_in d_out"],
    offsets: Int[Tensor, " experts_plus_1"],
) -> Float[Tensor, "experts d_in d_out"]:
    """Return the gradient of `expert_linear(x, weight, offsets)` for `weight`, in its memory order.

    For a backward pass that computes `x` again instead of keeping it. Not differentiable.

    Args:
        grad: gradient of the output.
    """
    return _weight_grad(x, grad, weight, offsets, None)


def _check_tokens(function: str, x: Tensor, dispatch: Dispatch) -> None:
    if x.shape[0] != dispatch.places.shape[0]:
        raise ValueError(
            f"{function}: x has {x.shape[0]} rows, but the dispatch is of "
            f"{dispatch.places.shape[0]} tokens; give it what was routed."
        )


def _operands(function: str, x: Tensor, weight: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Return `x` and `weight` in the dtype of the product; raises ValueError on wrong shapes."""
    if weight.dim() != 3 or x.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"{function}: x {tuple(x.shape)} and weight {tuple(weight.shape)} must have the "
            "shapes (rows, d_in) and (experts, d_in, d_out)."
        )
    if offsets.shape != (weight.shape[0] + 1,):
        raise ValueError(
            f"{function}: offsets have the shape {tuple(offsets.shape)}, but {weight.shape[0]} "
            f"experts need ({weight.shape[0] + 1},): the first row of each, and the end."
        )
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    if x.dtype != weight.dtype:
        raise ValueError(
            f"{function}: x is {x.dtype} and weight {weight.dtype}; cast one to the other."
        )
    return x, weight


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        tokens: Tensor,
        offsets: Tensor,
        places: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        saved_x = x if any(ctx.needs_input_grad[4:]) else None
        ctx.save_for_backward(saved_x, tokens, offsets, places, *weights)
        rows, index = _rows(x, tokens)
        return tuple(_expert_linear(rows, weight, offsets, index, places) for weight in weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple:
        x, tokens, offsets, places, *weights = ctx.saved_tensors
        of_x, _, _, _, *of_weights = ctx.needs_input_grad
        pairs = list(zip(grads, weights, strict=True))
        grad_x, grad_weights = None, [None] * len(weights)
        if of_x:
            parts = (_expert_linear(grad, w.mT, offsets, None, None) for grad, w in pairs)
            grad_x = combine_rows(reduce(Tensor.add_, parts), None, tokens, offsets, places)
        if x is not None:
            rows, index = _rows(x, tokens)
            grad_weights = [
                _weight_grad(rows, grad, w, offsets, index) if needed else None
                for (grad, w), needed in zip(pairs, of_weights, strict=True)
            ]
        return grad_x, None, None, None, *grad_weights


def _rows(x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return rows and no index on a CPU; tokens and index for kernels, which gather on reading."""
    return (x.index_select(0, tokens), None) if x.device.type == "cpu" else (x, tokens)


def _keep(ctx, inputs, output):
    x, weight, offsets, tokens, places = inputs
    x = x if ctx.needs_input_grad[1] else None
    ctx.save_for_backward(x, weight, offsets, tokens, places)


def _backward(ctx, grad):
    x, weight, offsets, tokens, places = ctx.saved_tensors
    grad_x = grad_weight = None
    if ctx.needs_input_grad[0]:
        grad_x = _expert_linear(grad, weight.transpose(1, 2), offsets, None, None)
        if tokens is not None:
            grad_x = combine_rows(grad_x, None, tokens, offsets, places)
    if ctx.needs_input_grad[1]:
        grad_weight = _weight_grad(x, grad, weight, offsets, tokens)
    return grad_x, grad_weight, None, None, None


KERNEL = "polylect.kernels.expert_linear.kernel"
_expert_linear = operator(
    reference.expert_linear,
    name="expert_linear",
    kernel=KERNEL,
    fake=lambda x, weight, offsets, tokens, places: x.new_empty(
        (x if tokens is None else tokens).shape[0], weight.shape[2]
    ),
    keep=_keep,
    backward=_backward,
)
_weight_grad = operator(
    reference.weight_grad,
    name="expert_linear_weight_grad",
    kernel=KERNEL,
    fake=lambda x, grad, weight, offsets, tokens: torch.empty_like(weight),
)
