"""Reports on a trained mixture's routers with held-out text, for pictures and the record."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from polylect.data.batch import Example, TranslationBatch, pad_id
from polylect.data.stream import EvaluationBatches
from polylect.layers.experts.metrics import RoutingTally
from polylect.strategies.base import prompt_lengths

EXAMPLES = 100  # of each direction
LONGEST = 40  # tokens of the sentence whose gate is shown, if there is one as short


def write_report(path: Path, module: Any, data: Any) -> None:
    """Write `expert_report` as JSON."""
    report = json.dumps(expert_report(module, data), ensure_ascii=False, indent=1)
    path.write_text(report + "\n", encoding="utf-8")


@torch.no_grad()
def expert_report(module: Any, data: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the numbers of the first validation examples of each direction.

    Args:
        module: a `MixMoE`.
        data: its `TranslationData`, which has validation corpora.

    Returns:
        "rows", those of a `RoutingTally`; and "sentences", one for each direction: `tokens`,
        `prompt` (how many of them are the source's) and `gate`, by layer the weight of the MT
        experts at each token. Without a gate there are none.
    """
    directions = data.directions_of("val")
    tally, sentences = RoutingTally(directions, module.groups()), []
    training = module.training
    module.eval()
    try:
        for direction in directions:
            examples = data.examples(direction, "val", EXAMPLES)
            examples = [example for example in examples if example.length <= data.max_length]
            for batch in _batches(module, data, examples):
                prompts = _forward(module, batch)
                for layer, routing, real in module.routings():
                    tally.add(layer, routing, real, prompts, batch.directions)
            short = [example for example in examples if example.length <= LONGEST]
            sentences += [_sentence(module, data, example) for example in (short or examples)[:1]]
    finally:
        module.train(training)
    return {"rows": tally.rows(), "sentences": [s for s in sentences if s["gate"]]}


def _batches(module: Any, data: Any, examples: Sequence[Example]) -> list[TranslationBatch]:
    if not examples:
        return []
    pad = pad_id(module.tokenizer)
    batches = EvaluationBatches(examples, data.tokens_per_batch, data.max_rows, pad)
    return [batch.to(module.device) for batch in batches]


def _forward(module: Any, batch: TranslationBatch) -> torch.Tensor:
    """Run the layers, which note their routing; return the length of each row's prompt."""
    with module.routing(batch):
        module(batch)
    return prompt_lengths(batch)


def _sentence(module: Any, data: Any, example: Example) -> dict[str, Any]:
    (batch,) = _batches(module, data, [example])
    prompts = _forward(module, batch)
    return {
        "direction": example.direction,
        "tokens": [module.tokenizer.decode([token]) for token in batch.input_ids[0].tolist()],
        "prompt": int(prompts),
        "gate": {
            layer: routing.gate.sigmoid().tolist()
            for layer, routing, _ in module.routings()
            if routing.gate is not None
        },
    }
