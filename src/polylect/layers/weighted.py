"""The non-linearity of a feed-forward network of experts, each neuron times its expert's weight."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def weighted_activation(
    activation: Callable[[Tensor], Tensor],
    inward: Sequence[Float[Tensor, "tokens neurons"]],
    weights: Float[Tensor, "tokens experts"],
    members: Float[Tensor, "experts neurons"] | None = None,
) -> Float[Tensor, "tokens neurons"]:
    """activation(gate) · up · w, or activation(up) · w; w is the weight of the neuron's expert.

    Keeps what is given for the backward pass and computes the rest again: 2 numbers per neuron and
    token in a gated network and 1 in a plain one, where autograd would keep 5 and 3.

    Args:
        activation: elementwise.
        inward: what the projections gave, gate before up; up alone in a network without a gate.
        weights: of each expert, in float32 or better.
        members: 1 where the neuron belongs to the expert, else 0; None where the experts' neurons
            lie one after the other.
    """
    z, up = inward if len(inward) == 2 else (inward[0], None)
    return _Weighted.apply(activation, z, up, weights, members)


class _Weighted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        activation: Callable[[Tensor], Tensor],
        z: Tensor,
        up: Tensor | None,
        weights: Tensor,
        members: Tensor | None,
    ) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(z, up, weights, members)
        h = activation(z)
        return _times(h if up is None else h * up, weights, members)

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple:
        z, up, weights, members = ctx.saved_tensors
        of_z, of_up, of_weights = ctx.needs_input_grad[1:4]
        with torch.enable_grad():
            z = z.detach().requires_grad_(of_z)
            active = ctx.activation(z)
        h = active.detach()
        grad_z = grad_up = grad_weights = None
        if of_weights:
            product = grad * h if up is None else grad * h * up
            grad_weights = _summed(product, weights, members)
        if of_z or of_up:
            weighted = _times(grad, weights, members)
            grad_up = weighted * h if of_up else None
            if of_z:
                toward = weighted if up is None else weighted * up
                (grad_z,) = torch.autograd.grad(active, z, toward)
        return None, grad_z, grad_up, grad_weights, None


def _times(h: Tensor, weights: Tensor, members: Tensor | None) -> Tensor:
    weights = weights.to(h.dtype)
    if members is not None:
        return h * (weights @ members.to(h.dtype))
    return (h.unflatten(1, (weights.shape[1], -1)) * weights.unsqueeze(2)).flatten(1)


def _summed(products: Tensor, weights: Tensor, members: Tensor | None) -> Tensor:
    """Over the neurons of each expert."""
    if members is not None:
        return products.to(weights.dtype) @ members.T.to(weights.dtype)
    return products.unflatten(1, (weights.shape[1], -1)).sum(2, dtype=weights.dtype)
