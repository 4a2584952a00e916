"""The products of a linear layer some of whose rows or columns are replaced, in plain PyTorch.

W' is `weight` (d_out, d_in) with the rows (`dim` 0) or columns (`dim` 1) named by `index` replaced
by `values`. W' never exists as a whole: with few tokens the replaced part is multiplied a second
time, with many W' is made a block of rows at a time. Also the path taken on a CPU.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

NAMES = ("rows", "columns")

BLOCK = 1 << 19
"""Entries of a block of W', unless `MIN_ROWS` are more: it stays in the cache between copy and
product, and one product still pays. From 256 to 1024 rows of 512 the time hardly moves."""

MIN_ROWS = 128

FEW = 8
"""Up to tokens * replaced = FEW * (d_out or d_in) multiplying twice is faster than copying blocks.

Both costs are proportional to the other dimension. 512 x 2048, float32, one thread, times the plain
product, twice or in blocks: 64 tokens and 10 % of the rows 1.07 or 1.12, 30 % 1.30 or 1.17; 512
tokens and 5 % 1.11 or 1.03, 30 % 1.42 or 1.03."""


def forward(
    x: Tensor,
    weight: Tensor,
    index: Tensor,
    values: Tensor,
    bias: Tensor | None,
    own_bias: Tensor | None,
    dim: int,
) -> Tensor:
    """x W'ᵀ + b' (tokens, d_out), where `own_bias` replaces the entries `index` of the bias."""
    check(index, weight.shape[dim], dim)
    bias = replaced_bias(weight, index, bias, own_bias)
    if not index.numel():
        return functional.linear(x, weight, bias)
    values = values.to(weight.dtype)
    if _are_few(x, weight, index, dim):
        y = _twice(x, weight.t(), index, values.t(), 1 - dim)
        return y if bias is None else y.add_(bias)
    y = x.new_empty(x.shape[0], weight.shape[0])
    for part, block in _blocks(weight, index, values, dim):
        start, beta = (y[:, part], 0) if bias is None else (bias[part], 1)
        torch.addmm(start, x, block.t(), beta=beta, out=y[:, part])
    return y


def input_grad(grad: Tensor, weight: Tensor, index: Tensor, values: Tensor, dim: int) -> Tensor:
    """grad W' (tokens, d_in)."""
    values = values.to(weight.dtype)
    if _are_few(grad, weight, index, dim):
        return _twice(grad, weight, index, values, dim)
    precise = torch.promote_types(grad.dtype, torch.float32)
    total = None
    for part, block in _blocks(weight, index, values, dim):
        if total is None:
            total = (grad[:, part] @ block).to(precise)
        elif precise == grad.dtype:
            total.addmm_(grad[:, part], block)
        else:
            total.add_(grad[:, part] @ block)
    return total.to(grad.dtype)


def values_grad(grad: Tensor, x: Tensor, index: Tensor, values: Tensor, dim: int) -> Tensor:
    """The rows or columns `index` of gradᵀ x, formed alone; shape and dtype of `values`."""
    if dim == 0:
        grad = grad.index_select(1, index)
    else:
        x = x.index_select(1, index)
    return (grad.t() @ x).to(values.dtype)


def check(index: Tensor, size: int, dim: int) -> None:
    """Raises a ValueError unless the indices lie below `size` and differ."""
    if not index.numel():
        return
    ordered = index.sort().values
    least, most = ordered[0].item(), ordered[-1].item()
    if least < 0 or most >= size:
        raise ValueError(
            f"{NAMES[dim]} has entries from {least} to {most}, expected from 0 to {size - 1}"
        )
    if (ordered[1:] == ordered[:-1]).any():
        raise ValueError(f"{NAMES[dim]} has an entry twice, expected distinct ones")


def replaced_bias(
    weight: Tensor, index: Tensor, bias: Tensor | None, own_bias: Tensor | None
) -> Tensor | None:
    """b' (d_out,): zero where neither has an entry."""
    if own_bias is None:
        return bias
    whole = weight.new_zeros(weight.shape[0]) if bias is None else bias
    return whole.index_copy(0, index, own_bias.to(whole.dtype))


def _are_few(tokens: Tensor, weight: Tensor, index: Tensor, dim: int) -> bool:
    return tokens.shape[0] * index.numel() <= FEW * weight.shape[dim]


def _twice(a: Tensor, m: Tensor, index: Tensor, values: Tensor, dim: int) -> Tensor:
    """a m', where rows or columns (`dim`) of m are replaced."""
    if not index.numel():
        return a @ m
    if dim == 1:
        return (a @ m).index_copy_(1, index, a @ values)
    return (a.index_fill(1, index, 0) @ m).addmm_(a.index_select(1, index), values)


def _blocks(
    weight: Tensor, index: Tensor, values: Tensor, dim: int
) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of rows of W', each good until the next is asked for."""
    d_out, d_in = weight.shape
    size = min(d_out, max(MIN_ROWS, BLOCK // d_in))
    buffer = weight.new_empty(size, d_in)
    if dim == 0:
        ordered, order = index.sort()
        starts = torch.arange(0, d_out + size, size, device=index.device)
        cuts = torch.searchsorted(ordered, starts).tolist()
    for number, start in enumerate(range(0, d_out, size)):
        part = slice(start, min(start + size, d_out))
        block = buffer[: part.stop - start].copy_(weight[part])
        if dim == 0:
            chosen = slice(cuts[number], cuts[number + 1])
            block.index_copy_(0, ordered[chosen] - start, values.index_select(0, order[chosen]))
        else:
            block.scatter_(1, index.expand(block.shape[0], -1), values[part])
        yield part, block
