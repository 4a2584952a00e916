"""Estimates the memory of a training step on tensors that have shapes and no values."""

import resource
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from polylect.data.batch import TranslationBatch
from polylect.run.monitor.without_values import (
    TrainingStep,
    dtype_of,
    learned_places,
    run_without_values,
    type_of_weights,
)
from polylect.strategies.base import TranslationModule

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
    halved = type_of_weights(precision)
    own = {id(p): p for p in module.parameters()}.values()
    sizes = {id(p): p.numel() * dtype_of(p, halved).itemsize for p in own}
    trained = [p for group in module.parameter_groups() for p in group["params"]]
    weights, gradients = sum(sizes.values()), sum(sizes[id(p)] for p in trained)
    peak = _peak(module, batch, precision, halved)
    return StepBytes(
        weights=weights,
        gradients=gradients,
        state=int(gradients * state_per_weight(module)),
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


def state_per_weight(module: TranslationModule) -> float:
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


def _peak(
    module: TranslationModule, batch: TranslationBatch, precision: str, halved: torch.dtype | None
) -> int | None:
    """Return the most bytes held at once in a step while the last step's gradients are kept.

    None where the shapes of what is computed depend on values.
    """
    step, live, was_training = TrainingStep(module), _Live(), module.training

    def run(weights: dict[str, Tensor], *inputs: Any) -> None:
        with live:
            for tensor in weights.values():
                live.add(tensor)
                if tensor.requires_grad:
                    tensor.grad = torch.empty_like(tensor)
            torch.func.functional_call(step, weights, inputs, {"precision": precision})

    module.train()
    try:
        known = learned_places(batch)
        return live.peak if run_without_values(step, batch, known, run, halved) else None
    finally:
        module.train(was_training)
