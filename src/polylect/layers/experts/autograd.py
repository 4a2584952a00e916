"""The output half of a feed-forward network of experts: non-linearity, weights, projection."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from polylect.kernels.dispatch import Dispatch, combine_rows, gather_rows
from polylect.kernels.expert_linear import expert_linear, expert_weight_grad


def dense_experts_out(
    activation: Callable[[Tensor], Tensor],
    inward: Sequence[Float[Tensor, "tokens neurons"]],
    weights: Float[Tensor, "tokens experts"],
    down: Float[Tensor, "neurons d"],
    members: Float[Tensor, "experts neurons"] | None = None,
) -> Float[Tensor, "tokens d"]:
    """Compute activation(gate) · up · w, or activation(up) · w, times `down`.

    Here w is the weight of a neuron's expert.

    Keeps what is given for the backward pass and computes the rest again: 2 numbers per neuron and
    token in a gated network and 1 in a plain one, where autograd would keep 6 and 4.

    Args:
        activation: elementwise.
        inward: what the projections gave, gate before up; up alone in a network without a gate.
        weights: of each expert, in float32 or better.
        members: 1 where the neuron belongs to the expert, else 0; None where the experts' neurons
            lie one after the other.
    """
    z, up = inward if len(inward) == 2 else (inward[0], None)
    return _Weighted.apply(activation, z, up, weights, down.to(z.dtype), members)


def routed_experts_out(
    activation: Callable[[Tensor], Tensor],
    inward: Sequence[Float[Tensor, "rows neurons"]],
    down: Float[Tensor, "experts neurons d"],
    dispatch: Dispatch,
) -> Float[Tensor, "tokens d"]:
    """Do as `dense_experts_out` with rows sorted by expert, summed over the rows of each token.

    Args:
        inward: as above, of each expert's own neurons.
    """
    z, up = inward if len(inward) == 2 else (inward[0], None)
    index = dispatch.tokens, dispatch.offsets, dispatch.places
    return _Combined.apply(activation, z, up, dispatch.gates, down.to(z.dtype), *index)


class _Weighted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        activation: Callable[[Tensor], Tensor],
        z: Tensor,
        up: Tensor | None,
        weights: Tensor,
        down: Tensor,
        members: Tensor | None,
    ) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(z, up, weights, down, members)
        return _weigh(_gate(activation(z), up), weights, members) @ down

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple:
        z, up, weights, down, members = ctx.saved_tensors
        of_z, of_up, of_weights, of_down = ctx.needs_input_grad[1:5]
        z, active = _recompute_activation(ctx.activation, z, of_z)
        grad_weights = grad_down = None
        toward = grad @ down.T
        if of_weights or of_down:
            h = _gate(active.detach(), up)
            if of_weights:
                grad_weights = _sum_per_expert(toward * h, weights, members)
            if of_down:
                # In the memory order of a linear layer's weight, transposed.
                grad_down = (grad.T @ _weigh(h, weights, members)).T
        _weigh(toward, weights, members)
        grad_z, grad_up = _inward_grads(z, up, active, toward, of_z, of_up)
        return None, grad_z, grad_up, grad_weights, grad_down, None


class _Combined(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        activation: Callable[[Tensor], Tensor],
        z: Tensor,
        up: Tensor | None,
        gates: Tensor,
        down: Tensor,
        tokens: Tensor,
        offsets: Tensor,
        places: Tensor,
    ) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(z, up, gates, down, tokens, offsets, places)
        y = expert_linear(_gate(activation(z), up), down, offsets)
        return combine_rows(y, gates, tokens, offsets, places)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple:
        z, up, gates, down, *index = ctx.saved_tensors
        of_z, of_up, of_gates, of_down = ctx.needs_input_grad[1:5]
        offsets, weights = index[1], gates.unsqueeze(1)
        z, active = _recompute_activation(ctx.activation, z, of_z)
        grad_gates = grad_down = None
        grad = gather_rows(grad, None, *index)
        toward = expert_linear(grad, down.mT, offsets)
        if of_gates or of_down:
            h = _gate(active.detach(), up)
            if of_down:
                grad_down = expert_weight_grad(h, grad.mul_(weights), down, offsets)
            if of_gates:
                grad_gates = h.mul_(toward).sum(1, dtype=gates.dtype)
        grad_z, grad_up = _inward_grads(z, up, active, toward.mul_(weights), of_z, of_up)
        return None, grad_z, grad_up, grad_gates, grad_down, None, None, None


def _recompute_activation(
    activation: Callable[[Tensor], Tensor], z: Tensor, needed: bool
) -> tuple[Tensor, Tensor]:
    """Return z and activation(z), with a gradient from one to the other where it is needed."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(needed)
        return z, activation(z)


def _inward_grads(
    z: Tensor, up: Tensor | None, active: Tensor, toward: Tensor, of_z: bool, of_up: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of z and up from that of activation(z) · up, which is overwritten."""
    grad_z = grad_up = None
    if of_z:
        (grad_z,) = torch.autograd.grad(active, z, toward if up is None else toward * up)
    if of_up:
        grad_up = toward.mul_(active.detach())
    return grad_z, grad_up


def _gate(active: Tensor, up: Tensor | None) -> Tensor:
    """Return the product of both, or a copy of the first, in new memory."""
    return active.clone() if up is None else active * up


def _weigh(h: Tensor, weights: Tensor, members: Tensor | None) -> Tensor:
    """Multiplies each neuron, in place, by its expert's weight."""
    weights = weights.to(h.dtype)
    if members is not None:
        weights = weights @ members.to(h.dtype)
    elif weights.shape[1] > 1:
        h.unflatten(1, (weights.shape[1], -1)).mul_(weights.unsqueeze(2))
        return h
    return h.mul_(weights)


def _sum_per_expert(products: Tensor, weights: Tensor, members: Tensor | None) -> Tensor:
    """Sums the products over the neurons of each expert."""
    if members is not None:
        return products.to(weights.dtype) @ members.T.to(weights.dtype)
    return products.unflatten(1, (weights.shape[1], -1)).sum(2, dtype=weights.dtype)
