"""Gather, score and select as one Triton kernel: a program per token, no atomics.

x            (tokens, d)           candidates  (tokens, k)
a_star       (adapters, rank, d)   strengths   (adapters, rank)   mean, std  (adapters,)

A token shares its candidates with no neighbour, so that there is no matrix product to be had: each
program streams k rank rows through its registers, which is bound by the cache that holds `a_star`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from polylect.kernels.lag_select import reference


@triton.jit
def best_candidate_kernel(
    x,
    candidates,
    a_star,
    strengths,
    mean,
    std,
    best_out,
    projected,
    k,
    rank,
    d,
    x_row,
    x_column,
    a_adapter,
    a_row,
    a_column,
    tie,
    SCALED: tl.constexpr,
    CENTRED: tl.constexpr,
    DIVIDED: tl.constexpr,
    PRECISE: tl.constexpr,
    SLOTS: tl.constexpr,
    RANKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: one token. Grid (tokens,)."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, SLOTS)
    row = tl.arange(0, RANKS)
    products = tl.zeros((SLOTS, RANKS), PRECISE)
    for at in range(k):
        adapter = tl.load(candidates + token * k + at).to(tl.int64)
        total = tl.zeros((RANKS, BLOCK), PRECISE)
        for start in range(0, d, BLOCK):
            column = start + tl.arange(0, BLOCK)
            in_range = column < d
            of_x = tl.load(x + token * x_row + column * x_column, mask=in_range, other=0.0)
            of_a = tl.load(
                a_star + adapter * a_adapter + row[:, None] * a_row + column[None, :] * a_column,
                mask=(row < rank)[:, None] & in_range[None, :],
                other=0.0,
            )
            total += of_a.to(PRECISE) * of_x.to(PRECISE)[None, :]
        products = tl.where((slot == at)[:, None], tl.sum(total, 1)[None, :], products)
    adapters = tl.load(candidates + token * k + slot, mask=slot < k, other=0).to(tl.int64)
    scaled = products
    if SCALED:
        scaled *= tl.load(
            strengths + adapters[:, None] * rank + row[None, :],
            mask=(slot < k)[:, None] & (row < rank)[None, :],
            other=0.0,
        ).to(PRECISE)
    scores = tl.sqrt(tl.sum(scaled * scaled, 1))
    if CENTRED:
        scores -= tl.load(mean + adapters, mask=slot < k, other=0.0).to(PRECISE)
    if DIVIDED:
        scores /= tl.load(std + adapters, mask=slot < k, other=1.0).to(PRECISE)
    scores = tl.where(slot < k, scores, float("-inf"))
    best = tl.max(scores, 0)
    # a score that is not a number is worse than none, so that some candidate is always left
    worse = (slot >= k) | (scores < best - tl.abs(best) * tie)
    first = tl.min(tl.where(worse, 0x7FFFFFFFFFFFFFFF, adapters), 0)
    tl.store(best_out + token, first)
    its = (slot < k) & (adapters == first)
    product = tl.sum(tl.where(its[:, None], products, 0.0), 0)
    tl.store(projected + token * rank + row, product, mask=row < rank)


MOST = 4096
"""Products that a program may keep; one with more would spill them."""

TILE = 2048
"""Entries of A* that a program reads at a time."""


def best_candidate(
    x: Tensor,
    candidates: Tensor,
    a_star: Tensor,
    strengths: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Computes `reference.best_candidate`, a dense product that serves more than `MOST`."""
    (tokens, k), (_, rank, d) = candidates.shape, a_star.shape
    size = blocks(k, rank, d)
    if size["SLOTS"] * size["RANKS"] > MOST:
        return reference.best_candidate(x, candidates, a_star, strengths, mean, std)
    dtype = reference.accumulation_dtype(x, a_star)
    best, projected = candidates.new_empty(tokens), x.new_empty(tokens, rank, dtype=dtype)
    if tokens:
        best_candidate_kernel[(tokens,)](
            x,
            candidates.contiguous(),
            a_star,
            *(x if t is None else t.contiguous() for t in (strengths, mean, std)),
            best,
            projected,
            *(k, rank, d),
            *x.stride(),
            *a_star.stride(),
            reference.TIE * torch.finfo(dtype).eps,
            SCALED=strengths is not None,
            CENTRED=mean is not None,
            DIVIDED=std is not None,
            PRECISE=tl.float64 if dtype == torch.float64 else tl.float32,
            **size,
            **LAUNCH,
        )
    return best, projected


def blocks(k: int, rank: int, d: int) -> dict[str, int]:
    """Return the sizes of a program's tensors, powers of two."""
    slots, ranks = triton.next_power_of_2(k), triton.next_power_of_2(rank)
    wide = min(triton.next_power_of_2(d), max(16, TILE // ranks))
    return {"SLOTS": slots, "RANKS": ranks, "BLOCK": wide}


LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}  # Triton warns that this default will change
