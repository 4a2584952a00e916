"""A direction that was not trained, through the rows of other languages, of its own and of none.

    transfer.py --out FOLDER --direction de-fr RUN…

The text is the test set of the direction in the run's own corpus, the same for all; what differs is
whose rows it goes through: `none` is the base alone, `de` the general rows and those of de, `de+fr`
also those of fr, as the direction itself goes through. Nats per target token of the reference, and
chrF++ of the translation.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from polylect.config.roots import plain
from polylect.data.batch import Example, pad_id
from polylect.data.stream import EvaluationBatches
from polylect.eval.metrics import score
from polylect.run.build import build_data, load
from polylect.run.record import Record
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import target_losses

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from publish import write_published


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--name", default="{}", help="of a record; {} is the name of the run")
    parser.add_argument("--direction", required=True)
    parser.add_argument("--limit", type=int, default=100, help="sentences to translate")
    arguments = parser.parse_args()
    for run in arguments.runs:
        begin = time.monotonic()
        module, cfg = load(run)
        record = Record(run=str(run), config=plain(cfg))
        record.metrics["rows"] = measure(module, cfg, arguments.direction, arguments.limit)
        record.status, record.seconds = "done", round(time.monotonic() - begin, 1)
        name = arguments.name.format(run.name)
        published = asdict(record) | {"scratch": record.scratch}
        write_published(arguments.out / f"{name}.json", published)


def measure(module: TranslationModule, cfg: Any, direction: str, limit: int) -> dict[str, Any]:
    """What each choice of rows gives, by its name."""
    data = build_data(OmegaConf.merge(cfg, {"data": {"directions": [direction]}}))
    data.tokenizer = module.tokenizer
    data.setup("test")
    source, target = direction.split("-")
    ways = {
        "none": "",
        "en": "en-en",
        source: f"{source}-{source}",
        target: f"{target}-{target}",
        f"{source}+{target}": direction,
    }
    examples, prompts = data.examples(direction, "test"), data.prompts(direction, "test", limit)
    found = {}
    for name, through in ways.items():
        if module.serves(through) or not through:
            found[name] = {
                "nats_per_target": likelihood(module, with_rows(examples, through)),
                "chrf++": translation(module, with_rows(prompts, through), target),
            }
            print(name, found[name], flush=True)
    return found


def with_rows(examples: Sequence[Example], through: str) -> list[Example]:
    """The same prompts and targets, through the rows of other languages."""
    return [replace(example, direction=through) for example in examples]


def likelihood(module: TranslationModule, examples: Sequence[Example]) -> float:
    total, tokens = 0.0, 0
    for batch in EvaluationBatches(examples, 2048, 64, pad_id(module.tokenizer)):
        with module.routing(batch):
            losses, _ = target_losses(module.backbone, batch)
        total, tokens = total + float(losses.sum()), tokens + len(losses)
    return round(total / tokens, 4)


def translation(module: TranslationModule, prompts: Sequence[Example], target: str) -> float:
    texts = [t.text for t in module.translate(prompts)]
    (chrf,) = score(texts, [p.references for p in prompts], metrics=["chrf++"], target=target)
    return round(chrf.value, 2)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
