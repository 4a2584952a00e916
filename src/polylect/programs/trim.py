"""`polylect trim`: a base model with only the vocabulary that given text needs."""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.config.roots import ConfigError, plain
from polylect.config.targets import instantiate
from polylect.config.validation import validate
from polylect.data.languages import language, split_direction
from polylect.eval.table import Table, show
from polylect.library.fingerprint import CUT_FROM, fingerprints
from polylect.models.context import context_of
from polylect.models.vocabulary.metrics import (
    compare_tokens,
    fitting,
    nats_per_character,
    next_token_logits,
)
from polylect.models.vocabulary.selection import (
    count_tokens,
    frequent_tokens,
    prompt_tokens,
    script_tokens,
)
from polylect.models.vocabulary.tokens import Vocabulary
from polylect.models.vocabulary.trimming import trim_model, trim_tokenizer
from polylect.run.build import build_data
from polylect.run.record import Record

Texts = Mapping[str, Sequence[str]]
"""Texts by language."""

_RULES = ("count", "coverage", "size")
_MANY_BYTES = 0.05
"""Share of held-out tokens beyond which a language is said to fall back to bytes."""


def main(cfg: DictConfig) -> None:
    """Read the text, choose the entries, cut, measure, write a Hugging Face folder."""
    _leave_out_splits(cfg)
    validate(cfg)
    out = Path(cfg.out)
    print(f"polylect trim: {out}, reading text and model …", flush=True)
    _check(cfg, out)

    from polylect.run.terminal import keep_freed_memory, quiet

    quiet()
    keep_freed_memory()
    train, held_out, directions = _read(cfg)
    model, whole = instantiate(cfg.model, "model", cfg.packages, _convert_="all")
    model.eval()
    vocabulary = Vocabulary(whole)
    named = dict.fromkeys(map(str, cfg.tokens))
    new = [token for token in named if token not in vocabulary.ids]
    kept_ids = _choose(cfg, vocabulary, whole, train, directions, len(new))
    tokenizer = trim_tokenizer(whole, kept_ids, new)
    fits = {
        code: asdict(compare_tokens(whole, tokenizer, kept_ids, texts))
        for code, texts in held_out.items()
    }
    sampled_texts = _sample(
        held_out, cfg.lines, (whole, tokenizer), context_of(model.config).length
    )
    before, rows = _parameters(model), _rows(tokenizer, sampled_texts, len(kept_ids))
    nats = {
        code: [nats_per_character(model, whole, texts)] for code, texts in sampled_texts.items()
    }
    logits = next_token_logits(model, [[kept_ids[i] for i in row] for row in rows])
    logits = [values[:, kept_ids] for values in logits]
    model.config.update({CUT_FROM: fingerprints(model)})
    trim_model(model, kept_ids, len(new), cfg.seed)
    for code, texts in sampled_texts.items():
        nats[code].append(nats_per_character(model, tokenizer, texts))
    apart = [
        ((there[:, : len(kept_ids)] - here).abs().max() / here.abs().max()).item()
        for here, there in zip(logits, next_token_logits(model, rows), strict=True)
    ]
    report = {
        "entries": [len(vocabulary.ids), len(kept_ids) + len(new)],
        "parameters": [before, _parameters(model)],
        "cut_from": getattr(model.config, CUT_FROM),
        "new_tokens": new,
        "largest_logit_difference": max(apart, default=None),
        "languages": {
            code: fit | {"nats_per_character": nats.get(code)} for code, fit in fits.items()
        },
    }
    _write(model, tokenizer, out, Record(run=str(out), config=plain(cfg), metrics=report))
    _print_report(report, out)


def _check(cfg: DictConfig, out: Path) -> None:
    """Check the settings that need neither model nor data."""
    if out.exists():
        raise ConfigError(f"out={out} exists already and is not overwritten.")
    rules = [rule for rule in _RULES if cfg[rule] is not None]
    if len(rules) > 1:
        raise ConfigError(f"give one of {', '.join(_RULES)}, not {' and '.join(rules)}.")
    for rule in ("count", "size"):
        if cfg[rule] is not None and cfg[rule] < 1:
            raise ConfigError(f"{rule} must be at least 1, got {cfg[rule]}.")
    if cfg.coverage is not None and not 0 < cfg.coverage <= 1:
        raise ConfigError(f"coverage must be above 0 and at most 1, got {cfg.coverage}.")
    if cfg.lines < 0:
        raise ConfigError(f"lines must be at least 0, got {cfg.lines}.")
    for code in cfg.languages:
        language(code)
    if not cfg.data and not cfg.languages:
        raise ConfigError(
            "give text, as in data=captions, or languages, as in languages=[en,ta]: they decide "
            "which entries are kept."
        )


