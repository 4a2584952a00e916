"""Linear layers of many experts as one step: rows sorted by expert, one weight per expert."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.kernels.dispatch import Dispatch, transposed_gather
from polylect.kernels.expert_linear import reference
from polylect.kernels.operator import operator

__all__ = ["expert_linear", "gathered_expert_linear"]


def expert_linear(
    x: Float[Tensor, "rows d_in"],
    weight: Float[Tensor, "experts d_in d_out"],
    offsets: Int[Tensor, " experts_plus_1"],
) -> Float[Tensor, "rows d_out"]:
    """`x[r] @ weight[e]` for every row r of every expert e.

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
    return _checked("expert_linear", x, weight, offsets, None, None)


def gathered_expert_linear(
    x: Float[Tensor, "tokens d_in"],
    weight: Float[Tensor, "experts d_in d_out"],
    dispatch: Dispatch,
) -> Float[Tensor, "rows d_out"]:
    """`expert_linear(gather(x, dispatch), weight, dispatch.offsets)`, which keeps `x` instead.

    With k choices per token that is a k-th of the memory, and on a GPU the rows are read through
    their index and never written. Takes and raises what `expert_linear` does.
    """
    if x.shape[0] != dispatch.places.shape[0]:
        raise ValueError(
            f"gathered_expert_linear: x has {x.shape[0]} rows, but the dispatch is of "
            f"{dispatch.places.shape[0]} tokens; give it what was routed."
        )
    tokens, places = dispatch.tokens, dispatch.places
    return _checked("gathered_expert_linear", x, weight, dispatch.offsets, tokens, places)


def _checked(
    function: str,
    x: Tensor,
    weight: Tensor,
    offsets: Tensor,
    tokens: Tensor | None,
    places: Tensor | None,
) -> Tensor:
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
    return _expert_linear(x, weight, offsets, tokens, places)


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
            grad_x = transposed_gather(grad_x, tokens, offsets, places)
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
