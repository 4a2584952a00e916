"""The updates that the tokens' chosen adapters make, summed with weights.

tokens k        slots: the chosen adapters of each token
a               (adapters, rank, in), A of each adapter; lower ranks are filled up with zeros
b               (adapters, rank, out), the transpose of each B
"""

from jaxtyping import Float, Int
from torch import Tensor

from polylect.kernels.dispatch import Dispatch, combine, dispatch
from polylect.kernels.expert_linear import expert_linear, gathered_expert_linear

_GROUP_COST = 2_000_000
"""Multiplications of one large product in the time that both products of one more adapter cost by
themselves (one core, rank 8 and 16, 512 x 512, 32 to 1024 tokens: 1.4 to 5 million)."""

_GROUP_WORK = 4
"""How much longer a multiplication takes in small products than in a large one (one core)."""

_GROUPED_COST_GPU = 500_000_000
"""The same for all adapters together, which a GPU takes in one launch; an estimate."""


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
    routes = _routes(indices, weights, a, b)
    h = _projected(x, a, indices, routes) * weights.unsqueeze(2)
    if mix_factors:
        h = h.sum(1, keepdim=True) * weights.unsqueeze(2)
    return _lifted(h, b, indices, routes)


def lifted(
    h: Float[Tensor, "tokens rank"],
    b: Float[Tensor, "adapters rank out"],
    indices: Int[Tensor, "tokens"],
) -> Float[Tensor, "tokens out"]:
    """B h for the one adapter of each token, whose A x is h already."""
    slots = indices.unsqueeze(1)
    routes = _routes(slots, h.new_ones(slots.shape), b)
    return _lifted(h.unsqueeze(1), b, slots, routes)


def _routes(indices: Tensor, weights: Tensor, *factors: Tensor) -> Dispatch | None:
    """The slots sorted by adapter; None where each token times all adapters is less work.

    That is one large product instead of many small ones, of which all but the chosen is thrown
    away.
    """
    (tokens, k), adapters = indices.shape, len(factors[0])
    work = tokens * sum(factor[0].numel() for factor in factors)  # of one adapter
    if indices.is_cpu:
        beyond = min(adapters, tokens * k) * _GROUP_COST * len(factors) // 2
    else:
        beyond = _GROUPED_COST_GPU
    if work * adapters <= _GROUP_WORK * work * k + beyond:
        return None
    return dispatch(indices, weights, adapters)


def _projected(x: Tensor, a: Tensor, indices: Tensor, routes: Dispatch | None) -> Tensor:
    """A x, (tokens, k, rank)."""
    if routes is not None:
        h = gathered_expert_linear(x, a.transpose(1, 2), routes)
        return h.index_select(0, routes.places.flatten()).view(*indices.shape, -1)
    every = (x @ a.flatten(0, 1).T).view(len(x), *a.shape[:2])
    return every.gather(1, indices.unsqueeze(2).expand(-1, -1, a.shape[1]))


def _lifted(h: Tensor, b: Tensor, indices: Tensor, routes: Dispatch | None) -> Tensor:
    """The sum of B h over the slots, (tokens, out)."""
    if routes is not None:
        rows = h.flatten(0, 1).index_select(0, routes.order)
        return combine(expert_linear(rows, b, routes.offsets), routes, weighted=False)
    slots = h.new_zeros(len(h), *b.shape[:2])
    slots.scatter_add_(1, indices.unsqueeze(2).expand_as(h), h)
    return slots.flatten(1) @ b.flatten(0, 1)
