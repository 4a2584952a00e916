"""What runs did to the base and to each other: records to keep, with likelihoods and a matrix.

    python experiments/tools/analyse.py --out FOLDER --text data=captions_mono -- RUN…

For every run: nats per token of the monolingual test sets that --text names, as the model stands
after training (with adapters, under each of them and under none), and the same after the stage
that it went on from; nats per target token of each direction's test set. With --matrix, every
adapter on every direction (chrF++ and BLEU of the first sentences of each test set).

Writes one JSON per run, its record as `publish.py` condenses it with the analysis, into --out. The
translations stay in the run folder: a model at times writes one that stands in its data, which is
not ours to give.
"""

import argparse
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from publish import write_published

from polylect.config.roots import conf_folder
from polylect.config.targets import instantiate
from polylect.eval.metrics import score
from polylect.run.build import build_data
from polylect.run.record import Record
from polylect.run.results.scoring import nats_per_token
from polylect.strategies.lora_library import LoRALibrary
from polylect.translator import Translator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--text", nargs="+", required=True, help="overrides that name monolingual test sets"
    )
    parser.add_argument("--matrix", type=int, default=0, help="sentences of each test set")
    parser.add_argument("--name", default="{}", help="of a record; {} is the name of the run")
    arguments = parser.parse_args()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        text = compose("train", overrides=arguments.text)
    for run in arguments.runs:
        source = (run / "record.json").read_bytes()
        record = json.loads(source) | {"analysis": analyse(run, text, arguments.matrix)}
        name = arguments.name.format(run.parent.name)
        write_published(arguments.out / f"{name}.json", record, source)
        print(name, record["status"], json.dumps(record["analysis"], indent=1), flush=True)


def analyse(run: Path, text: DictConfig, matrix: int) -> dict[str, Any]:
    """Likelihoods, and the matrix, of a training run or of the base model that was evaluated."""
    record = Record.read(run)
    trained = (run / "config.yaml").is_file()
    translator = Translator.from_run(run) if trained else base(record)
    adapters = translator.adapters if trained and _is_library(translator) else []
    nats: dict[str, dict[str, float]] = {}
    if before := record.config.get("init_from"):
        test_scores = Record.read(Path(before)).metrics["test"]
        nats["stage 1"] = {name: scores["nats_per_token"] for name, scores in test_scores.items()}
    for adapter in ("", *adapters):
        with use_adapter(translator, adapter):
            nats[adapter or "none"] = likelihoods(translator, text)
    own = OmegaConf.create({"data": record.config["data"]})
    with nullcontext() if trained else use_adapter(translator, ""):
        analysis: dict[str, Any] = {
            "nats_per_token": nats,
            "nats_per_target": likelihoods(translator, own),
        }
    if matrix and len(adapters) > 1:
        analysis["matrix"] = {a: row(translator, own, a, matrix) for a in adapters}
    return analysis


def base(record: Record) -> Translator:
    """The model that an evaluation scored as it is."""
    backbone, tokenizer = instantiate(record.config["model"], "model", _convert_="all")
    return Translator.from_base(backbone, tokenizer, template=record.config["data"]["template"])


def likelihoods(translator: Translator, cfg: DictConfig) -> dict[str, float]:
    """Mean negative log-likelihood of the test sets, by direction or language."""
    data = build_data(cfg)
    data.tokenizer = translator.module.tokenizer
    data.setup("test")
    pairs = zip(data.directions_of("test"), data.test_dataloader(), strict=True)
    return {name: nats_per_token(translator.module, batches) for name, batches in pairs}


def row(translator: Translator, cfg: DictConfig, adapter: str, sentences: int) -> dict[str, Any]:
    """Scores of one adapter in every direction."""
    data = build_data(cfg)
    data.tokenizer, data.template = translator.module.tokenizer, translator.module.template
    data.setup("test")
    by_direction = {}
    for direction in data.directions:
        prompts = data.prompts(direction, "test", sentences)
        with use_adapter(translator, adapter):
            hypotheses = [t.text for t in translator.module.translate(prompts)]
        references = [prompt.references for prompt in prompts]
        by_direction[direction] = scores(hypotheses, references, direction)
    return by_direction


def scores(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], direction: str
) -> dict[str, Any]:
    """Value and signature of each metric."""
    target = direction.split("-")[1]
    values = score(hypotheses, references, metrics=["bleu", "chrf++"], target=target)
    return {s.name: {"value": s.value, "signature": s.signature} for s in values}


def use_adapter(translator: Translator, adapter: str) -> AbstractContextManager[Any]:
    """Every row through this adapter of a library, or none; other strategies as they are."""
    return translator.module.use_adapter(adapter) if _is_library(translator) else nullcontext()


def _is_library(translator: Translator) -> bool:
    return isinstance(translator.module, LoRALibrary)


if __name__ == "__main__":
    main()
