"""Translating a file of mixed lengths in length-sorted batches, against `generate` in input order.

    python experiments/bench/decode.py --out experiments/bench/results/decode.json
    python experiments/bench/decode.py --run FOLDER --direction en-de --input FILE --out ...

The same model, the same rows per batch, the same rule for the longest translation, greedy. Without
--run and --input an adapter is trained for about a minute on lines of one to six sentences of the
embedded tongues, so that translations end where a translation does, and such lines are translated.
"""

import argparse
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from harness import Row, main, measure, row  # sets the environment

# ruff: isort: split
import torch

from polylect.cli import run as polylect
from polylect.data.batch import Example, collate, pad_id
from polylect.data.corpora.rows import one_line
from polylect.files import write_text
from polylect.strategies.base import TranslationModule
from polylect.strategies.decoding.translation import Translation
from polylect.strategies.generation import Generation, batches
from polylect.tongues import parallel
from polylect.translator import Translator

SENTENCES = 6  # at most, in a line
LINES = 96
ROWS = (8, 32)
STEPS = 200
CAP = {"ratio": 1.5, "extra": 10}


def run(arguments: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        trained = arguments.run or train(Path(folder), arguments)
        module = Translator.from_run(trained, device="cpu").module
        texts = lines(arguments.input)[: 32 if arguments.tiny else LINES]
        prompts = [module.prompt(text, arguments.direction) for text in texts]
        return [case(arguments, module, prompts, rows) for rows in ROWS]


def lines(file: Path | None) -> list[str]:
    if file is not None:
        return file.read_text(encoding="utf-8").splitlines()
    return [source for source, _ in mixed_lines("test", LINES)]


def case(
    arguments: argparse.Namespace, module: TranslationModule, prompts: list[Example], rows: int
) -> Row:
    """The file in batches of so many rows."""
    module.generation = Generation(rows=rows, tokens=10**9, **CAP)
    ours: list[Translation] = []
    theirs: list[str] = []

    def sorted_by_length() -> None:
        ours[:] = module.translate(prompts)

    def in_input_order() -> None:
        theirs[:] = generate_in_input_order(module, prompts)

    variants = {"ours": sorted_by_length, "generate_in_input_order": in_input_order}
    times = measure(variants, arguments.seconds, arguments.rounds)
    differ = sum(a.text != b for a, b in zip(ours, theirs, strict=True))
    if differ > len(prompts) / 20:
        raise SystemExit(f"{differ} of {len(prompts)} translations differ: no times from that")
    result = row({"rows in a batch": rows}, times, "ours", differ / len(prompts))
    lengths = [len(prompt.prompt) for prompt in prompts]
    tokens = [translation.tokens for translation in ours]
    in_order = [list(range(i, min(i + rows, len(prompts)))) for i in range(0, len(prompts), rows)]
    passes = [
        sum(max(tokens[i] for i in batch) + 1 for batch in cut)
        for cut in (batches(lengths, module.generation), in_order)
    ]
    figures = {
        "lines": len(prompts),
        "forward passes, ours and in input order": passes,
        "hypotheses that differ": differ,
        "prompt tokens, shortest and longest": [min(lengths), max(lengths)],
        "translation tokens, shortest and longest": [min(tokens), max(tokens)],
        "translations that ran into the cap": sum(t.capped for t in ours),
        "tokens per second, ours": round(sum(tokens) / (result["milliseconds"]["ours"] / 1e3)),
    }
    return result | {"figures": figures}


@torch.no_grad()
def generate_in_input_order(module: TranslationModule, prompts: list[Example]) -> list[str]:
    """What a user of transformers writes: batches as the lines come, `generate`, `batch_decode`."""
    rows, cap, hypotheses = module.generation.rows, module.generation.cap, []
    for begin in range(0, len(prompts), rows):
        part = prompts[begin : begin + rows]
        batch = collate(part, pad_id(module.tokenizer), "left")
        width = batch.input_ids.shape[1]
        with module.routing(batch):
            output = module.backbone.generate(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                max_new_tokens=cap(width),
                do_sample=False,
                eos_token_id=module.ends(),
                pad_token_id=pad_id(module.tokenizer),
            )
        ids = [o[width : width + cap(len(p.prompt))] for o, p in zip(output, part, strict=True)]
        texts = module.tokenizer.batch_decode(ids, skip_special_tokens=True)
        hypotheses += [one_line(text) for text in texts]
    return hypotheses


def mixed_lines(split: str, size: int) -> list[tuple[str, str]]:
    """Aligned lines of one to six sentences."""
    draw, lines = Random(1), []
    pairs = iter(parallel("en-de", split, SENTENCES * size))
    for _ in range(size):
        sentence_pairs = [next(pairs) for _ in range(draw.randint(1, SENTENCES))]
        lines.append(
            (" ".join(s for s, _ in sentence_pairs), " ".join(t for _, t in sentence_pairs))
        )
    return lines


def train(folder: Path, arguments: argparse.Namespace) -> Path:
    """A run of `polylect train` on such lines; its folder."""
    for split, size in (("train", 1500), ("dev", 32)):
        rows = (f"{source}\t{target}\n" for source, target in mixed_lines(split, size))
        write_text(folder / f"{split}.tsv", "".join(rows))
    steps = 2 if arguments.tiny else STEPS
    settings: dict[str, Any] = {
        "runs": folder,
        "name": "decode",
        "seed": arguments.seed,
        "data": "files",
        "data.directions": "[en-de]",
        "data.root": folder,
        "data.train": "train.tsv",
        "data.val": "dev.tsv",
        "data.template": "tag",
        "data.tokens_per_batch": 1024,
        "trainer.max_steps": steps,
        "trainer.val_check_interval": steps,
        "evaluate": False,
        "evaluate_base": False,
    }
    if arguments.base:
        settings |= {"model": "local", "model.path": arguments.base}
    if arguments.tiny:
        settings |= {"model": "tiny"}
    if polylect(["train", *(f"{key}={value}" for key, value in settings.items())]):
        raise SystemExit("the training failed")
    return next((folder / "decode").iterdir())


if __name__ == "__main__":
    main(
        "decode",
        __doc__,
        run,
        {
            "run": {"type": Path, "help": "run folder of a trained model"},
            "base": {"type": Path, "help": "model to train on; the embedded base by default"},
            "direction": {"default": "en-de"},
            "input": {"type": Path, "help": "text to translate, one line each"},
        },
    )
