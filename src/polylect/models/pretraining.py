"""A small base model made from text and nothing else: tokenizer, weights, one folder."""

import json
import math
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from polylect.did_you_mean import check_known
from polylect.files import whole_folder
from polylect.finite import check_written
from polylect.models.backbone import random_model
from polylect.models.documents import Documents
from polylect.models.precision import DTYPES
from polylect.models.tokenizer import train_tokenizer
from polylect.models.vocabulary.untrained_tokens import reinitialise


def pretrain(
    texts: Mapping[str, Iterable[str]] | Iterable[str],
    *,
    out: str | Path,
    vocabulary: int = 2048,
    layers: int = 4,
    hidden: int = 192,
    ffn: int = 512,
    heads: int = 4,
    context: int = 256,
    steps: int = 1000,
    batch_tokens: int = 2048,
    lr: float = 3e-3,
    seed: int = 0,
    family: str = "llama",
    tags: Sequence[str] = (),
    tagged: float | int = 0.5,
    dtype: str = "float32",
    log: Callable[[dict[str, float | int]], None] | None = None,
) -> dict[str, Any]:
    """Train a tokenizer and a causal language model from nothing and write a Hugging Face folder.

    Every row of a batch is one document, `<s> text </s>`, cut into pieces where it is longer than
    the context. Rows of a batch are of nearly equal length, so nothing leaks between documents and
    next to nothing is padding. Distances longer than the longest document are never trained: give
    paragraphs rather than sentences where the model will have to look far back.

    AdamW (weight decay 0.1 on matrices), linear warm-up, cosine to zero, gradient norm clipped at
    1, float32. Up to 500 distinct texts of each language (a fiftieth at most) are held out.

    Args:
        texts: per language code, or one plain collection; they are held in memory.
        out: folder to write; appears whole or not at all.
        vocabulary: tokens at most.
        layers, hidden, ffn, heads: of the model; embeddings are tied.
        context: longest row in tokens.
        batch_tokens: tokens of a batch with padding.
        lr: peak learning rate.
        tags: special tokens beside the tag <2xx> of each language.
        tagged: share of documents that begin with the tag of their language, which teaches what the
            tags mean; none in a plain collection. Tags that no document has are drawn anew in the
            end, see `reinitialise`.
        dtype: of the stored weights, "float32", "bfloat16" or "float16"; training is in float32.
        log: called after every step with step, loss (nats per token), lr and tokens so far.

    Returns:
        The report that also lies in the folder as training.json: validation_nats_per_token per
        language (documents without tags), tokens, seconds, tokens_per_second, padding share, sizes.

    Raises:
        FileExistsError: `out` is there already.
        ValueError: a language without at least two distinct texts, sizes that do not fit; weights
            that `dtype` cannot hold.
        RuntimeError: the loss or the gradient is not finite.
    """
    folder = Path(out)
    if folder.exists():
        raise FileExistsError(f"{folder} exists and is not overwritten: give another out=FOLDER.")
    check_known("dtype", dtype, [name for name in DTYPES if name != "checkpoint"])
    if min(steps, batch_tokens) < 1 or lr <= 0 or not 0 <= tagged <= 1 or context < 4:
        raise ValueError(
            "pretraining takes steps and batch_tokens of at least 1, context of at least 4, lr "
            f"above 0, tagged from 0 to 1, got {steps}, {batch_tokens}, {context}, {lr}, {tagged}."
        )
    by_language = _by_language(texts)
    split = {language: _hold_out(language, lines) for language, lines in by_language.items()}
    tags = [*(f"<2{language}>" for language in by_language if language), *tags]
    tokenizer = train_tokenizer(
        (text for train, _ in split.values() for text in train), vocabulary, tags
    )
    tokenizer.model_max_length = context
    model = random_model(
        family, tokenizer, layers=layers, hidden=hidden, ffn=ffn, heads=heads, context=context,
        seed=seed,
    )  # fmt: skip
    draw = np.random.default_rng(seed)
    train = {language: train for language, (train, _) in split.items()}
    documents = Documents.encode(train, tokenizer, context, draw, tagged)
    report = _train(model, documents, steps, batch_tokens, lr, draw, log)
    unread = set(tokenizer.convert_tokens_to_ids(tags)) - set(np.unique(documents.ids).tolist())
    reinitialise(model, sorted(unread), seed)
    report["validation_nats_per_token"] = {
        language or "text": _validate(model, tokenizer, held_out, context, batch_tokens)
        for language, (_, held_out) in split.items()
    }
    report |= {"family": family, "vocabulary": len(tokenizer), "documents": len(documents)}
    report["parameters"] = sum(p.numel() for p in model.parameters())
    model.to(DTYPES[dtype])
    check_written(f"{folder} in {dtype}", model.state_dict())
    _write(folder, model, tokenizer, report)
    return report


