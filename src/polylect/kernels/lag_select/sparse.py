"""Products of tokens with a few of very many rows, on a CPU.

tokens k        slots: the chosen adapters of each token

What a token has to do with n adapters of rank r is a matrix (tokens, n r), of which LAG and Arrow
want k r entries in each row. That is a sparse matrix, and torch has both products with one: its
entries are dot products of a token with a row (`chosen_products`), and what they weigh is a sum of
rows (`chosen_sum`). Neither sorts tokens nor copies factors, and both are one call. The other way,
each adapter times its own tokens, took 3 to 10 times as long with two threads, which each of 64
small products wakes, and 1 to 5 times with one (64 adapters, 256 to 4096 tokens).
"""

import functools
import warnings

import torch
from jaxtyping import Float, Int
from torch import Tensor

_WORK = 3
"""How much longer a multiplication takes here than in one large product.

Two cores, medians of quiet runs, rank 8 and 16, d 256 to 1024, 32 to 4096 tokens, 64 adapters: 2.4
to 3.7."""

_COST = 1_500_000
"""Multiplications of one large product in the time that a call here takes beside its own, most of
it to wake the second thread (the same runs)."""

with warnings.catch_warnings():  # said once, of the first such tensor of a process
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
    torch.sparse_csr_tensor(
        torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1), check_invariants=True
    )


def is_faster(
    x: Float[Tensor, "tokens _"],
    indices: Int[Tensor, "tokens k"],
    *factors: Float[Tensor, "adapters rank _"],
) -> bool:
    """Return whether the chosen products are faster than all tokens times all adapters.

    A rule of shapes, not of values. On a CPU only, and without gradients.

    Args:
        x: what is multiplied.
        indices: the chosen adapters of each token.
        factors: with which it is multiplied, one after the other.
    """
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *factors))
    if needs_grad or not x.is_cpu:
        return False
    tokens, k = indices.shape
    adapters = factors[0].shape[0]
    each = sum(factor.shape[1] * factor.shape[2] for factor in factors)
    return tokens * (adapters - _WORK * k) * each > _COST * len(factors)


def chosen_products(
    x: Float[Tensor, "tokens d"],
    a: Float[Tensor, "adapters rank d"],
    indices: Int[Tensor, "tokens k"],
) -> Float[Tensor, "tokens k rank"]:
    """Return a x for the chosen adapters of each token.

    Here x has the precision of a. Not differentiable.
    """
    rank, slots = a.shape[1], indices.numel() * a.shape[1]
    pattern = torch.sparse_csr_tensor(
        _starts(x.shape[0] + 1, indices.shape[1] * rank),
        _rows(indices, a),
        x.new_zeros(slots),  # beta = 0 multiplies them all the same
        (x.shape[0], a.shape[0] * rank),
        check_invariants=False,
    )
    torch.sparse.sampled_addmm(pattern, x, a.flatten(0, 1).T, beta=0, out=pattern)
    return pattern.values().view(*indices.shape, rank)


def chosen_sum(
    h: Float[Tensor, "tokens k rank"],
    b: Float[Tensor, "adapters rank out"],
    indices: Int[Tensor, "tokens k"],
) -> Float[Tensor, "tokens out"]:
    """Return the sum of B h over the chosen adapters of each token, b the transpose of each B."""
    starts = _starts(h.shape[0], indices.shape[1] * b.shape[1])
    rows, weights, options = b.flatten(0, 1), h.flatten(), (False, _SUM, False)
    return torch.embedding_bag(rows, _rows(indices, b), starts, *options, weights)[0]


_SUM = 0  # mode of `torch.embedding_bag`, of which functional.embedding_bag makes another arange


def _rows(indices: Tensor, factors: Tensor) -> Tensor:
    """Return the row numbers of the chosen adapters in the stacked factors, (tokens k rank,).

    Looked up, which takes a third of the time of an addition to each.
    """
    adapters, rank = factors.shape[:2]
    every = _starts(adapters * rank, 1).view(adapters, rank)
    return every.index_select(0, indices.flatten()).flatten()


@functools.lru_cache(maxsize=64)
def _starts(count: int, step: int) -> Tensor:
    """Return 0, step, 2 step, …; cached, as layers ask for the same ones again and again."""
    with torch.inference_mode(False):
        return torch.arange(0, count * step, step)
