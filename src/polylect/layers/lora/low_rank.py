"""Low-rank updates of a linear layer where neighbouring rows may use different adapters.

A batch is cut into G groups of rows that share an adapter (`RowGroups`), so that one batched
product serves all of them, whatever their number K. The factors of adapter k are A_k (rank, in)
and B_k (out, rank); group g computes y_g = x_g Wᵀ + s_g (x_g A_gᵀ) B_gᵀ (LoRA, arXiv 2106.09685).
A group on the base alone has s_g = 0 and factors of zeros: those of some adapter would do, but for
one that is not finite, as 0 times NaN is NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from polylect.layers.context import RowGroups


@dataclass(frozen=True)
class Plan:
    """Who is who in a batch: shared by all layers with the same adapters and scalings."""

    adapters: tuple[str, ...]
    """those that occur in the batch and in the layer"""
    order: tuple[int, ...]
    """position in `adapters` for each group of rows; after the last for the base alone"""
    scaling: Tensor
    """(groups, 1, 1); zero for a group on the base alone"""

    @classmethod
    def from_groups(cls, groups: RowGroups, scaling: dict[str, float], like: Tensor) -> "Plan":
        """Return the plan for layers with these scalings by adapter, whose input is like `like`."""
        adapters = tuple(name for name in groups.distinct if name in scaling)
        position = {name: k for k, name in enumerate(adapters)}
        order = tuple(position.get(name, len(adapters)) for name in groups.names)
        by_group = torch.tensor(
            [scaling.get(name, 0.0) for name in groups.names], dtype=torch.float64
        )
        precise = torch.promote_types(like.dtype, torch.float32)
        return cls(adapters, order, by_group.to(like.device, precise).view(-1, 1, 1))


def stack_factors(factors: Sequence[Tensor], rank_dim: int, dtype: torch.dtype) -> Tensor:
    """Stack the factors of several adapters, and zeros for the base alone as the last.

    Lower ranks are filled up with zeros.
    """
    even = _pad_ranks(factors, rank_dim)
    return torch.stack([*even, torch.zeros_like(even[0])]).to(dtype)


def gather_factors(
    factors: Sequence[Tensor], order: Sequence[int], rank_dim: int, dtype: torch.dtype
) -> Tensor:
    """Return the factor of each group, copied; not meant for autograd.

    One `torch.stack` of repeated entries takes a third of the time of a stack and an index
    (32 groups, 16 x 256, 2 threads: 24 against 64 us), as it wakes no second thread.

    Args:
        factors: A_k (rank, in) or B_k (out, rank) of the K adapters in use.
        order: position of each group's factor; K stands for zeros.
        rank_dim: the dimension of a factor that is the rank.
        dtype: of the result.
    """
    even = _pad_ranks(factors, rank_dim)
    if len(even) in order:
        even = [*even, torch.zeros_like(even[0])]
    if len(order) == 1:
        return even[order[0]].to(dtype)[None]
    return torch.stack([even[k] for k in order]).to(dtype)


def _pad_ranks(factors: Sequence[Tensor], rank_dim: int) -> Sequence[Tensor]:
    ranks = [factor.shape[rank_dim] for factor in factors]
    if min(ranks) == max(ranks):
        return factors
    after = (0, 0) * (factors[0].dim() - 1 - rank_dim)
    return [
        functional.pad(factor, (*after, 0, max(ranks) - rank))
        for factor, rank in zip(factors, ranks, strict=True)
    ]


def add_update(
    y: Float[Tensor, "groups tokens out"],
    x: Float[Tensor, "groups tokens in"],
    a: Float[Tensor, "groups rank in"],
    b: Float[Tensor, "groups out rank"],
    scaling: Float[Tensor, "groups 1 1"],
) -> Float[Tensor, "groups tokens out"]:
    """Compute y + s (x Aᵀ) Bᵀ for every group: the definition, differentiable but in `scaling`."""
    h = torch.bmm(x, a.transpose(1, 2)) * scaling.to(x.dtype)
    return torch.baddbmm(y, h, b.transpose(1, 2))


class FrozenLinearUpdate(torch.autograd.Function):
    """A frozen linear and its low-rank updates as one step of the graph.

    The same numbers as `linear` followed by `add_update`, but updates are accumulated in place into
    the output (forward) and into the input's gradient (backward), which spares two passes over
    memory, and an adapter's gradient is written once. Kept for backward: x and h = s x Aᵀ.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scaling: Tensor,
        order: Sequence[int],
        *factors: Tensor,
    ) -> Tensor:
        """`order` is as in `gather_factors`, `factors` are every adapter's A and then every B."""
        adapters = len(factors) // 2
        a = gather_factors(factors[:adapters], order, 0, x.dtype)
        b = gather_factors(factors[adapters:], order, 1, x.dtype)
        y = functional.linear(x, weight, bias)
        h = torch.bmm(_by_group(x, a), a.transpose(1, 2)).mul_(scaling)
        _by_group(y, b).baddbmm_(h, b.transpose(1, 2))
        ctx.save_for_backward(x, weight, h, scaling, *factors)
        ctx.order = order
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple:
        x, weight, h, scaling, *factors = ctx.saved_tensors
        adapters = len(factors) // 2
        b = gather_factors(factors[adapters:], ctx.order, 1, x.dtype)
        grad_groups = _by_group(grad.contiguous(), b)
        grad_h = torch.bmm(grad_groups, b).mul_(scaling)
        grad_x = None
        if ctx.needs_input_grad[0]:
            a = gather_factors(factors[:adapters], ctx.order, 0, x.dtype)
            grad_x = grad @ weight
            _by_group(grad_x, a).baddbmm_(grad_h, a)
        needs_a, needs_b = ctx.needs_input_grad[5:][:adapters], ctx.needs_input_grad[5:][adapters:]
        grads: list[Tensor | None] = [None] * len(factors)
        if any(needs_a):
            of_groups = torch.bmm(grad_h.transpose(1, 2), _by_group(x, grad_h))
            grads[:adapters] = _per_adapter(of_groups, ctx.order, factors[:adapters], needs_a)
        if any(needs_b):
            of_groups = torch.bmm(grad_groups.transpose(1, 2), h)
            grads[adapters:] = _per_adapter(of_groups, ctx.order, factors[adapters:], needs_b)
        return grad_x, None, None, None, None, *grads


def _by_group(rows: Tensor, groups: Tensor) -> Tensor:
    return rows.reshape(groups.shape[0], -1, rows.shape[-1])


def _per_adapter(
    of_groups: Tensor, order: Sequence[int], factors: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None]:
    """Return the gradient of each adapter's factor: the sum over the groups that use it."""
    precise = torch.promote_types(of_groups.dtype, torch.float32)
    if len(set(order)) == len(order):
        totals = dict(zip(order, of_groups, strict=True))
    elif of_groups.is_cpu:
        # index_add_ wakes the other threads for every group: 250 against 80 us (32 x 16 x 256)
        totals = {}
        for k, part in zip(order, of_groups.unbind(), strict=True):
            if k == len(factors):  # the base alone
                continue
            totals[k] = totals[k].add_(part) if k in totals else part.to(precise, copy=True)
    else:
        index = torch.tensor(order, device=of_groups.device)
        shape = (len(factors) + 1, *of_groups.shape[1:])
        summed = of_groups.new_zeros(shape, dtype=precise)
        totals = dict(enumerate(summed.index_add_(0, index, of_groups.to(precise))))
    return [
        totals[k][: factor.shape[0], : factor.shape[1]].to(factor.dtype) if need else None
        for k, (factor, need) in enumerate(zip(factors, needed, strict=True))
    ]
