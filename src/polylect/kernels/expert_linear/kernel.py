"""The grouped matrix product and its weight gradient as Triton kernels.

x        (rows, d_in), or (tokens, d_in) with `tokens` (rows,): the token of each row
weight   (experts, d_in, d_out), any strides
offsets  (experts + 1,) first row of each expert, and the end; rows behind it belong to nobody

Products are summed in float32. No atomics and no split sums, so the same numbers every time. The
gradient of x is `expert_linear` with the transposed weight.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from polylect.kernels.expert_linear import reference


@triton.jit
def expert_linear_kernel(
    x,
    weight,
    tokens,
    offsets,
    out,
    rows,
    experts,
    d_in,
    d_out,
    x_row,
    x_column,
    weight_expert,
    weight_in,
    weight_out,
    GATHER: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
):
    """One program: ROWS rows of one expert, OUT columns. Grid (row tiles, column tiles).

    The row tiles of all experts are numbered through; which expert a tile has is read off the
    offsets here, so that nothing waits for the host. Group `experts` are the rows of nobody.
    """
    tile = tl.program_id(0)
    group = tl.arange(0, GROUPS)
    begin = tl.load(offsets + group, mask=group <= experts, other=rows)
    end = tl.load(offsets + group + 1, mask=group < experts, other=rows)
    tiles = tl.cdiv(end - begin, ROWS)
    expert = tl.sum((tl.cumsum(tiles, 0) <= tile).to(tl.int32), 0)
    if expert > experts:
        return
    tile -= tl.sum(tl.where(group < expert, tiles, 0), 0).to(tl.int32)
    row = tl.load(offsets + expert).to(tl.int64) + tile * ROWS + tl.arange(0, ROWS)
    row_inside = row < tl.load(offsets + expert + 1, mask=expert < experts, other=rows)
    column = tl.program_id(1) * OUT + tl.arange(0, OUT)
    column_inside = column < d_out
    source = tl.load(tokens + row, mask=row_inside, other=0).to(tl.int64) if GATHER else row
    inner = tl.arange(0, IN)
    x_tile = x + source[:, None] * x_row + inner[None, :] * x_column
    weight_tile = weight + expert.to(tl.int64) * weight_expert
    weight_tile += inner[:, None] * weight_in + column[None, :] * weight_out
    total = tl.zeros((ROWS, OUT), tl.float32)
    for start in range(0, tl.where(expert < experts, d_in, 0), IN):
        left = inner < d_in - start
        a = tl.load(x_tile + start * x_column, mask=row_inside[:, None] & left[None, :], other=0.0)
        b = tl.load(
            weight_tile + start * weight_in,
            mask=left[:, None] & column_inside[None, :],
            other=0.0,
        )
        total = tl.dot(a, b, total, input_precision=PRECISION)
    tl.store(
        out + row[:, None] * d_out + column[None, :],
        total,
        mask=row_inside[:, None] & column_inside[None, :],
    )


@triton.jit
def weight_grad_kernel(
    x,
    grad,
    tokens,
    offsets,
    out,
    d_in,
    d_out,
    x_row,
    x_column,
    grad_row,
    grad_column,
    out_expert,
    out_in,
    out_out,
    GATHER: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    IN: tl.constexpr,
    OUT: tl.constexpr,
):
    """One program: a tile of one expert's gradient. Grid (in tiles, out tiles, experts)."""
    expert = tl.program_id(2).to(tl.int64)
    begin = tl.load(offsets + expert).to(tl.int32)
    end = tl.load(offsets + expert + 1).to(tl.int32)
    above = tl.program_id(0) * IN + tl.arange(0, IN)
    column = tl.program_id(1) * OUT + tl.arange(0, OUT)
    total = tl.zeros((IN, OUT), tl.float32)
    for start in range(begin, end, ROWS):
        row = start + tl.arange(0, ROWS).to(tl.int64)
        row_inside = row < end
        source = tl.load(tokens + row, mask=row_inside, other=0).to(tl.int64) if GATHER else row
        a = tl.load(
            x + source[None, :] * x_row + above[:, None] * x_column,
            mask=(above < d_in)[:, None] & row_inside[None, :],
            other=0.0,
        )
        b = tl.load(
            grad + row[:, None] * grad_row + column[None, :] * grad_column,
            mask=row_inside[:, None] & (column < d_out)[None, :],
            other=0.0,
        )
        total = tl.dot(a, b, total, input_precision=PRECISION)
    tl.store(
        out + expert * out_expert + above[:, None] * out_in + column[None, :] * out_out,
        total,
        mask=(above < d_in)[:, None] & (column < d_out)[None, :],
    )


