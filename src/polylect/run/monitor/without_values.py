"""A training step on tensors that have shapes and no values: seconds, whatever the model's size."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from polylect.data.batch import IGNORED, TranslationBatch
from polylect.layers.neurons.bank import NeuronBank
from polylect.layers.neurons.row_bank import RowBank
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import losses_at


class TrainingStep(nn.Module):
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


def learned_places(batch: TranslationBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, position and token of everything that is learned: what `losses_at` takes."""
    labels = batch.labels[:, 1:]
    rows, positions = torch.nonzero(labels != IGNORED, as_tuple=True)
    return rows, positions, labels[rows, positions]


def run_without_values(
    step: nn.Module,
    batch: TranslationBatch,
    known: tuple[Tensor, ...],
    run: Callable[..., None],
    halved: torch.dtype | None = None,
) -> bool:
    """Call `run(weights by name, batch, *known)` with tensors that have shapes alone.

    Returns whether that went well: False where the shapes of what is computed depend on values.

    Args:
        step: has the strategy as `module`; its backbone may be on the meta device.
        batch: on the CPU.
        halved: type of all floating-point weights; None for their own.
    """
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
        FakeTensorMode,
    )

    weights = {**dict(step.named_parameters()), **dict(step.named_buffers())}
    try:
        _plan(step.module, batch)
        with FakeTensorMode(allow_non_fake_inputs=True):
            fake = {name: _fake(tensor, halved) for name, tensor in weights.items()}
            shown = TranslationBatch(
                *(_fake(t) for t in (batch.input_ids, batch.attention_mask, batch.labels)),
                *(batch.directions, batch.sources, batch.references, batch.adapters),
            )
            run(fake, shown, *map(_fake, known))
    except (DataDependentOutputException, DynamicOutputShapeException):
        return False
    return True


def _plan(module: TranslationModule, batch: TranslationBatch) -> None:
    """Let sets of neurons, whose places are values, work out which of them the batch uses."""
    banks = [m for m in module.modules() if isinstance(m, NeuronBank | RowBank)]
    if not banks:
        return
    with module.routing(batch):
        for bank in banks:
            bank.plan(torch.empty(batch.rows, 1, 1))


def dtype_of(tensor: Tensor, halved: torch.dtype | None) -> torch.dtype:
    """Return the type that a weight has in training."""
    return halved if halved and tensor.is_floating_point() else tensor.dtype


def _fake(tensor: Tensor, halved: torch.dtype | None = None) -> Tensor:
    """Within a FakeTensorMode: a tensor of the same shape, a parameter for a parameter."""
    made = torch.empty(tensor.shape, dtype=dtype_of(tensor, halved), device="cpu")
    if not isinstance(tensor, nn.Parameter):
        return made
    return nn.Parameter(made, requires_grad=tensor.requires_grad)


def type_of_weights(precision: str) -> torch.dtype | None:
    """Return the type of all weights with `trainer.precision`, None where it leaves them theirs."""
    return _half(precision) if precision.endswith("-true") else None


def _half(precision: str) -> torch.dtype | None:
    kinds = {"bf16": torch.bfloat16, "16": torch.float16}
    return kinds.get(precision.partition("-")[0])


def _autocast(precision: str) -> AbstractContextManager[Any]:
    kind = _half(precision) if precision.endswith("-mixed") else None
    return torch.autocast("cpu", kind) if kind else nullcontext()
