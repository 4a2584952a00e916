"""Low-rank updates of a linear layer where neighbouring rows may use different adapters.

A batch is cut into G groups of rows that share an adapter (`RowGroups`), so that one batched
product serves all of them, whatever their number K. The factors of adapter k are A_k (rank, in)
and B_k (out, rank); group g computes y_g = x_g Wᵀ + s_g (x_g A_gᵀ) B_gᵀ (LoRA, arXiv 2106.09685).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def stacked(factors: Sequence[Tensor], rank_dim: int, dtype: torch.dtype) -> Tensor:
    """Factors of several adapters as one tensor; lower ranks are filled up with zeros."""
    rank = max(factor.shape[rank_dim] for factor in factors)
    if any(factor.shape[rank_dim] != rank for factor in factors):
        after = (0, 0) * (factors[0].dim() - 1 - rank_dim)
        factors = [functional.pad(f, (*after, 0, rank - f.shape[rank_dim])) for f in factors]
    return torch.stack([factor.to(dtype) for factor in factors])


def gathered(
    factors: Sequence[Tensor],
    index: Int[Tensor, " groups"] | None,
    rank_dim: int,
    dtype: torch.dtype,
) -> Tensor:
    """The factor of each group.

    Args:
        factors: A_k (rank, in) or B_k (out, rank) of the K adapters in use.
        index: position of each group's adapter, K for a group on the base alone (its factor is
            zero); None where group g uses factor g.
        rank_dim: the dimension of a factor that is the rank.
        dtype: of the result.
    """
    if index is None:
        return stacked(factors, rank_dim, dtype)
    return stacked([*factors, torch.zeros_like(factors[0])], rank_dim, dtype)[index]


def updated(
    y: Float[Tensor, "groups tokens out"],
    x: Float[Tensor, "groups tokens in"],
    a: Float[Tensor, "groups rank in"],
    b: Float[Tensor, "groups out rank"],
    scaling: Float[Tensor, "groups 1 1"],
) -> Float[Tensor, "groups tokens out"]:
    """y + s (x Aᵀ) Bᵀ for every group: the definition, differentiable in all but `scaling`."""
    h = torch.bmm(x, a.transpose(1, 2)) * scaling.to(x.dtype)
    return torch.baddbmm(y, h, b.transpose(1, 2))


class FrozenLinearUpdate(torch.autograd.Function):
    """A frozen linear and its low-rank updates as one step of the graph.

    The same numbers as `linear` followed by `updated`, but updates are accumulated in place into
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
        index: Tensor | None,
        *factors: Tensor,
    ) -> Tensor:
        """`factors` are the A of every adapter in use, then the B."""
        adapters = len(factors) // 2
        a = gathered(factors[:adapters], index, 0, x.dtype)
        b = gathered(factors[adapters:], index, 1, x.dtype)
        y = functional.linear(x, weight, bias)
        h = torch.bmm(_grouped(x, a), a.transpose(1, 2)).mul_(scaling)
        _grouped(y, b).baddbmm_(h, b.transpose(1, 2))
        ctx.save_for_backward(x, weight, h, scaling, index, *factors)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple:
        x, weight, h, scaling, index, *factors = ctx.saved_tensors
        adapters = len(factors) // 2
        a_factors, b_factors = factors[:adapters], factors[adapters:]
        needs = ctx.needs_input_grad
        b = gathered(b_factors, index, 1, x.dtype)
        grad_groups = _grouped(grad.contiguous(), b)
        grad_h = torch.bmm(grad_groups, b).mul_(scaling)
        grad_x = None
        if needs[0]:
            a = gathered(a_factors, index, 0, x.dtype)
            grad_x = grad @ weight
            _grouped(grad_x, a).baddbmm_(grad_h, a)
        grads: list[Tensor | None] = [None] * len(factors)
        if any(needs[5 : 5 + adapters]):
            of_groups = torch.bmm(grad_h.transpose(1, 2), _grouped(x, grad_h))
            for k, total in enumerate(_per_adapter(of_groups, index, adapters)):
                grads[k] = total[: a_factors[k].shape[0]] if needs[5 + k] else None
        if any(needs[5 + adapters :]):
            of_groups = torch.bmm(grad_groups.transpose(1, 2), h)
            for k, total in enumerate(_per_adapter(of_groups, index, adapters)):
                used = needs[5 + adapters + k]
                grads[adapters + k] = total[:, : b_factors[k].shape[1]] if used else None
        return grad_x, None, None, None, None, *grads


def _grouped(rows: Tensor, groups: Tensor) -> Tensor:
    return rows.reshape(groups.shape[0], -1, rows.shape[-1])


def _per_adapter(of_groups: Tensor, index: Tensor | None, adapters: int) -> Sequence[Tensor]:
    """Sums what the groups of one adapter contributed."""
    if index is None:
        return of_groups.unbind()
    total = of_groups.new_zeros(adapters + 1, *of_groups.shape[1:])
    return total.index_add_(0, index, of_groups)[:adapters].unbind()
