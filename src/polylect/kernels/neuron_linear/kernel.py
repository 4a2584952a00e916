"""The products of `reference.py` on a GPU: one Triton kernel, which picks each row it reads.

Where the replaced rows lie across the contiguous dimension of the weight (`neuron_linear`), the
kernel reads a row either from the weight or from the values, so nothing is multiplied twice.
Columns (`neuron_linear_in`) are picked apart outside: their part is multiplied a second time.
"""

from typing import NamedTuple, no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from polylect.kernels.neuron_linear.reference import replaced_bias


@triton.jit
@no_type_check  # a type checker would wrap the function, whose source Triton reads
def product_kernel(
    a,
    b,
    own,
    slot,
    add,
    out,
    m,
    n,
    k,
    stride_am,
    stride_ak,
    stride_bk,
    stride_bn,
    stride_own_k,
    stride_own_n,
    stride_add_m,
    stride_add_n,
    stride_out_m,
    stride_out_n,
    AXIS: tl.constexpr,
    ALIGNED: tl.constexpr,
    ADD: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out = a b' + add: row k (AXIS 0) or column n (AXIS 1) of b' is entry `slot` of `own`, unless
    the slot is negative; AXIS -1 takes b as it is."""
    at_m = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    at_n = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_m = at_m < m
    in_n = at_n < n
    if AXIS == 1:
        slot_n = tl.load(slot + at_n, mask=in_n, other=-1).to(tl.int64)
        column = tl.where(slot_n >= 0, own + slot_n * stride_own_n, b + at_n * stride_bn)
        column = tl.multiple_of(column, 16) if ALIGNED else column
        step_k = tl.where(slot_n >= 0, stride_own_k, stride_bk)
    total = tl.full((BLOCK_M, BLOCK_N), 0.0, tl.float32)
    for start in range(0, k, BLOCK_K):
        at_k = start + tl.arange(0, BLOCK_K).to(tl.int64)
        in_k = at_k < k
        at_a = a + at_m[:, None] * stride_am + at_k[None, :] * stride_ak
        tile_a = tl.load(at_a, mask=in_m[:, None] & in_k[None, :], other=0.0)
        if AXIS == 1:
            at_b = column[None, :] + at_k[:, None] * step_k[None, :]
        elif AXIS == 0:
            slot_k = tl.load(slot + at_k, mask=in_k, other=-1).to(tl.int64)
            row = tl.where(slot_k >= 0, own + slot_k * stride_own_k, b + at_k * stride_bk)
            row = tl.multiple_of(row, 16) if ALIGNED else row
            step_n = tl.where(slot_k >= 0, stride_own_n, stride_bn)
            at_b = row[:, None] + at_n[None, :] * step_n[:, None]
        else:
            at_b = b + at_k[:, None] * stride_bk + at_n[None, :] * stride_bn
        tile_b = tl.load(at_b, mask=in_k[:, None] & in_n[None, :], other=0.0)
        total = tl.dot(tile_a, tile_b, total, input_precision=PRECISION)
    inside = in_m[:, None] & in_n[None, :]
    if ADD:
        at_add = add + at_m[:, None] * stride_add_m + at_n[None, :] * stride_add_n
        total += tl.load(at_add, mask=inside, other=0.0).to(tl.float32)
    at_out = out + at_m[:, None] * stride_out_m + at_n[None, :] * stride_out_n
    tl.store(at_out, total.to(out.dtype.element_ty), mask=inside)


class Tiling(NamedTuple):
    """Sizes of a program's tiles, and how many warps and stages of loading it has."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int


def tiling(m: int, n: int, k: int, itemsize: int) -> Tiling:
    """Return the tile sizes for a product (m, k) by (k, n).

    The largest tiles take 96 KiB of shared memory: every GPU since sm_80 has 99.
    """

    def tile(size: int, most: int) -> int:
        return min(most, max(16, triton.next_power_of_2(size)))

    block_m, block_n, block_k = tile(m, 128), tile(n, 128), tile(k, 128 // itemsize)
    warps = 8 if block_m * block_n > 64 * 128 else 4
    return Tiling(block_m, block_n, block_k, warps, stages=3)


def forward(
    x: Tensor,
    weight: Tensor,
    index: Tensor,
    values: Tensor,
    bias: Tensor | None,
    own_bias: Tensor | None,
    dim: int,
) -> Tensor:
    """Compute x W'ᵀ + b' (tokens, d_out)."""
    add = replaced_bias(weight, index, bias, own_bias)
    values = values.to(weight.dtype)
    if dim == 0:
        return _product(x, weight.t(), x.dtype, add, index, values.t(), axis=1)
    own = _product(x.index_select(1, index), values.t(), torch.float32, add)
    return _product(x.index_fill(1, index, 0), weight.t(), x.dtype, own)


def input_grad(grad: Tensor, weight: Tensor, index: Tensor, values: Tensor, dim: int) -> Tensor:
    """Compute grad W' (tokens, d_in)."""
    values = values.to(weight.dtype)
    if dim == 0:
        return _product(grad, weight, grad.dtype, None, index, values, axis=0)
    own = _product(grad, values, grad.dtype)
    return _product(grad, weight, grad.dtype).index_copy_(1, index, own)


def values_grad(grad: Tensor, x: Tensor, index: Tensor, values: Tensor, dim: int) -> Tensor:
    """Return the rows or columns `index` of gradᵀ x, accumulated in float32; dtype of `values`."""
    if dim == 0:
        return _product(grad.index_select(1, index).t(), x, values.dtype)
    return _product(grad.t(), x.index_select(1, index), values.dtype)


def _product(
    a: Tensor,
    b: Tensor,
    dtype: torch.dtype,
    add: Tensor | None = None,
    index: Tensor | None = None,
    own: Tensor | None = None,
    axis: int = -1,
) -> Tensor:
    """Return a b' + add in `dtype`; the rows (`axis` 0) or columns (1) `index` of b' are `own`.

    Args:
        a: (m, k).
        b: (k, n).
        dtype: of the result.
        add: (m, n) or (n,).
        index: distinct.
        own: (index, n) or (k, index).
        axis: that of `index`.
    """
    (m, k), n = a.shape, b.shape[1]
    out = a.new_empty(m, n, dtype=dtype)
    if not out.numel():
        return out
    own = b if own is None else own
    slot = b if axis < 0 else _slots(index, b.shape[axis])
    adding = out if add is None else add.expand(m, n)
    tiles = tiling(m, n, k, a.element_size())
    with torch.cuda.device_of(a):
        product_kernel[(triton.cdiv(m, tiles.block_m), triton.cdiv(n, tiles.block_n))](
            *(a, b, own, slot, adding, out),
            *(m, n, k),
            *a.stride(),
            *b.stride(),
            *own.stride(),
            *adding.stride(),
            *out.stride(),
            AXIS=axis,
            ALIGNED=_starts_aligned(b, axis) and _starts_aligned(own, axis),
            ADD=add is not None,
            PRECISION=_precision(),
            BLOCK_M=tiles.block_m,
            BLOCK_N=tiles.block_n,
            BLOCK_K=tiles.block_k,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
            enable_fp_fusion=True,  # Triton warns that its default will change
        )
    return out


def _slots(index: Tensor, size: int) -> Tensor:
    """Return for each of `size` rows its position in `index`, or -1; traps an index outside."""
    slots = torch.full((size,), -1, dtype=torch.int32, device=index.device)
    positions = torch.arange(index.numel(), dtype=torch.int32, device=index.device)
    return slots.index_copy_(0, index, positions)


def _starts_aligned(rows: Tensor, axis: int) -> bool:
    """Say whether every row (`axis` 0) or column (1) begins at a multiple of 16 bytes.

    The compiler cannot see that through the choice between two tensors, and would load entry by
    entry.
    """
    return rows.data_ptr() % 16 == 0 and rows.stride(axis) * rows.element_size() % 16 == 0


def _precision() -> str:
    """Return the precision of float32 products: the one that torch's own are set to."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
