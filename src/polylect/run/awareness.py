"""Measures the awareness of neurons over all batches, so that it can be resumed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

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
    labels: Mapping[str, bool],
) -> list[float]:
    """Add the batches that are left, saving the state; return nats per target token.

    Args:
        labels: see `relabelled`.
    """
    from tqdm.auto import tqdm

    nats, start, names = state["nats"], state["batches"], state["job"]["directions"]
    if start:
        meter.load_state_dict(state["meter"])
        write_saved(path, state)  # or another interruption would lose it
    batches = ((i, batch) for i, loader in enumerate(loaders) for batch in loader)
    total = sum(map(len, loaders))
    with tqdm(initial=start, total=total, desc="measuring", unit="batch", disable=None) as bar:
        for direction, batch in islice(batches, start, None):
            batch = batch.to(backbone.device)
            loss, tokens = add_batch(meter, backbone, direction, batch, **labels)
            nats[direction][0] += loss
            nats[direction][1] += tokens
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


def costs(
    meter: AwarenessMeter,
    backbone: nn.Module,
    kinds: Sequence[str],
    loaders: Sequence[EvaluationBatches],
) -> str:
    """Return a page of what a detection takes, from shapes alone.

    A pass forward and one back to activations, without gradients of weights, are four products for
    each weight and token.

    Args:
        kinds: of neurons.
        loaders: batches of each direction.
    """
    batches = [batch for loader in loaders for batch in loader]
    sentences = sum(batch.rows for batch in batches)
    tokens = sum(int(batch.attention_mask.sum()) for batch in batches)
    longest = max(batch.input_ids.shape[1] for batch in batches)
    weights = sum(p.nbytes for p in backbone.parameters())
    work = 4 * sum(p.numel() for p in backbone.parameters()) * tokens
    hours = work / 1e12 / 3600
    return "\n".join(
        (
            f"neurons      {', '.join(kinds)}; {len(meter.downs)} layers",
            f"text         {len(loaders)} directions, {sentences:,} sentences, {tokens:,} tokens, "
            f"the longest {longest}",
            f"weights      {weights / 2**30:.2f} GiB",
            f"sums         {meter.nbytes() / 2**30:.2f} GiB; the file has half of that",
            f"operations   {work / 1e15:.3g} PFLOP: {hours:.3g} hours at 1 TFLOP/s, "
            f"{hours / 100:.2g} at 100",
        )
    )


def add_batch(
    meter: AwarenessMeter,
    backbone: nn.Module,
    direction: int,
    batch: TranslationBatch,
    **labels: bool,
) -> tuple[float, int]:
    """Add a batch of one direction; return its loss in nats, and of how many tokens it is.

    The end token belongs to the target. A meter by sentence gets the mean loss of each sentence.

    Args:
        labels: see `relabelled`.
    """
    learned, target = relabelled(batch, **labels)
    source = batch.attention_mask.bool() & ~target
    nats, tokens = 0.0, 0

    def loss() -> Tensor:
        nonlocal nats, tokens
        losses, rows = target_losses(backbone, learned)
        nats, tokens = float(losses.detach().sum()), len(losses)
        if meter.by_sentence:
            losses = losses / torch.bincount(rows, minlength=batch.rows)[rows]
        return losses.sum()

    meter.add(direction, source, target, loss)
    return nats, tokens


def relabelled(
    batch: TranslationBatch, *, label_shift: bool = False, pad_labels: bool = False
) -> tuple[TranslationBatch, Tensor]:
    """Return the batch whose loss is measured, and where its target tokens stand.

    Args:
        label_shift: labels are shifted once more than the model shifts them, so that each position
            is to tell the token after the next one.
        pad_labels: padding is learned as if it were tokens of the target.
    """
    labels = batch.labels
    if pad_labels:
        labels = torch.where(batch.attention_mask.bool(), labels, batch.input_ids)
    target = labels != IGNORED
    if label_shift:
        labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    return replace(batch, labels=labels), target
