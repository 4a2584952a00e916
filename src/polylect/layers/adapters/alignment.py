"""Spectral alignment of LoRA adapters: the same update, its directions in order of strength.

The factors of an adapter are free up to an invertible r x r matrix; the singular value
decomposition B A = U S Vᵀ is not (up to signs, and where singular values repeat). Stored as
A* = Vᵀ and B* = U S, an adapter keeps its size and its function, and tells by the first row of A*,
its *arrow* (arXiv 2405.11157), on which inputs it acts most (arXiv 2507.05346, eq. 1-5).
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from polylect.finite import all_finite

_BLOCK = 64
"""Adapters compared with all others at a time; bounds the memory for the products."""


@torch.no_grad()
def align(
    a: Float[Tensor, "rank in"], b: Float[Tensor, "out rank"], scaling: float | int
) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "out rank"]]:
    """Return A* with orthonormal rows, strongest first, and B* with B* A* = scaling B A.

    Two QR decompositions and an SVD of r x r in float64, so it is exact and never forms B A. Each
    row of A* has the sign that makes its largest entry positive.

    A* has as many rows as the update has directions; the rows after them are zero, and so are the
    columns of B*. A direction is one that the rounding of the stored factors cannot have made, so
    that an update has the same A* however it is stored: with a higher rank, other factors of the
    same product, or its size elsewhere. An update of zero has no direction.

    Args:
        a: A of an adapter.
        b: its B.
        scaling: the factor of B A, which goes into B*.

    Returns:
        A* and B* in the precision of the factors, but at least float32.

    Raises:
        ValueError: a factor or the scaling is not finite, or the update is too large.
    """
    for name, factor in (("A", a), ("B", b), ("the scaling", torch.tensor(float(scaling)))):
        if not all_finite(factor):
            raise ValueError(
                f"{name} of the adapter has NaN or infinite values and cannot be aligned: "
                "train or save the adapter again"
            )
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    q_a, r_a = torch.linalg.qr(a.double().T)
    q_b, r_b = torch.linalg.qr(b.double())
    core = r_b @ r_a.T
    u, s, vt = torch.linalg.svd(core.nan_to_num(), full_matrices=False)
    is_significant = s > _rounding(r_a, r_b, u, vt, a.dtype, b.dtype)
    rows, columns = vt[is_significant] @ q_a.T, q_b @ (u[:, is_significant] * s[is_significant])
    sign = torch.where(rows.gather(1, rows.abs().argmax(1, keepdim=True)) < 0, -1.0, 1.0)
    missing = len(a) - len(rows)
    b_star = functional.pad(columns * sign.T * scaling, (0, missing)).to(dtype)
    if not (all_finite(core) and all_finite(singular_values(b_star).square())):
        raise ValueError(
            f"the update of the adapter is so large that its scores overflow {_short(dtype)}: "
            "train or save the adapter again"
        )
    used = (b_star != 0).any(0)  # not those that the scaling or the precision has made zero
    return functional.pad(rows * sign, (0, 0, 0, missing)).to(dtype) * used[:, None], b_star


def _rounding(
    r_a: Tensor, r_b: Tensor, u: Tensor, vt: Tensor, of_a: torch.dtype, of_b: torch.dtype
) -> Tensor:
    """Return the strength that rounding alone could give each direction of the update.

    Rounding moves every entry of a factor by its size times epsilon, so that row k of A moves by
    |A_k| and reaches the direction u through the k-th entry of Bᵀu; likewise B. To this comes what
    is rounded here. Moving size from A to B, row by row, changes none of it.
    """
    size_a, size_b = (torch.linalg.vector_norm(r, dim=0) for r in (r_a, r_b))
    reached_a, reached_b = (r_b.T @ u).abs(), (r_a.T @ vt.T).abs()
    here = len(size_a) * torch.finfo(torch.float64).eps * (size_a @ size_b)
    of_factors = (size_a @ reached_a) * torch.finfo(of_a).eps
    return here + of_factors + (size_b @ reached_b) * torch.finfo(of_b).eps


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def singular_values(
    b_star: Float[Tensor, "*adapters out rank"],
) -> Float[Tensor, "*adapters rank"]:
    """Return the singular values of aligned updates, largest first: the columns' lengths of B*.

    The first is zero for an update that does nothing. The arrow means little where the second
    comes close to the first, and nothing where they are equal.
    """
    return torch.linalg.vector_norm(b_star, dim=-2)


@torch.no_grad()
def update_cosines(
    a: Float[Tensor, "adapters rank in"], b: Float[Tensor, "adapters out rank"]
) -> Float[Tensor, "adapters adapters"]:
    """Return the cosine of each two updates B A of a layer, as vectors of numbers.

    <B₁A₁, B₂A₂> is the sum over the entries of A₁A₂ᵀ times those of B₁ᵀB₂, so B A is never formed.

    Args:
        a: A of every adapter, aligned or not; lower ranks are filled up with zeros.
        b: B of every adapter.

    Returns:
        Symmetric; an update of zero has cosine 0 with all, itself included.
    """
    columns = b.mT
    inner = torch.cat(
        [
            (_products(some_a, a) * _products(some_b, columns)).sum(dim=(1, 3))
            for some_a, some_b in zip(a.split(_BLOCK), columns.split(_BLOCK), strict=True)
        ]
    )
    norms = inner.diagonal().clamp_min(torch.finfo(inner.dtype).tiny).sqrt()
    return (inner / norms[:, None] / norms).clamp(-1, 1)


@torch.no_grad()
def subspace_overlaps(
    a_star: Float[Tensor, "adapters rank in"],
) -> Float[Tensor, "adapters adapters"]:
    """Return how much of their input space the adapters of a layer share, whatever the strengths.

    The mean squared cosine of the principal angles between the rows of each two A*: 1 where one
    space contains the other, 0 where they are orthogonal, and about r / in by chance.

    Args:
        a_star: aligned A; rows of zeros, with which lower ranks are filled up, do not count.
    """
    shared = torch.cat(
        [_products(some, a_star).square().sum(dim=(1, 3)) for some in a_star.split(_BLOCK)]
    )
    ranks = (a_star != 0).any(-1).sum(-1)
    return shared / torch.minimum(ranks[:, None], ranks).clamp_min(1)


def _products(some: Tensor, every: Tensor) -> Tensor:
    """Return inner products of rows of some adapters and of all, (some, rank, adapters, rank)."""
    products = some.flatten(0, 1) @ every.flatten(0, 1).T
    return products.view(*some.shape[:2], *every.shape[:2])
