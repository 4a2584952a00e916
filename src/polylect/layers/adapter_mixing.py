"""The updates that the tokens' chosen adapters make, summed with weights.

tokens k        slots: the chosen adapters of each token
a               (adapters, rank, in), A of each adapter; lower ranks are filled up with zeros
b               (adapters, rank, out), the transpose of each B
"""

from jaxtyping import Float, Int
from torch import Tensor

from polylect.kernels.dispatch import combine, dispatch, gather
from polylect.kernels.expert_linear import expert_linear, gathered_expert_linear
from polylect.layers.adapter_products import by_adapter


def mixed_update(
    x: Float[Tensor, "tokens in"],
    a: Float[Tensor, "adapters rank in"],
    b: Float[Tensor, "adapters rank out"],
    indices: Int[Tensor, "tokens k"],
    weights: Float[Tensor, "tokens k"],
    *,
    mix_factors: bool = False,
) -> Float[Tensor, "tokens out"]:
    """sum_s w_s B_s A_s x over the chosen adapters s of each token.

    With `mix_factors` (sum_s w_s B_s) (sum_s w_s A_s) x, another function: it has the products of
    each adapter's B with every other's A, and depends on how an update is factorised.

    Args:
        x: in the precision of the factors.
        indices: adapters of each token.
        weights: of each choice.
    """
    if by_adapter(indices, len(a), a[0].numel() + b[0].numel(), products=2):
        return _by_adapter(x, a, b, indices, weights, mix_factors)
    gates = _gates(indices, weights, len(a))
    h = (x @ a.flatten(0, 1).T).view(len(x), *a.shape[:2]) * gates
    if mix_factors:
        h = h.sum(1, keepdim=True) * gates
    return h.flatten(1) @ b.flatten(0, 1)


def lifted(
    h: Float[Tensor, "tokens rank"],
    b: Float[Tensor, "adapters rank out"],
    indices: Int[Tensor, "tokens"],
) -> Float[Tensor, "tokens out"]:
    """B h for the one adapter of each token, whose A x is h already."""
    slots, ones = indices.unsqueeze(1), h.new_ones(len(h), 1)
    if by_adapter(slots, len(b), b[0].numel()):
        routes = dispatch(slots, ones, len(b))
        rows = expert_linear(h.index_select(0, routes.order), b, routes.offsets)
        return rows.index_select(0, routes.places.flatten())
    return (h.unsqueeze(1) * _gates(slots, ones, len(b))).flatten(1) @ b.flatten(0, 1)


def _by_adapter(
    x: Tensor, a: Tensor, b: Tensor, indices: Tensor, weights: Tensor, mix_factors: bool
) -> Tensor:
    """The slots stay sorted by adapter until the end."""
    routes = dispatch(indices, weights, len(a))
    gates = routes.gates.unsqueeze(1)
    h = gathered_expert_linear(x, a.transpose(1, 2), routes) * gates
    if mix_factors:
        h = gather(combine(h, routes, weighted=False), routes) * gates
    return combine(expert_linear(h, b, routes.offsets), routes, weighted=False)


def _gates(indices: Tensor, weights: Tensor, adapters: int) -> Tensor:
    """The weight of every adapter, (tokens, adapters, 1)."""
    every = weights.new_zeros(len(weights), adapters)
    return every.scatter_add_(1, indices, weights).unsqueeze(2)
