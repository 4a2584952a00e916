"""Measures the awareness of neurons over all batches, so that it can be resumed."""

import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from polylect.data.batch import IGNORED, TranslationBatch
from polylect.data.stream import EvaluationBatches
from polylect.files import write_saved
from polylect.finite import find_nonfinite
from polylect.layers.neurons.awareness import AwarenessMeter
from polylect.strategies.loss import target_losses


def measure(
    meter: AwarenessMeter,
    backbone: nn.Module,
    loaders: Sequence[EvaluationBatches],
    state: dict[str, Any],
    save_every: int,
    path: Path,
) -> list[float]:
    """Add the batches that are left, saving the state; return nats per target token."""
    from tqdm.auto import tqdm

    nats, start, names = state["nats"], state["batches"], state["job"]["directions"]
    if start:
        meter.load_state_dict(state["meter"])
        write_saved(path, state)  # or another interruption would lose it
    batches = ((i, batch) for i, loader in enumerate(loaders) for batch in loader)
    total = sum(map(len, loaders))
    with tqdm(initial=start, total=total, desc="measuring", unit="batch", disable=None) as bar:
        for direction, batch in islice(batches, start, None):
            nats[direction][0] += add_batch(meter, backbone, direction, batch.to(backbone.device))
            nats[direction][1] += batch.target_tokens
            if not math.isfinite(nats[direction][0]):
                raise ValueError(_OVERFLOW.format(f"the loss of {names[direction]}"))
            bar.update()
            state["batches"] += 1
            if state["batches"] % save_every == 0:
                write_saved(path, state | {"meter": _sums(meter)})
    _sums(meter)
    return [loss / tokens for loss, tokens in nats]


_OVERFLOW = (
    "{} is not finite, so nothing can be detected: the base is damaged, or too large for its "
    "precision (model.dtype=float32 has the widest)."
)


def _sums(meter: AwarenessMeter) -> dict[str, Tensor]:
    """Return the sums so far; raises ValueError where a gradient was not finite."""
    sums = meter.state_dict()
    if wrong := find_nonfinite(sums):
        raise ValueError(_OVERFLOW.format(f"what was measured ({wrong})"))
    return sums


def add_batch(
    meter: AwarenessMeter, backbone: nn.Module, direction: int, batch: TranslationBatch
) -> float:
    """Add a batch of one direction and return its loss in nats, the end token included."""
    target = batch.labels != IGNORED
    source = batch.attention_mask.bool() & ~target
    return meter.add(direction, source, target, lambda: target_losses(backbone, batch)[0].sum())
