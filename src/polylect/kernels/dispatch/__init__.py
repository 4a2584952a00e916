"""Rows for experts and back: sort by expert, gather, combine with weights.

Dropless: every expert takes all rows sent to it, many or none. Deterministic: the sort is stable
and no sum is left to chance. `gather` and `combine` are each other's transpose, so each is the
other's gradient.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.kernels.dispatch import reference
from polylect.kernels.operator import operator

__all__ = ["Dispatch", "combine", "combine_rows", "dispatch", "gather", "gather_rows"]


@dataclass(frozen=True)
class Dispatch:
    """Which row of an expert's input is which choice of which token.

    On a CPU slots of nobody have no row. On other devices they have the rows at and behind
    `offsets[-1]`, as their number is not known without waiting for the device; `expert_linear`
    and `gather` make these rows zero, `combine` leaves them out.
    """

    order: Int[Tensor, " rows"]
    """slot, as token·k + slot, of each row"""
    tokens: Int[Tensor, " rows"]
    """token of each row: `order // k`"""
    offsets: Int[Tensor, " experts_plus_1"]
    """first row of each expert, and the end of the last one's rows"""
    gates: Float[Tensor, " rows"]
    """weight of each row"""
    places: Int[Tensor, "tokens k"]
    """row of each slot"""


def dispatch(
    indices: Int[Tensor, "tokens k"],
    weights: Float[Tensor, "tokens k"],
    experts: int,
    *,
    spare: int = 0,
) -> Dispatch:
    """Sort the choices of a router by expert.

    Args:
        indices: experts chosen for each token; -1 for a slot that goes to nobody (padding, or a
            choice that another group of experts serves).
        weights: weight of each choice; differentiable.
        experts: how many there are; each may get any number of rows.
        spare: rows that each expert may gain on average so that all have equally many, of which
            `expert_linear` makes one product; on a CPU alone, and at most half of what there is.
            They are copies of the first slot's row with a weight of zero and in no place: `combine`
            leaves them out, and where `gates` multiply their gradient, it is zero.

    Raises:
        ValueError: shapes that differ, or, on a CPU, an index outside of -1 to experts - 1.
    """
    if indices.dim() != 2 or indices.shape != weights.shape:
        raise ValueError(
            f"dispatch: indices {tuple(indices.shape)} and weights {tuple(weights.shape)} "
            "must both have the shape (tokens, k)."
        )
    on_cpu = indices.device.type == "cpu"
    if on_cpu and indices.numel():
        low, high = (int(bound) for bound in indices.aminmax())
        if low < -1 or high >= experts:
            raise ValueError(
                f"dispatch: indices must lie between -1 (nobody) and {experts - 1}, "
                f"but they reach from {low} to {high}."
            )
    even = spare if on_cpu else 0
    order, offsets, places = reference.expert_order(indices, experts, even)
    if on_cpu:
        order = order[: offsets.tolist()[-1]]
    slots = order.clamp(min=0) if even else order
    gates = weights.flatten().index_select(0, slots)
    if even:
        gates = gates.masked_fill(order < 0, 0)
    return Dispatch(slots, slots // max(1, indices.shape[1]), offsets, gates, places)


def gather(x: Float[Tensor, "tokens d"], dispatch: Dispatch) -> Float[Tensor, "rows d"]:
    """Return the rows of the experts: `x[dispatch.tokens]`, zero in rows of nobody."""
    _check("gather", "x", x, dispatch.places.shape[0], "tokens")
    return gather_rows(x, None, dispatch.tokens, dispatch.offsets, dispatch.places)


def combine(
    y: Float[Tensor, "rows d"], dispatch: Dispatch, *, weighted: bool = True
) -> Float[Tensor, "tokens d"]:
    """Return the rows of each token, times their gates, summed; zero for a token without rows.

    Args:
        y: what the experts made of their rows.
        dispatch: where the rows came from.
        weighted: False where the rows have been multiplied by `dispatch.gates` before, which
            spares keeping `y` for the gradient of the gates.

    Raises:
        ValueError: `y` has another number of rows.
    """
    _check("combine", "y", y, dispatch.tokens.shape[0], "rows")
    gates = dispatch.gates if weighted else None
    return combine_rows(y, gates, dispatch.tokens, dispatch.offsets, dispatch.places)


def _check(function: str, name: str, x: Tensor, count: int, unit: str) -> None:
    if x.dim() != 2 or x.shape[0] != count:
        raise ValueError(
            f"{function}: {name} has the shape {tuple(x.shape)}, but the dispatch is of {count} "
            f"{unit}, so it must be ({count}, d)."
        )


def _keep(ctx, inputs, output):
    values, gates, tokens, offsets, places = inputs
    of_gates = gates is not None and ctx.needs_input_grad[1]
    ctx.save_for_backward(values if of_gates else None, gates, tokens, offsets, places)


def _gather_backward(ctx, grad):
    x, gates, tokens, offsets, places = ctx.saved_tensors
    grad_x = grad_gates = None
    if ctx.needs_input_grad[0]:
        grad_x = combine_rows(grad, gates, tokens, offsets, places)
    if x is not None:
        grad_gates = _gate_grad(grad, x, tokens, offsets).to(gates.dtype)
    return grad_x, grad_gates, None, None, None


def _combine_backward(ctx, grad):
    y, gates, tokens, offsets, places = ctx.saved_tensors
    grad_y = grad_gates = None
    if ctx.needs_input_grad[0]:
        grad_y = gather_rows(grad, gates, tokens, offsets, places)
    if y is not None:
        grad_gates = _gate_grad(y, grad, tokens, offsets).to(gates.dtype)
    return grad_y, grad_gates, None, None, None


KERNEL = "polylect.kernels.dispatch.kernel"
# `gather` and `combine` from the parts of a `Dispatch`, for functions with a gradient of their own;
# without gates the weights are 1.
gather_rows = operator(
    reference.gather,
    name="gather",
    kernel=KERNEL,
    fake=lambda x, gates, tokens, offsets, places: x.new_empty(tokens.shape[0], x.shape[1]),
    keep=_keep,
    backward=_gather_backward,
)
combine_rows = operator(
    reference.combine,
    name="combine",
    kernel=KERNEL,
    fake=lambda y, gates, tokens, offsets, places: y.new_empty(places.shape[0], y.shape[1]),
    keep=_keep,
    backward=_combine_backward,
)
_gate_grad = operator(
    reference.gate_grad,
    name="gate_grad",
    kernel=KERNEL,
    fake=lambda y, grad, tokens, offsets: y.new_empty(
        y.shape[0], dtype=torch.promote_types(y.dtype, torch.float32)
    ),
)
