"""The definition of the step, in plain torch; also how it runs on a CPU."""

import torch
from torch import Tensor

from polylect.kernels.lag_select.sparse import chosen_products, is_faster

TIE = 32
"""Relative differences up to this many times machine epsilon are ties.

Copies of an adapter were up to 27 apart in one float32 product with d = 4096.
"""


def best_candidate(
    x: Tensor,
    candidates: Tensor,
    a_star: Tensor,
    strengths: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the best candidate of each token (tokens,), and its A* x (tokens, rank)."""
    dtype = accumulation_dtype(x, a_star)
    products = candidate_products(x.to(dtype), a_star.to(dtype), candidates)
    scores = _scores(products, candidates, strengths, mean, std)
    highest = scores.amax(1, keepdim=True)
    margin = TIE * torch.finfo(dtype).eps
    # a score that is not a number is worse than none, so that some candidate is always left
    worse = scores < torch.sub(highest, highest.abs(), alpha=margin)
    best = candidates.masked_fill(worse, torch.iinfo(candidates.dtype).max).amin(1)
    slot = (candidates == best.unsqueeze(1)).to(torch.uint8).argmax(1, keepdim=True)
    slot = slot.unsqueeze(2).expand(-1, -1, a_star.shape[1])
    return best, products.gather(1, slot).squeeze(1)


def accumulation_dtype(x: Tensor, a_star: Tensor) -> torch.dtype:
    """Return the precision in which sums are taken."""
    return torch.promote_types(torch.promote_types(x.dtype, a_star.dtype), torch.float32)


def candidate_products(x: Tensor, a_star: Tensor, candidates: Tensor) -> Tensor:
    """Return A* x of each candidate (tokens, k, rank), in the precision of both."""
    if is_faster(x, candidates, a_star):
        return chosen_products(x, a_star, candidates)
    every = (x @ a_star.flatten(0, 1).T).view(x.shape[0], *a_star.shape[:2])
    return every.gather(1, candidates.unsqueeze(2).expand(-1, -1, a_star.shape[1]))


def _scores(
    products: Tensor,
    candidates: Tensor,
    strengths: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
) -> Tensor:
    if strengths is not None:
        products = products * strengths[candidates]
    scores = torch.linalg.vector_norm(products, dim=2)
    scores = scores if mean is None else scores - mean[candidates]
    return scores if std is None else scores / std[candidates]
