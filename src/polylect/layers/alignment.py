"""Spectral alignment of LoRA adapters: the same update, its directions in order of strength.

The factors of an adapter are free up to an invertible r x r matrix; the singular value
decomposition B A = U S Vᵀ is not (up to signs, and where singular values repeat). Stored as
A* = Vᵀ and B* = U S, an adapter keeps its size and its function, and tells by the first row of A*,
its *arrow* (arXiv 2405.11157), on which inputs it acts most (arXiv 2507.05346, eq. 1-5).
"""

import torch
from jaxtyping import Float
from torch import Tensor

_BLOCK = 64
"""Adapters compared with all others at a time; bounds the memory for the products."""


@torch.no_grad()
def align(
    a: Float[Tensor, "rank in"], b: Float[Tensor, "out rank"], scaling: float | int
) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "out rank"]]:
    """A* with orthonormal rows, strongest first, and B* with B* A* = scaling B A.

    Two QR decompositions and an SVD of r x r in float64, so it is exact and never forms B A. Each
    row of A* has the sign that makes its largest entry positive.

    Rows that the update does not determine (its rank is below r, it is zero, singular values
    repeat) are what LAPACK completes the basis with: orthonormal all the same, the same at every
    call, and with zeros in B* if the update does not use them. Only where the rank exceeds `in`
    are the last rows zero.

    Args:
        a: A of an adapter.
        b: its B.
        scaling: the factor of B A, which goes into B*.

    Returns:
        A* and B* in the precision of the factors, but at least float32.

    Raises:
        ValueError: a factor has a value that is not finite.
    """
    for name, factor in (("A", a), ("B", b)):
        if not factor.isfinite().all():
            raise ValueError(
                f"{name} of the adapter has NaN or infinite values and cannot be aligned: "
                "train or save the adapter again"
            )
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    q_a, r_a = torch.linalg.qr(a.double().T)
    q_b, r_b = torch.linalg.qr(b.double())
    u, s, vt = torch.linalg.svd(r_b @ r_a.T)
    # What is smaller is rounding of the QRs: B* says so with zeros, not with noise.
    noise = len(a) * torch.finfo(s.dtype).eps * r_b.norm() * r_a.norm()
    s = s * (s > noise)
    a_star = torch.zeros_like(a, dtype=torch.float64)
    b_star = torch.zeros_like(b, dtype=torch.float64)
    a_star[: len(vt)] = vt @ q_a.T
    b_star[:, : len(s)] = q_b @ (u[:, : len(s)] * s)
    largest = a_star.gather(1, a_star.abs().argmax(1, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0)
    return (a_star * sign).to(dtype), (b_star * sign.T * scaling).to(dtype)


def singular_values(
    b_star: Float[Tensor, "*adapters out rank"],
) -> Float[Tensor, "*adapters rank"]:
    """Singular values of aligned updates, largest first: the lengths of the columns of B*.

    The first is zero for an update that does nothing. The arrow means little where the second
    comes close to the first, and nothing where they are equal.
    """
    return torch.linalg.vector_norm(b_star, dim=-2)


def effective_rank(values: Float[Tensor, "*adapters rank"]) -> Float[Tensor, "*adapters"]:
    """Over how many directions an update spreads, from its singular values; 0 for a zero update.

    The exponential of the entropy of the values as shares of their sum (Roy and Vetterli 2007):
    1 if all but one are zero, r if r are equal and the others zero.
    """
    total = values.sum(-1)
    shares = values / total.unsqueeze(-1).clamp_min(torch.finfo(values.dtype).tiny)
    return torch.special.entr(shares).sum(-1).exp() * (total > 0)


@torch.no_grad()
def update_cosines(
    a: Float[Tensor, "adapters rank in"], b: Float[Tensor, "adapters out rank"]
) -> Float[Tensor, "adapters adapters"]:
    """How alike the updates of a layer are: the cosine of each two B A as vectors of numbers.

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
    """How much of their input space the adapters of a layer share, whatever the strengths.

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
    """Inner products of the rows of some adapters and of all, (some, rank, adapters, rank)."""
    products = some.flatten(0, 1) @ every.flatten(0, 1).T
    return products.view(*some.shape[:2], *every.shape[:2])
