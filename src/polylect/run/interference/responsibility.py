"""Responsibility maps: what each direction loses when one part of a model does nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from polylect.data.batch import pad_id
from polylect.data.stream import EvaluationBatches
from polylect.library.neurons.file import NeuronFile
from polylect.run.build import build_data, load
from polylect.run.interference.parts import (
    Part,
    Usage,
    UsageMeter,
    awareness_of_sets,
    neuron_parts,
    parts_of,
)
from polylect.run.record import Record
from polylect.run.untrained_model import build_untrained
from polylect.strategies.loss import target_losses

RESAMPLES = 1000
SEED = 12345

Sentences = tuple[np.ndarray, np.ndarray]
"""Nats and target tokens of each sentence, in the same order in every pass."""


@dataclass(frozen=True)
class Change:
    """What silencing a part does to a direction.

    Attributes:
        change: of the loss, nats per target token; above 0 the direction needs the part.
        low, high: 95 % interval of it, over resamples of the sentences (paired bootstrap).
    """

    part: str
    direction: str
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class ResponsibilityMap:
    """Changes of all parts in all directions.

    Attributes:
        losses: nats per target token of each direction with nothing silenced.
        usage: what the method itself says of the parts, see `UsageMeter`, `awareness_of_sets`.
        agreement: by direction Spearman's rank correlation of the changes with that, over the
            parts; None where one of them is the same for all parts.
    """

    losses: Mapping[str, float]
    changes: Sequence[Change]
    usage: Usage
    agreement: Mapping[str, float | None]


def responsibility(
    module: Any,
    data: Any,
    parts: Sequence[Part],
    *,
    split: str = "test",
    sentences: int | None = None,
    usage: Usage | None = None,
) -> ResponsibilityMap:
    """Silence one part after the other, and measure the loss of every direction.

    Args:
        module: a strategy with its base.
        data: a `TranslationData` that has been set up for the split.
        parts: of `parts_of` or `neuron_parts`.
        sentences: the first ones of each direction; None for all. Those above `data.max_length`
            are left out.
        usage: to compare with; None for that of `UsageMeter`.

    Raises:
        ValueError: there is no part, or no sentence of a direction.
    """
    if not parts:
        raise ValueError("there is nothing to silence: the model has no such parts.")
    batches = _batches(module, data, split, sentences)
    training = module.training
    module.eval()
    try:
        meter = UsageMeter(module) if usage is None else None
        whole = {name: _pass(module, own, meter) for name, own in batches.items()}
        usage = meter.usage() if meter is not None else usage
        changes = []
        for part in parts:
            with part.silenced():
                for direction, own in batches.items():
                    without = _pass(module, own)
                    changes.append(_change(part.name, direction, whole[direction], without))
    finally:
        module.train(training)
    losses = {name: float(nats.sum() / tokens.sum()) for name, (nats, tokens) in whole.items()}
    return ResponsibilityMap(losses, changes, usage, agreement(changes, usage))


def _batches(
    module: Any, data: Any, split: str, sentences: int | None
) -> dict[str, EvaluationBatches]:
    found = {}
    for direction in (d for d in data.directions_of(split) if "-" in d):
        examples = data.examples(direction, split, sentences)
        examples = [example for example in examples if example.length <= data.max_length]
        if not examples:
            raise ValueError(f"data.{split} has no sentence of {direction} within data.max_length.")
        limits = data.tokens_per_batch, data.max_rows, pad_id(module.tokenizer)
        found[direction] = EvaluationBatches(examples, *limits)
    return found


@torch.no_grad()
def _pass(module: Any, batches: EvaluationBatches, meter: UsageMeter | None = None) -> Sentences:
    nats, tokens = [], []
    for batch in batches:
        batch = batch.to(module.device)
        with module.routing(batch):
            losses, rows = target_losses(module.backbone, batch)
        if meter is not None:
            meter.add(batch)
        of_rows = torch.zeros(batch.rows, dtype=torch.float64, device=rows.device)
        nats.append(of_rows.index_add(0, rows, losses.double()).cpu().numpy())
        tokens.append(rows.bincount(minlength=batch.rows).cpu().numpy())
    return np.concatenate(nats), np.concatenate(tokens)


def _change(part: str, direction: str, whole: Sentences, without: Sentences) -> Change:
    differences, tokens = without[0] - whole[0], whole[1]
    change = differences.sum() / tokens.sum()
    random = np.random.default_rng(SEED)  # the same sentences for every part
    count = len(tokens)
    drawn = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    low, high = np.percentile(drawn @ differences / (drawn @ tokens), [2.5, 97.5])
    return Change(part, direction, float(change), float(low), float(high))


def agreement(changes: Sequence[Change], usage: Usage) -> dict[str, float | None]:
    """Return by direction the rank correlation of changes and usage over the parts.

    A part that the usage does not name is not used: 0.
    """
    by_direction: dict[str, list[tuple[float, float]]] = {}
    for change in changes:
        used = usage.get(change.part, {}).get(change.direction, 0.0)
        by_direction.setdefault(change.direction, []).append((change.change, used))
    return {direction: spearman(*zip(*own, strict=True)) for direction, own in by_direction.items()}


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, equal values sharing their mean rank.

    None with fewer than two values or where all values of one side are equal.
    """
    ranks = np.stack([_ranks(np.asarray(values, dtype=np.float64)) for values in (one, other)])
    ranks -= ranks.mean(1, keepdims=True)
    length = np.sqrt((ranks**2).sum(1)).prod()
    return float(np.clip((ranks[0] * ranks[1]).sum() / length, -1, 1)) if length > 0 else None


def _ranks(values: np.ndarray) -> np.ndarray:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    return (ends - (counts - 1) / 2)[which]


def responsibility_of_run(
    run: Path, *, neurons: Path | None = None, sentences: int | None = None
) -> ResponsibilityMap:
    """Return the map of a run on its own test sets.

    Args:
        run: folder of a training with lora_switch or mix_moe, or of an evaluation with a strategy
            that chooses among adapters.
        neurons: file of a detection; then its sets are silenced in the base of the run, as it is,
            and compared with the detection's scores.
        sentences: the first ones of each direction; None for all.

    Raises:
        FileNotFoundError, ValueError: the folder is no run, or the run has nothing to silence.
    """
    record = Record.read(run)
    usage = None
    if neurons is not None:
        module = build_untrained(OmegaConf.create(record.config | {"strategy": None}))
        file = NeuronFile.read(neurons)
        file.check_base(module.base_fingerprint)
        parts, usage = neuron_parts(module.backbone, file), awareness_of_sets(file)
    elif (run / "checkpoints").is_dir():
        module, _ = load(run)
        parts = parts_of(module)
    else:
        module = build_untrained(OmegaConf.create(record.config))
        parts = parts_of(module)
    data = build_data(OmegaConf.create({"data": record.config["data"]}))
    data.tokenizer, data.template = module.tokenizer, module.template
    data.setup("test")
    return responsibility(module, data, parts, sentences=sentences, usage=usage)
