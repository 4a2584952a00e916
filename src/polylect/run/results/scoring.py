"""Scores of a strategy on the sets of its data: translations, likelihoods, tables."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from polylect.files import write_json, write_text
from polylect.finite import unusable_scores
from polylect.run.processes.group import gather, of_all, rank, share
from polylect.run.record import advise_on_failure


def score_module(
    module: Any,
    data: Any,
    folder: Path,
    metrics: Sequence[str],
    *,
    split: str = "test",
    limit: int | None = None,
    samples: int = 2,
    together: bool = False,
) -> dict[str, dict[str, Any]]:
    """Translate every direction's set, score it, print the table, write everything.

    Writes `outputs/<direction>.txt` (one hypothesis per line) and `scores.json` under `folder`.
    Returns per direction: metric name to {"value", "signature"}, and "diagnosis".

    Args:
        together: all processes call this, each translates its share, and the first one does all
            the rest; the others return nothing. Else a process works for itself.
    """
    from polylect.eval.table import diagnosis_table, scores_table, show

    data.setup("test" if split == "test" else "validate")
    scores: dict[str, dict[str, Any]] = _likelihoods(module, data, split, together)
    directions = [d for d in data.directions_of(split) if "-" in d]
    prompts = {d: data.prompts(d, split, limit) for d in directions}
    whole = [p for d in directions for p in prompts[d]]
    translations = translate_all(module, share(whole) if together else whole, "translating")
    if together:
        translations = of_all(translations)
        if rank() > 0:
            return {}
    begin = 0
    with advise_on_failure(_retry_command(folder)):
        for direction in directions:
            part = translations[begin : begin + len(prompts[direction])]
            begin += len(part)
            lines = "".join(f"{t.text}\n" for t in part)
            write_text(folder / "outputs" / f"{direction}.txt", lines)
            scores[direction] = _scores(prompts[direction], part, direction, directions, metrics)
        write_json(folder / "scores.json", scores)
    for language in scores.keys() - set(directions):
        print(f"{language}  {scores[language]['nats_per_token']:.4f} nats per token")
    if not directions:
        return scores
    ranked = _best_first(scores, directions)
    show(scores_table({d: scores[d] for d in ranked}))
    show(diagnosis_table({d: scores[d]["diagnosis"] for d in ranked}))
    for direction in directions:
        _show_samples(direction, prompts[direction], folder, samples)
    return scores


def _best_first(scores: dict[str, dict[str, Any]], directions: Sequence[str]) -> list[str]:
    """Return the directions, the best first: by chrF++, or by what is computed instead of it."""
    first = next(iter(scores[directions[0]]))
    metric = "chrf++" if "chrf++" in scores[directions[0]] else first
    sign = 1 if metric == "ter" else -1  # which counts errors
    return sorted(directions, key=lambda d: sign * scores[d][metric]["value"])


def _retry_command(folder: Path) -> str:
    """Return the command that scores a trained run again when its scores could not be written."""
    is_trained = (folder / "checkpoints").is_dir()
    return f"give polylect evaluate run={folder}" if is_trained else "give the same command again"


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds texts: negative log-likelihood in nats, target tokens, characters.

    The end of each text counts as a token and not as a character.
    """

    nats: float
    tokens: int
    characters: int

    @property
    def per_token(self) -> float:
        """Nats per target token."""
        return self.nats / max(self.tokens, 1)

    @property
    def per_character(self) -> float:
        """Nats per character, which models with other tokenizers have as well."""
        return self.nats / max(self.characters, 1)


def nats_per_token(module: Any, batches: Iterable[Any]) -> float:
    """Return the mean negative log-likelihood of the targets in nats; raises as `likelihood`."""
    return likelihood(module, batches).per_token


@torch.no_grad()
def likelihood(module: Any, batches: Iterable[Any]) -> Likelihood:
    """Return how likely the module finds the targets of batches.

    Raises ValueError where their probability is no number.
    """
    from polylect.strategies.loss import target_losses

    nats, tokens, characters = 0.0, 0, 0
    for batch in batches:
        batch = batch.to(module.device)
        with module.routing(batch):
            losses, _ = target_losses(module.backbone, batch)
        nats, tokens = nats + float(losses.sum()), tokens + len(losses)
        characters += sum(len(references[0]) for references in batch.references if references)
        if not math.isfinite(nats):
            dtype = next(module.backbone.parameters()).dtype
            raise ValueError(unusable_scores(f"the text of {batch.directions[0]}", dtype))
    return Likelihood(nats, tokens, characters)


def _likelihoods(module: Any, data: Any, split: str, together: bool) -> dict[str, dict[str, Any]]:
    """Return the negative log-likelihood per token of each direction of monolingual text."""
    if all("-" in direction for direction in data.directions_of(split)):
        return {}
    loaders = data.test_dataloader() if split == "test" else data.val_dataloader()
    pairs = zip(data.directions_of(split), loaders, strict=True)
    scores = {}
    for direction, batches in pairs:
        if "-" in direction:
            continue
        parts = [likelihood(module, share(batches) if together else batches)]
        if together:
            parts = gather(parts[0])
        nats, tokens = sum(part.nats for part in parts), sum(part.tokens for part in parts)
        scores[direction] = {"nats_per_token": Likelihood(nats, tokens, 0).per_token}
    return scores


def translate_all(module: Any, prompts: Sequence[Any], doing: str) -> list[Any]:
    """Return what the module makes of all prompts, with a progress bar on a terminal."""
    from tqdm.auto import tqdm

    translations: dict[int, Any] = {}
    with tqdm(total=len(prompts), desc=doing, unit="sent", disable=None) as bar:
        for index, translation in module.translate_as_decoded(prompts):
            translations[index] = translation
            bar.update()
    return [translations[i] for i in range(len(prompts))]


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
        too_long=[t.too_long for t in translations],
    )
    values = {s.name: {"value": s.value, "signature": s.signature} for s in scores}
    return {**values, "sentences": len(prompts), "diagnosis": diagnosis.to_dict()}


def _show_samples(direction: str, prompts: Sequence[Any], folder: Path, count: int) -> None:
    hypotheses = (folder / "outputs" / f"{direction}.txt").read_text(encoding="utf-8").split("\n")
    for prompt, hypothesis in list(zip(prompts, hypotheses, strict=False))[:count]:
        print(f"{direction}  source      {prompt.source}")
        print(f"       translation {hypothesis}")
        print(f"       reference   {prompt.references[0]}")


def mean_chrf(scores: dict[str, dict[str, Any]]) -> float | None:
    """Return the mean chrF++ over the directions; None where it was not computed."""
    chrf = [s["chrf++"]["value"] for s in scores.values() if "chrf++" in s]
    return sum(chrf) / len(chrf) if chrf else None
