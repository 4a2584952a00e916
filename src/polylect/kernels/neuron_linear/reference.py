"""The products of a linear layer some of whose rows or columns are replaced, in plain PyTorch.

W' is `weight` (d_out, d_in) with the rows (`dim` 0) or columns (`dim` 1) named by `index` replaced
by `values`. No copy of the weight is made: the replaced part is multiplied a second time. Also the
path taken on a CPU.
"""

from torch import Tensor

NAMES = ("rows", "columns")


def forward(
    x: Tensor,
    weight: Tensor,
    index: Tensor,
    values: Tensor,
    bias: Tensor | None,
    own_bias: Tensor | None,
    dim: int,
) -> Tensor:
    """Compute x W'ᵀ + b' (tokens, d_out); `own_bias` replaces the entries `index` of the bias."""
    check(index, weight.shape[dim], dim)
    bias = replaced_bias(weight, index, bias, own_bias)
    y = _twice(x, weight.t(), index, values.to(weight.dtype).t(), 1 - dim)
    return y if bias is None else y.add_(bias)


def input_grad(grad: Tensor, weight: Tensor, index: Tensor, values: Tensor, dim: int) -> Tensor:
    """Compute grad W' (tokens, d_in)."""
    return _twice(grad, weight, index, values.to(weight.dtype), dim)


def values_grad(grad: Tensor, x: Tensor, index: Tensor, values: Tensor, dim: int) -> Tensor:
    """Return the rows or columns `index` of gradᵀ x, formed alone; shape and dtype of `values`."""
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
    """Return b' (d_out,), zero where neither has an entry."""
    if own_bias is None:
        return bias
    whole = weight.new_zeros(weight.shape[0]) if bias is None else bias
    return whole.index_copy(0, index, own_bias.to(whole.dtype))


def _twice(a: Tensor, m: Tensor, index: Tensor, values: Tensor, dim: int) -> Tensor:
    """Return a m', where the rows or columns (`dim`) `index` of m are replaced by `values`."""
    if not index.numel():
        return a @ m
    if dim == 1:
        return (a @ m).index_copy_(1, index, a @ values)
    return (a.index_fill(1, index, 0) @ m).addmm_(a.index_select(1, index), values)
