"""`polylect evaluate`: scores of a run, a checkpoint or a base model, direction by direction."""

import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from polylect.checks import check_metrics
from polylect.config import ConfigError, plain, validate
from polylect.record import Record, write_json, write_text


def main(cfg: DictConfig) -> float | None:
    """Score and record; returns the mean chrF++ over the directions."""
    print(f"polylect evaluate: {cfg.run or 'base model'}, loading …", flush=True)
    from polylect.train import handling, register_resolvers, run_folder, stop

    _check(cfg)
    with run_folder(cfg) as folder, handling({signal.SIGTERM: stop}):
        register_resolvers(folder)
        validate(cfg)
        return _run(cfg, folder)


def _run(cfg: DictConfig, folder: Path) -> float | None:
    begin = time.monotonic()
    from polylect.build import build_memory
    from polylect.layers.route_counts import agreement
    from polylect.plots import save_all
    from polylect.retrieval.prompting import show_matches
    from polylect.terminal import quiet
    from polylect.translator import device_of

    quiet()
    module, stored = _module(cfg)
    module.to(device_of(cfg.device))
    memory = build_memory(cfg, module)
    if memory is not None:
        show_matches(module, memory)
    data = _data(cfg, stored, module)
    record = Record(run=str(folder), config=plain(cfg))
    with record.kept(folder, begin):
        record.metrics["test"] = evaluate(
            module, data, folder, cfg.metrics, split=cfg.split, limit=cfg.limit
        )
        record.metrics["objective"] = mean_chrf(record.metrics["test"])
        if rows := module.routed():
            record.metrics["routing"] = {"agreement": agreement(rows), "rows": rows}
        if memory is not None:
            record.metrics["memory"] = memory.report()
            print(memory.summary())
        record.data = data.report
    if not module.trains:  # else they were drawn when it was trained
        save_all(lambda: module.pictures(folder), folder)
    print(f"scores: {folder / 'scores.json'}")
    return record.metrics["objective"]


def mean_chrf(scores: dict[str, dict[str, Any]]) -> float | None:
    """Mean chrF++ over the directions; None where it was not computed."""
    chrf = [s["chrf++"]["value"] for s in scores.values() if "chrf++" in s]
    return sum(chrf) / len(chrf) if chrf else None


def _check(cfg: DictConfig) -> None:
    """The settings that need no model."""
    if cfg.run is None and not cfg.model:
        raise ConfigError("give run=FOLDER, or model=… to score a base model as it is.")
    if cfg.run is None and not cfg.data:
        raise ConfigError("give data=… beside model=…: a base model has no data of its own.")
    if cfg.split not in ("val", "test"):
        raise ConfigError(f"split must be val or test, got {cfg.split}.")
    if cfg.limit is not None and cfg.limit < 1:
        raise ConfigError(f"limit must be at least 1, got {cfg.limit}.")
    check_metrics(cfg.metrics)
    for split in ("train", "val", "test"):  # what is not scored need not be given
        if cfg.data and split != cfg.split and OmegaConf.is_missing(cfg.data, split):
            cfg.data[split] = None


def _module(cfg: DictConfig) -> tuple[Any, DictConfig | None]:
    from polylect.build import load

    if cfg.run is not None:
        return load(cfg.run, generation=cfg.generation)
    return untrained(cfg), None


def untrained(cfg: DictConfig) -> Any:
    """The base model with a strategy that needs no training; raises ConfigError for another."""
    from polylect.build import adopt, build_strategy

    part = OmegaConf.create(
        {
            "seed": cfg.seed,
            "model": cfg.model,
            "data": cfg.data,
            "generation": cfg.generation,
            "strategy": cfg.strategy or {"_target_": "polylect.strategies.frozen.Frozen"},
        }
    )
    module = build_strategy(part)
    if module.trains:
        raise ConfigError(
            f"strategy {type(module).__name__} has to be trained first: give run=FOLDER."
        )
    adopt(module, None, part)
    return module


def _data(cfg: DictConfig, stored: DictConfig | None, module: Any) -> Any:
    from polylect.build import build_data

    source = cfg if cfg.data else stored
    data = build_data(source)
    if not data.directions_of(cfg.split):
        raise ConfigError(f"there are no {cfg.split} corpora: give data.{cfg.split}=…")
    # Whatever the data's own template: a run is asked in the way in which it was trained.
    data.tokenizer, data.template = module.tokenizer, module.template
    data.setup(cfg.split if cfg.split == "test" else "validate")
    return data


