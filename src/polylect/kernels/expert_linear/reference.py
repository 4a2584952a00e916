"""The definition of an expert linear in plain torch, one product per expert; also runs on a CPU.

Experts that have equally many rows are one batched product, which starts the threads once.

`functional.grouped_mm` is the same loop in C++, with limits of dtype and stride. Where it can be
had, it takes 0.95 to 0.99 of the time of the loop here (forward and both gradients; 512 and 1024
rows, 256 and 512 columns, 8 and 32 experts, float32, 1 thread), and 0.75 at 64 rows of 64.
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional


def expert_linear(
    x: Tensor, weight: Tensor, offsets: Tensor, tokens: Tensor | None, places: Tensor | None
) -> Tensor:
    """Return `x[r] @ weight[e]`, or `x[tokens[r]] @ weight[e]`, by row; zero if nobody's.

    `places` is for the gradient alone.
    """
    rows = x if tokens is None else x.index_select(0, tokens)
    sizes = group_sizes(offsets, rows.shape[0])
    if each := _rows_if_even(sizes):
        out = torch.bmm(rows.view(-1, each, weight.shape[1]), weight)
        return out.view(-1, weight.shape[2])
    if _fit(rows, weight) and weight.shape[2] * weight.itemsize % 16 == 0:
        out = functional.grouped_mm(rows, weight, offs=offsets[1:].int())
    else:
        out = rows.new_empty(rows.shape[0], weight.shape[2])
        groups = zip(rows.split(sizes), weight.unbind(), out.split(sizes), strict=False)
        for of_rows, of_weight, of_out in groups:
            if of_rows.shape[0]:
                torch.mm(of_rows, of_weight, out=of_out)
    if sizes[-1]:
        out[-sizes[-1] :] = 0
    return out


def weight_grad(
    x: Tensor, grad: Tensor, weight: Tensor, offsets: Tensor, tokens: Tensor | None
) -> Tensor:
    """Sum x[r]ᵀ grad[r] over the rows r of each expert, in the memory order of `weight`."""
    rows = x if tokens is None else x.index_select(0, tokens)
    sizes = group_sizes(offsets, rows.shape[0])
    if each := _rows_if_even(sizes):
        return _even_weight_grad(rows, grad, weight, each)
    if weight.mT.is_contiguous() and _fit(rows, grad):
        return functional.grouped_mm(grad.t(), rows, offs=offsets[1:].int()).mT
    if weight.is_contiguous() and _fit(rows, grad):
        return functional.grouped_mm(rows.t(), grad, offs=offsets[1:].int())
    out = torch.empty_like(weight)
    groups = zip(rows.t().split(sizes, 1), grad.split(sizes), out.unbind(), strict=False)
    for of_rows, of_grad, of_out in groups:
        if of_grad.shape[0]:
            torch.mm(of_rows, of_grad, out=of_out)
        else:
            of_out.zero_()
    return out


def _even_weight_grad(rows: Tensor, grad: Tensor, weight: Tensor, each: int) -> Tensor:
    """Return the gradient for equally many rows of each expert, by one batched product."""
    experts, d_in, d_out = weight.shape
    rows, grad = rows.view(experts, each, d_in), grad.view(experts, each, d_out)
    if weight.stride(1) == 1:
        product, dense = torch.bmm(grad.mT, rows).mT, weight.mT.is_contiguous()
    else:
        product, dense = torch.bmm(rows.mT, grad), weight.is_contiguous()
    return product if dense else torch.empty_like(weight).copy_(product)


def group_sizes(offsets: Tensor, rows: int) -> list[int]:
    """Return rows of each expert, and of nobody.

    Raises:
        ValueError: the offsets do not start at zero, or fall, or go beyond the rows.
    """
    bounds = [*offsets.tolist(), rows]
    sizes = [end - begin for begin, end in pairwise(bounds)]
    if bounds[0] != 0 or min(sizes) < 0:
        raise ValueError(
            f"expert_linear: offsets must rise from 0 to at most the {rows} rows of x, "
            f"but are {bounds[:-1]}."
        )
    return sizes


def _rows_if_even(sizes: list[int]) -> int:
    """Return the rows of each expert where all have equally many and none is unused, else 0."""
    *of_experts, of_nobody = sizes
    return 0 if of_nobody or len(set(of_experts)) != 1 else of_experts[0]


def _fit(*factors: Tensor) -> bool:
    """Say whether `functional.grouped_mm` takes these: rows or columns of multiples of 16 bytes."""
    for factor in factors:
        leading, inner = max(factor.stride()[-2:]), min(factor.stride()[-2:])
        wide = leading >= factor.shape[-2 if factor.stride(-2) == 1 else -1]
        if not (inner == 1 and wide and leading * factor.itemsize % 16 == 0):
            return False
    return all(factor.dtype in (torch.float32, torch.bfloat16) for factor in factors)
