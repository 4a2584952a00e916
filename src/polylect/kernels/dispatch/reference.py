"""The definition of dispatch, in plain torch; also how it runs on a CPU.

tokens k        slots: the choices of each token, numbered token·k + slot
rows            the slots sorted by expert; rows at and behind `offsets[-1]` belong to nobody, and
                so may some that make all experts' equally many
"""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional


def expert_order(indices: Tensor, experts: int, spare: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return the slots sorted by expert, those of nobody (-1) last,
    in their own order within an expert.

    Args:
        spare: rows of nobody that an expert may gain on average so that all have equally many;
            together at most half of the experts' own. Waits for the device unless it is zero.

    Returns the slot of each row (tokens·k, or the rows of experts that have equally many), -1 where
    there is none; the first row of each expert and the end (experts + 1); and the row of each slot
    (tokens, k), which for those of nobody is at or behind the end.
    """
    flat = indices.flatten()
    by_expert, order = flat.masked_fill(flat < 0, experts).sort(stable=True)
    bounds = torch.arange(experts + 1, device=flat.device, dtype=flat.dtype)
    offsets = torch.searchsorted(by_expert, bounds, out_int32=True)
    row = torch.arange(order.numel(), device=flat.device)
    places = torch.empty_like(order)
    if spare and (most := _even_size(offsets.tolist(), spare)):
        starts = torch.arange(0, experts * most + 1, most, device=flat.device, dtype=torch.int32)
        row += (starts - offsets).index_select(0, by_expert)
        own = slice(int(offsets[-1]))
        slots = order.new_full((experts * most,), -1).scatter_(0, row[own], order[own])
        return slots, starts, places.scatter_(0, order, row).view(indices.shape)
    return order, offsets, places.scatter_(0, order, row).view(indices.shape)


def _even_size(bounds: list[int], spare: int) -> int:
    """Return the equal number of rows to pad experts to; 0 where that is needless or too much."""
    experts, rows = len(bounds) - 1, bounds[-1]
    most = max(end - begin for begin, end in pairwise(bounds))
    gained = experts * most - rows
    return most if 0 < gained <= min(experts * spare, rows // 2) else 0


def gather(
    x: Tensor, gates: Tensor | None, tokens: Tensor, offsets: Tensor, places: Tensor
) -> Tensor:
    """Return rows r = `gates[r] * x[tokens[r]]`, zero where a row belongs to nobody."""
    rows = x.index_select(0, tokens)
    if gates is not None:
        rows.mul_(gates.unsqueeze(1))
    used = offsets.tolist()[-1]
    if used < len(rows):
        rows[used:] = 0
    return rows


def combine(
    y: Tensor, gates: Tensor | None, tokens: Tensor, offsets: Tensor, places: Tensor
) -> Tensor:
    """Sum `gates[r] * y[r]` over the rows r of each token: the transpose of `gather`.

    Takes the rows of each token in the order of its slots, so that the sum has one order.
    """
    used = offsets.tolist()[-1]
    if not used:
        return y.new_zeros(places.shape[0], y.shape[1])
    precise = torch.promote_types(y.dtype, torch.float32)
    valid, factors = places < used, None
    if not valid.all():
        places, factors = places.clamp(max=used - 1), valid.to(precise)
    if gates is not None:
        weights = gates.to(precise).index_select(0, places.flatten()).view(places.shape)
        factors = weights if factors is None else weights * factors
    elif factors is None and places.shape[1] == 1:
        return y.index_select(0, places[:, 0])
    total = functional.embedding_bag(places, y.to(precise), mode="sum", per_sample_weights=factors)
    return total.to(y.dtype)


def gate_grad(y: Tensor, grad: Tensor, tokens: Tensor, offsets: Tensor) -> Tensor:
    """Return `y[r] · grad[tokens[r]]` by row, zero where it is nobody's; float32 or wider."""
    rows = len(y)
    y, tokens = _drop_unused(offsets, y, tokens)
    precise = torch.promote_types(y.dtype, torch.float32)
    dots = torch.linalg.vecdot(y.to(precise), grad.index_select(0, tokens).to(precise))
    return functional.pad(dots, (0, rows - len(y))) if len(y) < rows else dots


def _drop_unused(offsets: Tensor, *tensors: Tensor | None) -> list[Tensor | None]:
    """Return the tensors without the rows behind the last offset, which belong to no expert."""
    rows = offsets.tolist()[-1]
    return [t if t is None or len(t) == rows else t[:rows] for t in tensors]
