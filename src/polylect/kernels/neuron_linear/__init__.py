"""A frozen linear layer some of whose neurons are trained: only those get gradients.

A neuron of a feed-forward block is a row of its up and gate projections and a column of its down
projection. `neuron_linear` takes the trained rows beside the frozen weight, `neuron_linear_in` the
trained columns; no other part of the weight has a gradient or an optimizer state. On a CUDA device
the products are Triton kernels, everywhere else plain PyTorch.

`patched_linear` takes a weight into which the trained rows or columns have been written: forward it
is any linear layer, and the price is the memory of such a weight.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.kernels.neuron_linear import reference
from polylect.kernels.neuron_linear.patched import patched_linear
from polylect.kernels.neuron_linear.reference import NAMES
from polylect.kernels.operator import operator

__all__ = ["neuron_linear", "neuron_linear_in", "patched_linear"]


def neuron_linear(
    x: Float[Tensor, "*batch d_in"],
    weight: Float[Tensor, "d_out d_in"],
    rows: Int[Tensor, " n"],
    values: Float[Tensor, "n d_in"],
    bias: Float[Tensor, " d_out"] | None = None,
    row_bias: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "*batch d_out"]:
    """Return the linear layer whose `rows` are `values`; differentiable in x, values and row_bias.

    Computed in the dtype of `weight`, or in that of autocast; a gradient has the dtype of what it
    is the gradient of, so that `values` may be float32 masters of a 16-bit weight.

    Args:
        x: inputs; no tokens at all are fine.
        weight: frozen. Its own `rows` should be finite, though they are not used.
        rows: distinct, in any order, may be empty. Their values are checked everywhere but on a
            CUDA device, which would have to be waited for.
        values: the rows that stand in for those of `weight`.
        bias: frozen.
        row_bias: stands in for the entries `rows` of the bias (of zeros if there is none).

    Raises:
        ValueError: a shape, index or dtype does not fit, or `weight` or `bias` requires a gradient.
    """
    return _linear(x, weight, rows, values, bias, row_bias, 0)


def neuron_linear_in(
    x: Float[Tensor, "*batch d_in"],
    weight: Float[Tensor, "d_out d_in"],
    columns: Int[Tensor, " n"],
    values: Float[Tensor, "d_out n"],
    bias: Float[Tensor, " d_out"] | None = None,
) -> Float[Tensor, "*batch d_out"]:
    """Return the linear layer whose input `columns` are `values`; differentiable in x and values.

    Dtypes, arguments and errors as in `neuron_linear`.
    """
    return _linear(x, weight, columns, values, bias, None, 1)


def _linear(
    x: Tensor,
    weight: Tensor,
    index: Tensor,
    values: Tensor,
    bias: Tensor | None,
    own_bias: Tensor | None,
    dim: int,
) -> Tensor:
    _check_shapes(x, weight, index, values, bias, own_bias, dim)
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    y = _forward(
        x.reshape(-1, weight.shape[1]).to(dtype),
        weight.to(dtype),
        index.long(),
        values,
        None if bias is None else bias.to(dtype),
        own_bias,
        dim,
    )
    return y.view(*x.shape[:-1], weight.shape[0])


def _check_shapes(
    x: Tensor,
    weight: Tensor,
    index: Tensor,
    values: Tensor,
    bias: Tensor | None,
    own_bias: Tensor | None,
    dim: int,
) -> None:
    name = NAMES[dim]
    if weight.dim() != 2 or not weight.numel():
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, expected (d_out, d_in), both at least 1"
        )
    d_out, d_in = weight.shape
    if x.dim() == 0 or x.shape[-1] != d_in:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, expected (*batch, {d_in}) for a weight of shape "
            f"{(d_out, d_in)}"
        )
    if index.dim() != 1:
        raise ValueError(f"{name} has shape {tuple(index.shape)}, expected (n,)")
    if index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(f"{name} has dtype {index.dtype}, expected integers")
    count = index.shape[0]
    expected = {
        "values": (values, (count, d_in) if dim == 0 else (d_out, count)),
        "bias": (bias, (d_out,)),
        "row_bias": (own_bias, (count,)),
    }
    for argument, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(
                f"{argument} has shape {tuple(tensor.shape)}, expected {shape} for {count} {name} "
                f"of a weight of shape {(d_out, d_in)}"
            )
    for argument, tensor in {"weight": weight, "bias": bias}.items():
        if tensor is not None and tensor.requires_grad:
            raise ValueError(
                f"{argument} requires a gradient, which is formed for the {name} alone: "
                f"call {argument}.requires_grad_(False)"
            )


def _keep(ctx, inputs, output) -> None:
    x, weight, index, values, _, own_bias, ctx.dim = inputs
    ctx.save_for_backward(x if ctx.needs_input_grad[3] else None, weight, index, values)
    ctx.bias_dtype = None if own_bias is None else own_bias.dtype


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, index, values = ctx.saved_tensors
    for_x = for_values = for_bias = None
    if ctx.needs_input_grad[0]:
        for_x = _input_grad(grad, weight, index, values, ctx.dim)
    if ctx.needs_input_grad[3]:
        for_values = _values_grad(grad, x, index, values, ctx.dim)
    if ctx.needs_input_grad[5]:
        for_bias = grad.index_select(1, index).sum(0).to(ctx.bias_dtype)
    return for_x, None, None, for_values, None, for_bias, None


KERNEL = "polylect.kernels.neuron_linear.kernel"
_forward = operator(
    reference.forward,
    name="neuron_linear",
    kernel=KERNEL,
    fake=lambda x, weight, *others: x.new_empty(x.shape[0], weight.shape[0]),
    keep=_keep,
    backward=_backward,
)
_input_grad = operator(
    reference.input_grad,
    name="neuron_linear_input_grad",
    kernel=KERNEL,
    fake=lambda grad, weight, *others: grad.new_empty(grad.shape[0], weight.shape[1]),
)
_values_grad = operator(
    reference.values_grad,
    name="neuron_linear_values_grad",
    kernel=KERNEL,
    fake=lambda grad, x, index, values, dim: values.new_empty(values.shape),
)