def _by_language(texts: Mapping[str, Iterable[str]] | Iterable[str]) -> dict[str, list[str]]:
    named = texts if isinstance(texts, Mapping) else {"": texts}
    return {language: [text for text in lines if text.strip()] for language, lines in named.items()}


def _hold_out(language: str, texts: list[str]) -> tuple[list[str], list[str]]:
    """Return training and held-out texts; all copies of one text fall on the same side."""
    distinct = sorted(set(texts), key=lambda text: (zlib.crc32(text.encode()), text))
    if len(distinct) < 2:
        raise ValueError(
            f"language {language or 'text'} has {len(distinct)} distinct texts; pretraining needs "
            "two at least, one of them to validate on."
        )
    held_out = distinct[: min(500, max(1, len(distinct) // 50))]
    hidden = set(held_out)
    return [text for text in texts if text not in hidden], held_out


def _train(
    model: nn.Module,
    documents: Documents,
    steps: int,
    batch_tokens: int,
    lr: float,
    draw: np.random.Generator,
    log: Callable[[dict[str, float | int]], None] | None,
) -> dict[str, Any]:
    """Train in place; returns what it cost and where the loss ended."""
    optimizer = _optimizer(model, lr)
    warmup = max(1, min(100, steps // 20))
    model.train()
    began, step, tokens, slots, recent = time.perf_counter(), 0, 0, 0, []
    while step < steps:
        for ids, labels in documents.epoch(batch_tokens, draw):
            for group in optimizer.param_groups:
                group["lr"] = lr * _schedule(step, warmup, steps)
            # Padding is on the right and causal attention never looks there, so no mask is needed.
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            step, slots = step + 1, slots + ids.numel()
            recent = [*recent[-49:], float(loss.detach())]
            _check_finite(recent[-1], norm, step, optimizer)
            optimizer.step()
            optimizer.zero_grad()
            tokens += int((labels != -100).sum())
            if log is not None:
                rate = float(optimizer.param_groups[0]["lr"])
                log({"step": step, "loss": recent[-1], "lr": rate, "tokens": tokens})
            if step == steps:
                break
    model.eval()
    seconds = time.perf_counter() - began
    return {
        "steps": steps,
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "tokens_per_second": round(tokens / seconds),
        "padding": round(1 - tokens / slots, 4),
        "train_nats_per_token": round(sum(recent) / len(recent), 4),
    }


def _check_finite(loss: float, norm: Tensor, step: int, optimizer: torch.optim.Optimizer) -> None:
    """Raises RuntimeError before a step that would make all weights NaN."""
    for what, value in (("loss", loss), ("gradient", float(norm))):
        if not math.isfinite(value):
            raise RuntimeError(
                f"the {what} is not finite (step {step}, learning rate "
                f"{optimizer.param_groups[0]['lr']:.3g}), so the training has ended and nothing is "
                "written: begin again with a lower base.lr."
            )


def _optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


def _schedule(step: int, warmup: int, steps: int) -> float:
    """Return the factor on the learning rate of a step: linear up, then cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@torch.no_grad()
def _validate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    context: int,
    batch_tokens: int,
) -> float:
    """Return the mean negative log-likelihood of the texts, in nats per token, without tags."""
    draw = np.random.default_rng(0)
    documents = Documents.encode({"": texts}, tokenizer, context, draw, tagged=0)
    total, count = 0.0, 0
    for ids, labels in documents.epoch(batch_tokens, draw):
        losses = _token_losses(model, ids, labels)
        total, count = total + float(losses.sum()), count + len(losses)
    return round(total / count, 4)


def _token_losses(
    model: nn.Module, ids: Int[Tensor, "rows length"], labels: Int[Tensor, "rows length"]
) -> Float[Tensor, " targets"]:
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    targets = labels[:, 1:]
    is_target = targets != -100
    return nn.functional.cross_entropy(logits[is_target], targets[is_target], reduction="none")


def _write(
    folder: Path, model: nn.Module, tokenizer: PreTrainedTokenizerBase, report: dict[str, Any]
) -> None:
    """Write the folder beside its place and move it there, so a crash leaves nothing half done."""
    with whole_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / "training.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
