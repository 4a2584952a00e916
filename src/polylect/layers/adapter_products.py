"""Products of tokens with the factors of the adapters that each of them has chosen.

tokens k        slots: the chosen adapters of each token

Two ways lead there: all tokens times all adapters, one large product of which all but the chosen is
thrown away, or each adapter times its own tokens, many small products.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.kernels.dispatch import dispatch
from polylect.kernels.expert_linear import gathered_expert_linear

_GROUP_COST = 250_000
"""Multiplications of one large product in the time that a small one takes beside its own.

One core, fastest of many runs, rank 8 and 16, d 256 and 512, 32 to 1024 tokens, 64 adapters: 3 to
5 us."""

_GROUP_WORK = 5
"""How much longer a multiplication takes in small products than in a large one (the same runs)."""

_GROUPED_COST_GPU = 500_000_000
"""The same for all adapters together, which a GPU takes in one launch; an estimate."""


def by_adapter(
    indices: Int[Tensor, "tokens k"], adapters: int, multiplications: int, products: int = 1
) -> bool:
    """Whether each adapter times its own tokens is faster than all tokens times all adapters.

    Args:
        indices: of which the shape and the device count, not the values.
        multiplications: of one token with one adapter.
        products: with how many factors, one after the other.
    """
    tokens, k = indices.shape
    spared = tokens * multiplications * (adapters - _GROUP_WORK * k)
    groups = min(adapters, tokens * k) * _GROUP_COST if indices.is_cpu else _GROUPED_COST_GPU
    return spared > products * groups


def projected(
    x: Float[Tensor, "tokens in"],
    a: Float[Tensor, "adapters rank in"],
    indices: Int[Tensor, "tokens k"],
) -> Float[Tensor, "tokens k rank"]:
    """A x for the chosen adapters of each token.

    Args:
        x: in the precision of a, which is that of the products.
        a: A of each adapter; lower ranks are filled up with zeros.
        indices: positions of the chosen.
    """
    with torch.autocast(x.device.type, enabled=False):
        if by_adapter(indices, len(a), a[0].numel()):
            routes = dispatch(indices, x.new_ones(indices.shape), len(a))
            rows = gathered_expert_linear(x, a.transpose(1, 2), routes)
            return rows.index_select(0, routes.places.flatten()).view(*indices.shape, -1)
        if indices.is_cpu and indices.numel() < len(a):  # on a GPU, to know them is to wait for it
            used, indices = torch.unique(indices, return_inverse=True)
            a = a.index_select(0, used)
        every = (x @ a.flatten(0, 1).T).view(len(x), *a.shape[:2])
        return every.gather(1, indices.unsqueeze(2).expand(-1, -1, a.shape[1]))
