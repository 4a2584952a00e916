"""What the caption runs did to each other and to the base: matrix, forgetting, records to keep.

For a run with adapters: every adapter on every direction (chrF++, the first sentences of each test
set). For every run: nats per token of held-out monolingual captions in each language, as the model
stands after training; with adapters, under each adapter and under none. Writes one JSON per run,
which also holds the run's own record, into --out. The translations stay in the run folder:
a model trained on captions at times writes one that stands in the data, which is not ours to give.
"""

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from polylect.build import build_data
from polylect.data.datamodule import TranslationData
from polylect.eval.metrics import score
from polylect.evaluate import nats_per_token
from polylect.record import Record, write_json
from polylect.strategies.lora_library import LoRALibrary
from polylect.translator import Translator

LANGUAGES = ("en", "de", "fr", "cs", "hi")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--sentences", type=int, default=200, help="of each test set, in the matrix"
    )
    parser.add_argument("--base", type=Path, help="base model, for a run without a checkpoint")
    arguments = parser.parse_args()
    for run in arguments.runs:
        name = run.parent.name
        record = Record.read(run)
        found = json.loads((run / "record.json").read_text(encoding="utf-8"))
        if (run / "config.yaml").is_file():
            found["analysis"] = analyse(run, arguments.sentences)
        write_json(arguments.out / f"{name}.json", found)
        print(name, record.status, json.dumps(found.get("analysis"), indent=1))


def analyse(run: Path, sentences: int) -> dict[str, Any]:
    """Matrix and likelihoods of one training run."""
    translator = Translator.from_run(run)
    data = build_data(OmegaConf.load(run / "config.yaml"))
    data.tokenizer = translator.module.tokenizer
    data.setup("test")
    adapters = ["", *translator.adapters] if isinstance(translator.module, LoRALibrary) else [None]
    monolingual = held_out(data)
    likelihoods: dict[str, dict[str, float]] = {}
    for adapter in adapters:
        with _using(translator, adapter):
            likelihoods[adapter or "none"] = {
                language: nats_per_token(translator.module, loader)
                for language, loader in zip(LANGUAGES, monolingual.test_dataloader(), strict=True)
            }
    found: dict[str, Any] = {"nats_per_token": likelihoods}
    if len(adapters) > 2:
        found["matrix"] = {a: row(translator, data, a, sentences) for a in adapters[1:]}
    return found


def held_out(data: TranslationData) -> TranslationData:
    """Held-out captions of each language alone: the target sides of the validation sets."""
    files = {code: f"multi30k/test_2016_flickr.{code}.gz" for code in LANGUAGES if code != "hi"}
    files["hi"] = "visual_genome/test.hi.gz"
    found = TranslationData(
        directions=LANGUAGES,
        test=files,
        root=str(data._corpora["test"][data.directions[0]][0].root),
        template="tag",
        tokenizer=data.tokenizer,
    )
    found.setup("test")
    return found


def row(
    translator: Translator, data: TranslationData, adapter: str, sentences: int
) -> dict[str, Any]:
    """Scores of one adapter in every direction."""
    found = {}
    for direction in data.directions:
        prompts = data.prompts(direction, "test", sentences)
        with _using(translator, adapter):
            hypotheses = [t.text for t in translator.module.translate(prompts)]
        references = [p.references for p in prompts]
        target = direction.split("-")[1]
        scores = score(hypotheses, references, metrics=["bleu", "chrf++"], target=target)
        found[direction] = {s.name: {"value": s.value, "signature": s.signature} for s in scores}
    return found


def _using(translator: Translator, adapter: str | None):
    return nullcontext() if adapter is None else translator.module.using(adapter)


if __name__ == "__main__":
    main()
