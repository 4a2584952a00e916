"""How likely the runs of Mix-MoE find held-out text: what they keep, and what they have learnt.

For every run: nats per token of monolingual text in each language as the model stands after the
last stage (with adapters, under each of them), the same after the stage that it went on from, and
nats per target token of each direction's test set. Writes one JSON per run, which also holds the
run's own record, into --out. The translations stay in the run folder.
"""

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from polylect.build import build_data
from polylect.evaluate import nats_per_token
from polylect.record import Record, write_json
from polylect.strategies.lora_library import LoRALibrary
from polylect.translator import Translator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="of the last stage, or of a base")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--monolingual", type=Path, required=True, help="a run of stage 1, whose test sets are read"
    )
    arguments = parser.parse_args()
    text = OmegaConf.load(arguments.monolingual / "config.yaml")
    for run in arguments.runs:
        record = Record.read(run)
        found = json.loads((run / "record.json").read_text(encoding="utf-8"))
        found["analysis"] = analyse(run, record, text)
        write_json(arguments.out / f"{run.parent.name}.json", found)
        print(run.parent.name, record.status, json.dumps(found["analysis"], indent=1), flush=True)


def analyse(run: Path, record: Record, text: DictConfig) -> dict[str, Any]:
    """Likelihoods of one run, or of the base model that an evaluation scored."""
    trained = (run / "config.yaml").is_file()
    translator = Translator.from_run(run) if trained else base(record)
    library = isinstance(translator.module, LoRALibrary)
    found: dict[str, dict[str, float]] = {}
    if before := record.config.get("init_from"):
        tested = Record.read(Path(before)).metrics["test"]
        found["stage 1"] = {name: scores["nats_per_token"] for name, scores in tested.items()}
    for adapter in (translator.adapters if library else []) or [None]:
        with translator.module.using(adapter) if adapter else nullcontext():
            found[adapter or "none"] = likelihoods(translator, text)
    with nullcontext() if trained else translator.module.using(""):
        targets = likelihoods(translator, OmegaConf.create({"data": record.config["data"]}))
    return {"nats_per_token": found, "nats_per_target": targets}


def base(record: Record) -> Translator:
    """The model that an evaluation scored as it is."""
    backbone, tokenizer = instantiate(record.config["model"], _convert_="all")
    return Translator.from_base(backbone, tokenizer, template=record.config["data"]["template"])


def likelihoods(translator: Translator, cfg: DictConfig) -> dict[str, float]:
    """Mean negative log-likelihood of the test sets, by direction or language."""
    data = build_data(cfg)
    data.tokenizer = translator.module.tokenizer
    data.setup("test")
    pairs = zip(data.directions_of("test"), data.test_dataloader(), strict=True)
    return {name: nats_per_token(translator.module, batches) for name, batches in pairs}


if __name__ == "__main__":
    main()