def blocks(rows_per_expert: int, d_in: int, d_out: int, itemsize: int) -> dict[str, int]:
    """Return the tile sizes: powers of two from 16, no larger than what there is to do.

    At most 64 x 64 x 128 in 16 bit and 64 x 32 x 64 in 32 bit: at most 72 KiB of shared memory
    (compiled for sm_80 and sm_90), which every GPU from sm_80 on has.
    """
    inner, out = (64, 128) if itemsize == 2 else (32, 64)
    return {
        "ROWS": _tile(rows_per_expert, 64),
        "IN": _tile(d_in, inner),
        "OUT": _tile(d_out, out),
    }


def _tile(size: int, most: int) -> int:
    return max(16, min(most, triton.next_power_of_2(max(1, size))))


def expert_linear(
    x: Tensor, weight: Tensor, offsets: Tensor, tokens: Tensor | None, places: Tensor | None
) -> Tensor:
    """Computes `reference.expert_linear`, which serves float64, where these sum in float32."""
    if x.dtype == torch.float64:
        return reference.expert_linear(x, weight, offsets, tokens, places)
    experts, d_in, d_out = weight.shape
    rows = x.shape[0] if tokens is None else tokens.shape[0]
    out = x.new_empty(rows, d_out)
    if out.numel():
        size = blocks(triton.cdiv(rows, max(1, experts)), d_in, d_out, x.element_size())
        row_tiles = rows // size["ROWS"] + experts + 1  # every group may end in a part of a tile
        expert_linear_kernel[(row_tiles, triton.cdiv(d_out, size["OUT"]))](
            x,
            weight,
            offsets if tokens is None else tokens.contiguous(),
            offsets.contiguous(),
            out,
            rows,
            experts,
            d_in,
            d_out,
            *x.stride(),
            *weight.stride(),
            GATHER=tokens is not None,
            PRECISION=_precision(),
            GROUPS=triton.next_power_of_2(experts + 1),
            **size,
            **LAUNCH,
        )
    return out


def weight_grad(
    x: Tensor, grad: Tensor, weight: Tensor, offsets: Tensor, tokens: Tensor | None
) -> Tensor:
    """Computes `reference.weight_grad`, which serves float64."""
    if x.dtype == torch.float64:
        return reference.weight_grad(x, grad, weight, offsets, tokens)
    experts, d_in, d_out = weight.shape
    out = torch.empty_like(weight)
    if out.numel():
        size = blocks(triton.cdiv(grad.shape[0], experts), d_in, d_out, x.element_size())
        grid = (triton.cdiv(d_in, size["IN"]), triton.cdiv(d_out, size["OUT"]), experts)
        weight_grad_kernel[grid](
            x,
            grad,
            offsets if tokens is None else tokens.contiguous(),
            offsets.contiguous(),
            out,
            d_in,
            d_out,
            *x.stride(),
            *grad.stride(),
            *out.stride(),
            GATHER=tokens is not None,
            PRECISION=_precision(),
            **size,
            **LAUNCH,
        )
    return out


LAUNCH = {"num_warps": 4, "num_stages": 3}


def _precision() -> str:
    """Return the precision of float32 products: that of `torch.mm` under the same setting."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
