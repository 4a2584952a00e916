"""Counts floating-point operations by module, forward and backward.

`torch.utils.flop_counter` has the formulas, and its totals. It does not know to which module an
operation of a backward pass belongs, and lacks some operations.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.autograd import _get_sequence_nr
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import (
    flop_registry,
    sdpa_backward_flop_count,
    sdpa_flop_count,
    shape_wrapper,
)

_ATEN = torch.ops.aten


def _attention(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    gradient: Sequence[int],
    query: Sequence[int],
    key: Sequence[int],
    value: Sequence[int],
    *_: Any,
    **__: Any,
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


def _product(left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(left) * right[-1]


def _added(_: Sequence[int], left: Sequence[int], right: Sequence[int], **__: Any) -> int:
    return _product(left, right)


FORMULAS = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _ATEN.addmm_: _added,
    _ATEN.baddbmm_: _added,
    _ATEN._grouped_mm: _product,
}
"""Formulas, from shapes, that torch lacks: attention on CPUs, products in place and by group."""

_KNOWN = {**flop_registry, **{of: shape_wrapper(f) for of, f in FORMULAS.items()}}


class OperationCounter(TorchDispatchMode):
    """Counts, within it, the operations of products of matrices; others are not worth counting.

    A product of m x k with k x n has 2 m k n. Masked places of attention count as all others;
    products of sparse matrices (of routers with many adapters, on CPUs) do not count. Tensors
    without values will do.

    Args:
        root: whose modules are told apart.

    Attributes:
        ran: paths of the modules that ran.
        forward: operations by the path of the innermost module that ran, of those with
            parameters; "" for none.
        backward: likewise, by the module whose forward pass they are the gradient of.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.ran: set[str] = set()
        self.forward: Counter[str] = Counter()
        self.backward: Counter[str] = Counter()
        self._root = root
        self._running: list[str] = []
        self._owners: dict[int, str] = {}  # of nodes of autograd, by their numbers
        self._hooks: list[Any] = []

    def __enter__(self) -> "OperationCounter":
        if not self._hooks:  # entered again where an operation is decomposed
            for name, module in self._root.named_modules():
                if next(module.parameters(), None) is None:
                    continue  # an activation's operations are those of the module around it
                begin, end = partial(self._begin, name), self._end
                self._hooks.append(module.register_forward_pre_hook(begin))
                self._hooks.append(module.register_forward_hook(end, always_call=True))
        return super().__enter__()

    def close(self) -> None:
        """Take the hooks off the modules."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _begin(self, name: str, *_: Any) -> None:
        self._running.append(name)
        self.ran.add(name)

    def _end(self, *_: Any) -> None:
        self._running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _ATEN.equal.default:
            return False  # what is kept of weights has changed, as it has after each step
        formula = _KNOWN.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if self._running:
            # The node of this operation, or of the function that computes it, was made last.
            self._owners.setdefault(_get_sequence_nr() - 1, self._running[-1])
        result = func(*args, **kwargs)
        if formula is not None:
            self._add(int(formula(*args, **kwargs, out_val=result)))
        return result

    def _add(self, operations: int) -> None:
        running, node = (self._running or [""])[-1], torch._C._current_autograd_node()
        if node is None:
            self.forward[running] += operations
        else:  # modules that run within a backward pass are computed again
            self.backward[running or self._owners.get(node._sequence_nr(), "")] += operations
