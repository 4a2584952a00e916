"""The way out of a feed-forward network of experts: non-linearity, experts' weights, projection."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from polylect.kernels.expert_linear import expert_linear, expert_weight_grad


def weighted_output(
    activation: Callable[[Tensor], Tensor],
    inward: Sequence[Float[Tensor, "tokens neurons"]],
    weights: Float[Tensor, "tokens experts"],
    down: Float[Tensor, "neurons d"] | Float[Tensor, "groups neurons d"],
    offsets: Int[Tensor, " groups_plus_1"] | None = None,
    members: Float[Tensor, "experts neurons"] | None = None,
) -> Float[Tensor, "tokens d"]:
    """activation(gate) · up · w, or activation(up) · w, times `down`; w weighs a neuron's expert.

    Keeps what is given for the backward pass and computes the rest again: 2 numbers per neuron and
    token in a gated network and 1 in a plain one, where autograd would keep 6 and 4.

    Args:
        activation: elementwise.
        inward: what the projections gave, gate before up; up alone in a network without a gate.
        weights: of each expert, in float32 or better.
        down: of all neurons; or of each expert's, where rows are sorted by expert.
        offsets: of rows that are sorted by expert, see `expert_linear`; they have one weight each.
        members: 1 where the neuron belongs to the expert, else 0; None where the experts' neurons
            lie one after the other.
    """
    z, up = inward if len(inward) == 2 else (inward[0], None)
    return _Weighted.apply(activation, z, up, weights, down.to(z.dtype), offsets, members)


class _Weighted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        activation: Callable[[Tensor], Tensor],
        z: Tensor,
        up: Tensor | None,
        weights: Tensor,
        down: Tensor,
        offsets: Tensor | None,
        members: Tensor | None,
    ) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(z, up, weights, down, offsets, members)
        h = _gated(activation(z), up)
        return _product(_weigh(h, weights, members), down, offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple:
        z, up, weights, down, offsets, members = ctx.saved_tensors
        of_z, of_up, of_weights, of_down = ctx.needs_input_grad[1:5]
        with torch.enable_grad():
            z = z.detach().requires_grad_(of_z)
            active = ctx.activation(z)
        grad_z = grad_up = grad_weights = grad_down = None
        toward = _product(grad, down.mT, offsets)
        if of_weights or of_down:
            h = _gated(active.detach(), up)
            if of_weights:
                grad_weights = _summed(toward * h, weights, members)
            if of_down:
                grad_down = _down_grad(_weigh(h, weights, members), grad, down, offsets)
        _weigh(toward, weights, members)
        if of_z:
            (grad_z,) = torch.autograd.grad(active, z, toward if up is None else toward * up)
        if of_up:
            grad_up = toward.mul_(active.detach())
        return None, grad_z, grad_up, grad_weights, grad_down, None, None


def _gated(active: Tensor, up: Tensor | None) -> Tensor:
    """In memory of its own."""
    return active.clone() if up is None else active * up


def _weigh(h: Tensor, weights: Tensor, members: Tensor | None) -> Tensor:
    """In place."""
    weights = weights.to(h.dtype)
    if members is not None:
        weights = weights @ members.to(h.dtype)
    elif weights.shape[1] > 1:
        h.unflatten(1, (weights.shape[1], -1)).mul_(weights.unsqueeze(2))
        return h
    return h.mul_(weights)


def _summed(products: Tensor, weights: Tensor, members: Tensor | None) -> Tensor:
    """Over the neurons of each expert."""
    if members is not None:
        return products.to(weights.dtype) @ members.T.to(weights.dtype)
    return products.unflatten(1, (weights.shape[1], -1)).sum(2, dtype=weights.dtype)


def _product(h: Tensor, down: Tensor, offsets: Tensor | None) -> Tensor:
    return h @ down if offsets is None else expert_linear(h, down, offsets)


def _down_grad(h: Tensor, grad: Tensor, down: Tensor, offsets: Tensor | None) -> Tensor:
    """In the memory order of a linear layer's weight, transposed."""
    if offsets is None:
        return (grad.T @ h).T
    return expert_weight_grad(h, grad, down, offsets)
