"""Makes an operator of its parts: definition, kernel, shape, gradient."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter


def operator(
    reference: Callable[..., Tensor],
    *,
    name: str,
    kernel: str,
    fake: Callable[..., Tensor],
    keep: Callable[..., None] | None = None,
    backward: Callable[..., tuple] | None = None,
) -> Callable[..., Tensor]:
    """Register `torch.ops.polylect.<name>`; what is returned calls it.

    On a CPU, outside of compilers, the call goes to the reference by a plain autograd function:
    between two large products, when the caches are cold, that takes 0.15 ms and a custom operator
    0.3 ms, ten times in a forward and backward pass of a layer of experts, which may take 20 ms.

    Args:
        reference: the meaning, in plain torch; annotated with `Tensor` and `Tensor | None`. Its
            first argument is a tensor.
        name: of the operator.
        kernel: dotted path of a module with a function of the reference's name and arguments, for
            CUDA; imported when it is needed.
        fake: an empty tensor like the result, from the same arguments.
        keep: `setup_context` of an autograd function; None where there is no gradient.
        backward: its `backward`.
    """
    op = torch.library.custom_op(f"polylect::{name}", reference, mutates_args=())
    op.register_fake(fake)

    @op.register_kernel("cuda")
    def on_cuda(*args: Any) -> Tensor:
        return getattr(import_module(kernel), reference.__name__)(*args)

    with_grad = reference
    if keep is not None and backward is not None:
        op.register_autograd(backward, setup_context=keep)

        # `forward` keeps what there is to keep, as a `setup_context` of its own costs 0.1 ms a call
        def forward(ctx: Any, *inputs: Any) -> Tensor:
            output = reference(*inputs)
            keep(ctx, inputs, output)
            return output

        methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        with_grad = type(name, (torch.autograd.Function,), methods).apply

    def call(first: Tensor, *others: Any) -> Tensor:
        plain = type(first) is Tensor or type(first) is Parameter
        if not plain or first.device.type != "cpu" or torch.compiler.is_compiling():
            return op(first, *others)
        return with_grad(first, *others) if torch.is_grad_enabled() else reference(first, *others)

    return call