def evaluate(
    module: Any,
    data: Any,
    folder: Path,
    metrics: Sequence[str],
    *,
    split: str = "test",
    limit: int | None = None,
    samples: int = 2,
) -> dict[str, dict[str, Any]]:
    """Translate every direction's set, score it, print the table, write everything.

    Writes `outputs/<direction>.txt` (one hypothesis per line) and `scores.json` under `folder`.
    Returns per direction: metric name to {"value", "signature"}, and "diagnosis".
    """
    from polylect.eval.table import diagnosis_table, scores_table, show

    data.setup("test" if split == "test" else "validate")
    found: dict[str, dict[str, Any]] = _likelihoods(module, data, split)
    directions = [d for d in data.directions_of(split) if "-" in d]
    prompts = {d: data.prompts(d, split, limit) for d in directions}
    translations = decode(module, [p for d in directions for p in prompts[d]], "translating")
    begin = 0
    for direction in directions:
        part = translations[begin : begin + len(prompts[direction])]
        begin += len(part)
        write_text(folder / "outputs" / f"{direction}.txt", "".join(f"{t.text}\n" for t in part))
        found[direction] = _scores(prompts[direction], part, direction, directions, metrics)
    write_json(folder / "scores.json", found)
    for language in found.keys() - set(directions):
        print(f"{language}  {found[language]['nats_per_token']:.4f} nats per token")
    if not directions:
        return found
    show(scores_table({d: found[d] for d in directions}))
    show(diagnosis_table({d: found[d]["diagnosis"] for d in directions}))
    for direction in directions:
        _show_samples(direction, prompts[direction], folder, samples)
    return found


@torch.no_grad()
def nats_per_token(module: Any, batches: Iterable[Any]) -> float:
    """Mean negative log-likelihood of the targets in nats."""
    from polylect.strategies.loss import target_losses

    total, count = 0.0, 0
    for batch in batches:
        batch = batch.to(module.device)
        with module.routing(batch):
            losses, _ = target_losses(module.backbone, batch)
        total, count = total + float(losses.sum()), count + len(losses)
    return total / max(count, 1)


def _likelihoods(module: Any, data: Any, split: str) -> dict[str, dict[str, Any]]:
    """What can be said of monolingual text: how likely the model finds it."""
    if all("-" in direction for direction in data.directions_of(split)):
        return {}
    loaders = data.test_dataloader() if split == "test" else data.val_dataloader()
    pairs = zip(data.directions_of(split), loaders, strict=True)
    return {
        direction: {"nats_per_token": nats_per_token(module, batches)}
        for direction, batches in pairs
        if "-" not in direction
    }


def decode(module: Any, prompts: Sequence[Any], doing: str) -> list[Any]:
    """What the module makes of all prompts, with a progress bar on a terminal."""
    from tqdm.auto import tqdm

    found: dict[int, Any] = {}
    with tqdm(total=len(prompts), desc=doing, unit="sent", disable=None) as bar:
        for index, translation in module.translate_as_decoded(prompts):
            found[index] = translation
            bar.update()
    return [found[i] for i in range(len(prompts))]


def _scores(
    prompts: Sequence[Any],
    translations: Sequence[Any],
    direction: str,
    directions: Sequence[str],
    metrics: Sequence[str],
) -> dict[str, Any]:
    from polylect.data.languages import language, split_direction
    from polylect.eval.diagnosis import diagnose
    from polylect.eval.metrics import score

    source, target = split_direction(direction)
    hypotheses = [t.text for t in translations]
    references = [p.references for p in prompts]
    scores = score(hypotheses, references, metrics=list(metrics), target=target)
    languages = sorted({part for d in directions for part in d.split("-")})
    diagnosis = diagnose(
        [p.source for p in prompts],
        hypotheses,
        references,
        source_lang=source,
        target_lang=target,
        candidates=languages,
        scripts={code: language(code).scripts for code in languages},
        lengths_hit=[t.capped for t in translations],
    )
    values = {s.name: {"value": s.value, "signature": s.signature} for s in scores}
    return {**values, "sentences": len(prompts), "diagnosis": diagnosis.to_dict()}


def _show_samples(direction: str, prompts: Sequence[Any], folder: Path, count: int) -> None:
    hypotheses = (folder / "outputs" / f"{direction}.txt").read_text(encoding="utf-8").split("\n")
    for prompt, hypothesis in list(zip(prompts, hypotheses, strict=False))[:count]:
        print(f"{direction}  source      {prompt.source}")
        print(f"       translation {hypothesis}")
        print(f"       reference   {prompt.references[0]}")