def _leave_out_splits(cfg: DictConfig) -> None:
    """Set the held-out splits that are not given to None: they are not read."""
    for split in ("val", "test"):
        if cfg.data and OmegaConf.is_missing(cfg.data, split):
            cfg.data[split] = None


def _read(cfg: DictConfig) -> tuple[Texts, Texts, Sequence[str]]:
    """Return training texts, held-out texts (of the test sets, else the dev sets), directions."""
    if not cfg.data:
        return {}, {}, ()
    data = build_data(cfg)
    data.setup("fit")
    data.setup("test")
    train = _by_language(data, "train")
    held_out = _by_language(data, "val") | _by_language(data, "test")
    for code, texts in train.items():
        print(f"{code}  {len(texts):,} texts, {len(held_out.get(code, ())):,} held out")
    return train, held_out, data.directions


def _by_language(data: Any, split: str) -> dict[str, list[str]]:
    texts: dict[str, dict[str, None]] = {}
    for direction in data.directions_of(split):
        source, target = split_direction(direction)
        for pair in data.pairs(direction, split):
            if source is not None:
                texts.setdefault(source, {})[pair.source] = None
            texts.setdefault(target, {})[pair.target] = None
    return {code: list(unique) for code, unique in texts.items()}


def _choose(
    cfg: DictConfig,
    vocabulary: Vocabulary,
    tokenizer: Any,
    train: Texts,
    directions: Sequence[str],
    new: int,
) -> list[int]:
    """Return the ids to keep, in ascending order."""
    counts: Counter[int] = Counter()
    for texts in train.values():
        counts += count_tokens(tokenizer, texts)
    required_ids = vocabulary.required_ids() | prompt_tokens(tokenizer, directions)
    required_ids |= script_tokens(vocabulary, cfg.languages)
    required_ids |= {vocabulary.ids[t] for t in map(str, cfg.tokens) if t in vocabulary.ids}
    rules = {rule: cfg[rule] for rule in _RULES}
    if rules["size"] is not None:
        rules["size"] -= new
    elif rules["coverage"] is None:
        rules["count"] = cfg.count or 1
    return sorted(frequent_tokens(counts, vocabulary, required_ids, **rules))


def _sample(held_out: Texts, lines: int, tokenizers: Sequence[Any], length: float | int) -> Texts:
    """Return so many texts of each language for the likelihood, of those that the model takes."""
    sampled = {}
    for code, texts in held_out.items():
        fit = fitting(texts, tokenizers, length) if lines else []
        if lines and len(fit) < len(texts):
            print(f"{code}  {len(texts) - len(fit):,} of them are longer than the model takes")
        if fit:
            sampled[code] = fit[:lines]
    return sampled


def _rows(tokenizer: Any, texts: Texts, size: int) -> list[list[int]]:
    """Return a line of each language as ids of the trimmed tokenizer, to compare logits on."""
    rows = [tokenizer(lines[0])["input_ids"] for lines in texts.values() if lines]
    return [[i for i in row if i < size] for row in rows]


def _parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _write(model: Any, tokenizer: Any, out: Path, record: Record) -> None:
    """Write the folder so that it is either whole or not there."""
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".trimming-", dir=out.absolute().parent) as scratch:
        new = Path(scratch) / "new"
        model.save_pretrained(new)
        tokenizer.save_pretrained(new)
        record.status = "done"
        record.write(new)
        new.rename(out)


def _print_report(report: Mapping[str, Any], out: Path) -> None:
    rows = []
    for code, fit in report["languages"].items():
        nats = fit["nats_per_character"] or ("-", "-")
        tokens = (f"{fit['before']:.3f}", f"{fit['after']:.3f}")
        likelihood = [n if isinstance(n, str) else f"{n:.3f}" for n in nats]
        rows.append((code, *tokens, f"{100 * fit['same']:.1f} %", *likelihood))
    header = ("held out", "tokens/char", "after", "lines as before", "nats/char", "after")
    if rows:
        show(Table(header, tuple(rows)))
    for what in ("entries", "parameters"):
        print(f"{what}: {report[what][0]:,} before, {report[what][1]:,} after")
    if (difference := report["largest_logit_difference"]) is not None:
        print(f"logits over the kept entries differ by {difference:.0e} of the largest")
    for code, fit in report["languages"].items():
        if fit["bytes_after"] > max(_MANY_BYTES, 2 * fit["bytes_before"]):
            print(
                f"note: {100 * fit['bytes_after']:.0f} % of the tokens of held-out {code} are "
                f"bytes or unknown, before {100 * fit['bytes_before']:.0f} %: the entries kept "
                f"cannot write {code}; give text of it, or languages=[{code}]"
            )
    print(out)
