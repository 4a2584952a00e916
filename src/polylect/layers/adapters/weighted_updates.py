"""The updates that the tokens' chosen adapters make, summed with weights.

tokens k        slots: the chosen adapters of each token
a               (adapters, rank, in), A of each adapter; lower ranks are filled up with zeros
b               (adapters, rank, out), the transpose of each B

Three ways lead there, of which shapes and the device decide:

- dense: all tokens times all adapters, one large product of which all but the chosen is thrown
  away;
- sparse: the chosen products alone, on a CPU (`kernels/lag_select/sparse.py`);
- grouped: each adapter times its own tokens, on a GPU, which does so in one launch.
"""

from jaxtyping import Float, Int
from torch import Tensor

from polylect.kernels.dispatch import combine, dispatch, gather
from polylect.kernels.expert_linear import expert_linear, gathered_expert_linear
from polylect.kernels.lag_select.sparse import chosen_products, chosen_sum, is_faster

_GROUPED_WORK = 5
"""How much longer a multiplication takes a GPU in small products than in a large one: a guess."""

_GROUPED_COST = 500_000_000
"""Multiplications of a large product in the time that sorting and launches take: a guess."""


def weighted_update(
    x: Float[Tensor, "tokens in"],
    a: Float[Tensor, "adapters rank in"],
    b: Float[Tensor, "adapters rank out"],
    indices: Int[Tensor, "tokens k"],
    weights: Float[Tensor, "tokens k"],
    *,
    mix_factors: bool = False,
) -> Float[Tensor, "tokens out"]:
    """Compute sum_s w_s B_s A_s x over the chosen adapters s of each token.

    With `mix_factors` (sum_s w_s B_s) (sum_s w_s A_s) x, another function: it has the products of
    each adapter's B with every other's A, and depends on how an update is factorised.

    Args:
        x: in the precision of the factors.
        indices: adapters of each token.
        weights: of each choice.
    """
    path = _choose_path(x, indices, a, b)
    if path == "grouped":
        return _by_adapter(x, a, b, indices, weights, mix_factors)
    if path == "sparse":
        gates = weights.unsqueeze(2)
        h = chosen_products(x, a, indices) * gates
        h = h.sum(1, keepdim=True) * gates if mix_factors else h
        return chosen_sum(h, b, indices)
    gates = _gates(indices, weights, len(a))
    h = (x @ a.flatten(0, 1).T).view(len(x), *a.shape[:2]) * gates
    if mix_factors:
        h = h.sum(1, keepdim=True) * gates
    return h.flatten(1) @ b.flatten(0, 1)


def up_project(
    h: Float[Tensor, "tokens rank"],
    b: Float[Tensor, "adapters rank out"],
    indices: Int[Tensor, " tokens"],
) -> Float[Tensor, "tokens out"]:
    """Compute B h for the one adapter of each token, whose A x is h already."""
    slots = indices.unsqueeze(1)
    path = _choose_path(h, slots, b)
    if path == "sparse":
        return chosen_sum(h.unsqueeze(1), b, slots)
    ones = h.new_ones(slots.shape)
    if path == "grouped":
        routes = dispatch(slots, ones, len(b))
        rows = expert_linear(h.index_select(0, routes.order), b, routes.offsets)
        return rows.index_select(0, routes.places.flatten())
    return (h.unsqueeze(1) * _gates(slots, ones, len(b))).flatten(1) @ b.flatten(0, 1)


def _choose_path(x: Tensor, indices: Tensor, *factors: Tensor) -> str:
    if x.is_cpu:
        return "sparse" if is_faster(x, indices, *factors) else "dense"
    tokens, k = indices.shape
    each = sum(factor[0].numel() for factor in factors)
    savings = tokens * each * (len(factors[0]) - _GROUPED_WORK * k)
    return "grouped" if savings > _GROUPED_COST * len(factors) else "dense"


def _by_adapter(
    x: Tensor, a: Tensor, b: Tensor, indices: Tensor, weights: Tensor, mix_factors: bool
) -> Tensor:
    """Return the update, with the slots sorted by adapter until the last step."""
    routes = dispatch(indices, weights, len(a))
    gates = routes.gates.unsqueeze(1)
    h = gathered_expert_linear(x, a.transpose(1, 2), routes) * gates
    if mix_factors:
        h = gather(combine(h, routes, weighted=False), routes) * gates
    return combine(expert_linear(h, b, routes.offsets), routes, weighted=False)


def _gates(indices: Tensor, weights: Tensor, adapters: int) -> Tensor:
    """Return the weight of every adapter, (tokens, adapters, 1)."""
    every = weights.new_zeros(len(weights), adapters)
    return every.scatter_add_(1, indices, weights).unsqueeze(2)
