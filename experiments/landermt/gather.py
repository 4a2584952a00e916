"""Records of runs on the tongues, with the nats per token of each language's text after them.

Held-out text of each language alone, as the model stands after training: what is forgotten shows
there. Writes NAME.json per run into --out; a neuron file's run has no scores and is left out.
"""

import argparse
import json
from pathlib import Path

from polylect.data.datamodule import TranslationData
from polylect.evaluate import nats_per_token
from polylect.record import write_json
from polylect.translator import Translator

LANGUAGES = ("en", "de", "fr", "hi", "ta")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for run in arguments.runs:
        found = json.loads((run / "record.json").read_text(encoding="utf-8"))
        if "train" not in found["metrics"]:
            continue
        if found["metrics"].get("test"):
            found["nats_per_token"] = nats(run)
        write_json(arguments.out / f"{run.parent.name}.json", found)
        print(run, found.get("nats_per_token"))


def nats(run: Path) -> dict[str, float]:
    """By language."""
    module = Translator.from_run(run).module
    data = TranslationData(
        directions=LANGUAGES,
        test={"kind": "tongues", "split": "test", "size": 100},
        template="tag",
        tokenizer=module.tokenizer,
    )
    data.setup("test")
    loaders = zip(LANGUAGES, data.test_dataloader(), strict=True)
    return {language: nats_per_token(module, loader) for language, loader in loaders}


if __name__ == "__main__":
    main()
