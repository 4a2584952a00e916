"""Estimates the memory of a training step on tensors that have shapes and no values."""

import resource
import sys
import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from polylect.data.batch import IGNORED, TranslationBatch
from polylect.layers.neurons.bank import NeuronBank
from polylect.layers.neurons.row_bank import RowBank
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import losses_at

BETWEEN_BLOCKS = 0.5
"""Of what a step holds, what glibc's allocator keeps beside it on a CPU, between blocks of batches
of other sizes. Measured on five shapes, 0.3 to 0.9; with every block mapped for itself it is 0."""

_FIRST_STEP = 32 * 2**20
"""What the first step adds to the process: code of kernels, threads, callbacks."""


@dataclass(frozen=True)
class StepBytes:
    """Bytes at the moment of a training step when most is held, by what they are."""

    weights: int
    gradients: int
    state: int  # of the optimizer
    activations: int | None  # None where they depend on values, of which shapes do not tell

    @property
    def total(self) -> int:
        """The sum of all parts that are known."""
        return self.weights + self.gradients + self.state + (self.activations or 0)


def step_bytes(module: TranslationModule, batch: TranslationBatch, precision: str) -> StepBytes:
    """Return what a training step of the strategy on this batch holds.

    Runs forward and backward without values: it takes seconds, whatever the size of the model.

    Args:
        module: with its backbone, which may be on the meta device.
        batch: on the CPU.
        precision: as in `trainer.precision`.
    """
    halved = _half(precision) if precision.endswith("-true") else None
    own = {id(p): p for p in module.parameters()}.values()
    sizes = {id(p): p.numel() * _dtype(p, halved).itemsize for p in own}
    trained = [p for group in module.parameter_groups() for p in group["params"]]
    weights, gradients = sum(sizes.values()), sum(sizes[id(p)] for p in trained)
    peak = _peak(module, batch, precision, halved)
    return StepBytes(
        weights=weights,
        gradients=gradients,
        state=int(gradients * _state_per_weight(module)),
        activations=None if peak is None else max(0, peak - weights - gradients),
    )


def process_bytes(module: TranslationModule) -> int:
    """Return what the process holds on the CPU beside tensors: Python, libraries, data."""
    weights = sum(p.numel() * p.element_size() for p in module.parameters() if not p.is_meta)
    return max(0, _resident() - weights) + _FIRST_STEP


def _resident() -> int:
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _state_per_weight(module: TranslationModule) -> float:
    """Return the bytes that the optimizer keeps for a byte of weights: 2 for AdamW."""
    weight = nn.Parameter(torch.zeros(64, 64))
    weight.grad = torch.zeros_like(weight)
    if module.optimizer is None:
        return 0.0
    optimizer = module.optimizer([weight])
    optimizer.step()
    moments = [t for state in optimizer.state.values() for t in state.values()]
    return sum(t.numel() for t in moments if isinstance(t, Tensor)) // weight.numel()


class _Live(TorchDispatchMode):
    """Counts the bytes of tensors that exist within it, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.equal.default:
            return False  # what is kept of weights has changed, as it has after each step
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.add(tensor)
        return result

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:
            self._storages.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.now -= size


class _Step(nn.Module):
    """A training step as a module, so that it runs with other weights, forward and backward."""

    def __init__(self, module: TranslationModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: TranslationBatch, *known: Tensor, precision: str) -> None:
        with _autocast(precision), self.module.routing(batch):
            losses = losses_at(self.module.backbone, batch, *known)
            loss = losses.sum() + self.module.auxiliary_loss().sum()
        for parameter in self.parameters():
            parameter.grad = None  # as Lightning does, after the forward pass
        loss.backward()


def _peak(
    module: TranslationModule, batch: TranslationBatch, precision: str, halved: torch.dtype | None
) -> int | None:
    """Return the most bytes held at once in a step while the last step's gradients are kept.

    None where the shapes of what is computed depend on values.
    """
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
        FakeTensorMode,
    )

    labels = batch.labels[:, 1:]
    rows, positions = torch.nonzero(labels != IGNORED, as_tuple=True)
    known = (rows, positions, labels[rows, positions])
    step, was_training = _Step(module), module.training
    weights = {**dict(step.named_parameters()), **dict(step.named_buffers())}
    module.train()
    try:
        _plan(module, batch)
        with FakeTensorMode(allow_non_fake_inputs=True):
            fake = {name: _fake(tensor, halved) for name, tensor in weights.items()}
            shown = TranslationBatch(
                *(_fake(t) for t in (batch.input_ids, batch.attention_mask, batch.labels)),
                *(batch.directions, batch.sources, batch.references, batch.adapters),
            )
            inputs = (shown, *map(_fake, known))
            with _Live() as live:
                for tensor in fake.values():
                    live.add(tensor)
                    if tensor.requires_grad:
                        tensor.grad = torch.empty_like(tensor)
                torch.func.functional_call(step, fake, inputs, {"precision": precision})
            return live.peak
    except (DataDependentOutputException, DynamicOutputShapeException):
        return None
    finally:
        module.train(was_training)


def _plan(module: TranslationModule, batch: TranslationBatch) -> None:
    """Let sets of neurons, whose places are values, work out which of them the batch uses."""
    banks = [m for m in module.modules() if isinstance(m, NeuronBank | RowBank)]
    if not banks:
        return
    with module.routing(batch):
        for bank in banks:
            bank.plan(torch.empty(batch.rows, 1, 1))


def _dtype(tensor: Tensor, halved: torch.dtype | None) -> torch.dtype:
    return halved if halved and tensor.is_floating_point() else tensor.dtype


def _fake(tensor: Tensor, halved: torch.dtype | None = None) -> Tensor:
    """Within a FakeTensorMode: a tensor of the same shape, a parameter for a parameter."""
    made = torch.empty(tensor.shape, dtype=_dtype(tensor, halved), device="cpu")
    if not isinstance(tensor, nn.Parameter):
        return made
    return nn.Parameter(made, requires_grad=tensor.requires_grad)


def _half(precision: str) -> torch.dtype | None:
    kinds = {"bf16": torch.bfloat16, "16": torch.float16}
    return kinds.get(precision.partition("-")[0])


def _autocast(precision: str) -> AbstractContextManager[Any]:
    kind = _half(precision) if precision.endswith("-mixed") else None
    return torch.autocast("cpu", kind) if kind else nullcontext()
