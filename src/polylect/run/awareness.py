"""Measures the awareness of neurons over all batches, so that it can be resumed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from polylect.config.roots import ConfigError
from polylect.data.batch import IGNORED, TranslationBatch
from polylect.data.stream import EvaluationBatches
from polylect.files import load_saved, write_saved
from polylect.finite import find_nonfinite
from polylect.layers.neurons.awareness import AwarenessMeter
from polylect.run.processes.group import of_all_summed, rank, share, started_together
from polylect.run.reuse.resume import describe_differences
from polylect.strategies.loss import target_losses

PARTIAL = "partial.pt"  # the sums of an unfinished detection


def load_state(resume: str | None, job: dict[str, Any]) -> dict[str, Any]:
    """Return what an interrupted detection saved, or a new state; refuses another detection's."""
    if resume is None:
        return {"job": job, "batches": 0, "nats": [[0.0, 0] for _ in job["directions"]]}
    state = load_saved(Path(resume) / PARTIAL, "an unfinished detection")
    if not isinstance(state, dict) or not {"job", "batches", "nats"} <= state.keys():
        raise ConfigError(f"resume={resume} is no unfinished detection: begin anew.")
    if changes := describe_differences(state["job"], job):
        raise ConfigError(
            f"resume={resume} was measuring something else, {changes}: give the settings it was "
            "begun with."
        )
    return state


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

    Of processes that were started together each adds its share, and all return the same. Their sums
    are put together where the first one saves them, so that any number may go on from there.

    Args:
        labels: see `relabelled`.
    """
    from tqdm.auto import tqdm

    nats, start, names = state["nats"], state["batches"], state["job"]["directions"]
    given = {"bfloat16": state["job"]["precision"] == "bf16-mixed", **labels}
    if start and rank() == 0:
        meter.load_state_dict(state["meter"])
        write_saved(path, state)  # or another interruption would lose it
    own = torch.tensor(nats, dtype=torch.float64) * (rank() == 0)
    batches = islice(((i, b) for i, loader in enumerate(loaders) for b in loader), start, None)
    total, done, saved = sum(map(len, loaders)), start, start
    with tqdm(initial=start, total=total, desc="measuring", unit="batch", disable=None) as bar:
        while turn := list(islice(batches, started_together())):
            for direction, batch in share(turn):
                batch = batch.to(backbone.device)
                found = add_batch(meter, backbone, direction, batch, **given)
                own[direction] += torch.tensor(found, dtype=torch.float64)
                if not own[direction, 0].isfinite():
                    raise ValueError(_OVERFLOW.format(f"the loss of {names[direction]}"))
            bar.update(len(turn))
            done += len(turn)
            if done // save_every > saved // save_every:
                _save(path, state | {"batches": done, "nats": own, "meter": _sums(meter)})
                saved = done
    meter.load_state_dict(of_all_summed(_sums(meter)))
    of_all = of_all_summed({"nats": own})["nats"]
    return (of_all[:, 0] / of_all[:, 1]).tolist()


def _save(path: Path, state: dict[str, Any]) -> None:
    """Write what all processes have added up so far."""
    sums = of_all_summed(state["meter"] | {"nats": state["nats"]})
    if rank() == 0:
        nats = [[loss, int(tokens)] for loss, tokens in sums.pop("nats").tolist()]
        write_saved(path, state | {"meter": sums, "nats": nats})


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
    *,
    bfloat16: bool = False,
    **labels: bool,
) -> tuple[float, int]:
    """Add a batch of one direction; return its loss in nats, and of how many tokens it is.

    The end token belongs to the target. A meter by sentence gets the mean loss of each sentence.

    Args:
        bfloat16: whether products are computed in it; awareness is added up in float64.
        labels: see `relabelled`.
    """
    learned, target = relabelled(batch, **labels)
    source = batch.attention_mask.bool() & ~target
    nats, tokens = 0.0, 0

    def loss() -> Tensor:
        nonlocal nats, tokens
        with torch.autocast(batch.input_ids.device.type, torch.bfloat16, enabled=bfloat16):
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
