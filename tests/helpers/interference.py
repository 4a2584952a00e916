"""Measurements of the interference ledger without a trainer."""

from contextlib import nullcontext
from types import SimpleNamespace

import torch

from polylect.data.batch import TranslationBatch
from polylect.run.interference.measuring import Measurement
from polylect.strategies.base import TranslationModule


class OneProcess:
    """What a measurement needs of a trainer in one process and full precision."""

    precision_plugin = SimpleNamespace(train_step_context=nullcontext)
    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)


def measured(module: TranslationModule, batch: TranslationBatch, size: int = 1021) -> torch.Tensor:
    """Inner products of the directions' gradients of the whole batch, layer by layer."""
    everything = float(len(module.directions))
    measurement = Measurement(module, module.parameter_groups(), everything, size, 0)
    measurement.begin(0)
    measurement.take_batch(OneProcess, batch, 0)
    measurement.take_step([1.0] * (1 + max(module.units().values())))
    gram = measurement.end(OneProcess, last=False)
    assert gram is not None
    return gram.float()
