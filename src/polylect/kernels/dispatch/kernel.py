"""Gather and weighted combine as Triton kernels: no atomics, so the same numbers every time.

x, grad         (tokens, d)      gates     (rows,)       tokens    (rows,) token of each row
y, out of gather (rows, d)       places    (tokens, k) row of each slot
offsets         (experts + 1,)   rows at and behind its last entry belong to nobody

Sums are taken in float32, those of float64 in float64. A row of nobody counts as one without
columns, since the interpreter cannot join a scalar condition with a mask.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def gather_kernel(
    x,
    gates,
    tokens,
    offsets,
    out,
    experts,
    d,
    x_row,
    x_column,
    WEIGHTED: tl.constexpr,
    PRECISE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK columns of one row. Grid (rows, column blocks)."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    somebodys = row < tl.load(offsets + experts)
    token = tl.load(tokens + row).to(tl.int64)
    in_range = column < tl.where(somebodys, d, 0)
    value = tl.load(x + token * x_row + column * x_column, mask=in_range, other=0.0).to(PRECISE)
    if WEIGHTED:
        value *= tl.load(gates + row, mask=somebodys, other=0.0).to(PRECISE)
    tl.store(out + row * d + column, value, mask=column < d)


@triton.jit
def combine_kernel(
    y,
    gates,
    places,
    offsets,
    out,
    experts,
    slots,
    d,
    y_row,
    y_column,
    WEIGHTED: tl.constexpr,
    PRECISE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK columns of one token. Grid (tokens, column blocks)."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    rows = tl.load(offsets + experts)
    total = tl.zeros((BLOCK,), PRECISE)
    for slot in range(slots):
        row = tl.load(places + token * slots + slot).to(tl.int64)
        in_range = column < tl.where(row < rows, d, 0)
        value = tl.load(y + row * y_row + column * y_column, mask=in_range, other=0.0).to(PRECISE)
        if WEIGHTED:
            value *= tl.load(gates + row, mask=row < rows, other=0.0).to(PRECISE)
        total += value
    tl.store(out + token * d + column, total, mask=column < d)


@triton.jit
def gate_grad_kernel(
    y,
    grad,
    tokens,
    offsets,
    out,
    experts,
    d,
    y_row,
    y_column,
    grad_row,
    grad_column,
    PRECISE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: one row. Grid (rows,)."""
    row = tl.program_id(0).to(tl.int64)
    width = tl.where(row < tl.load(offsets + experts), d, 0)
    token = tl.load(tokens + row).to(tl.int64)
    total = tl.zeros((BLOCK,), PRECISE)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        mask = column < width
        of_y = tl.load(y + row * y_row + column * y_column, mask=mask, other=0.0)
        of_grad = tl.load(grad + token * grad_row + column * grad_column, mask=mask, other=0.0)
        total += of_y.to(PRECISE) * of_grad.to(PRECISE)
    tl.store(out + row, tl.sum(total, 0))


def block(d: int) -> int:
    """Return the columns of one program."""
    return min(1024, triton.next_power_of_2(d))


def gather(
    x: Tensor, gates: Tensor | None, tokens: Tensor, offsets: Tensor, places: Tensor
) -> Tensor:
    """Computes `reference.gather`."""
    out = x.new_empty(tokens.shape[0], x.shape[1])
    if out.numel():
        grid = (out.shape[0], triton.cdiv(out.shape[1], block(out.shape[1])))
        gather_kernel[grid](
            x,
            _flat(gates, x),
            tokens.contiguous(),
            offsets.contiguous(),
            out,
            offsets.shape[0] - 1,
            x.shape[1],
            *x.stride(),
            WEIGHTED=gates is not None,
            PRECISE=accumulation_dtype(x),
            BLOCK=block(x.shape[1]),
        )
    return out


def combine(
    y: Tensor, gates: Tensor | None, tokens: Tensor, offsets: Tensor, places: Tensor
) -> Tensor:
    """Computes `reference.combine`."""
    out = y.new_empty(places.shape[0], y.shape[1])
    if out.numel():
        grid = (out.shape[0], triton.cdiv(out.shape[1], block(out.shape[1])))
        combine_kernel[grid](
            y,
            _flat(gates, y),
            places.contiguous(),
            offsets.contiguous(),
            out,
            offsets.shape[0] - 1,
            places.shape[1],
            y.shape[1],
            *y.stride(),
            WEIGHTED=gates is not None,
            PRECISE=accumulation_dtype(y),
            BLOCK=block(y.shape[1]),
        )
    return out


def gate_grad(y: Tensor, grad: Tensor, tokens: Tensor, offsets: Tensor) -> Tensor:
    """Computes `reference.gate_grad`."""
    out = y.new_empty(y.shape[0], dtype=torch.promote_types(y.dtype, torch.float32))
    if out.numel():
        gate_grad_kernel[(out.shape[0],)](
            y,
            grad,
            tokens.contiguous(),
            offsets.contiguous(),
            out,
            offsets.shape[0] - 1,
            y.shape[1],
            *y.stride(),
            *grad.stride(),
            PRECISE=accumulation_dtype(y),
            BLOCK=block(max(1, y.shape[1])),
        )
    return out


def accumulation_dtype(x: Tensor) -> tl.dtype:
    """Return the precision in which sums over `x` are taken."""
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def _flat(gates: Tensor | None, instead: Tensor) -> Tensor:
    """Return the gates side by side; without gates another tensor, which the kernel ignores."""
    return instead if gates is None else gates.contiguous()
