"""A training step in float32 and under bfloat16 autocast, from the same weights, on one machine.

    python experiments/bench/precision.py --base FOLDER --out out/precision.json

Both train a LoRA adapter (PEFT's, rank 16) on the same batches in turn. The loss curves stand side
by side in the record; what `trainer.precision=auto` would choose here stands beside them. Without
`--base` the model is a random Gemma 3, of which only the times mean something.
"""

import argparse
from collections.abc import Callable

from harness import Row, main, measure, row  # sets the environment

# ruff: isort: split
import torch
from peft import LoraConfig, get_peft_model

from polylect.models.backbone import load_backbone, random_model
from polylect.models.precision import bfloat16_units
from polylect.models.tokenizer import train_tokenizer
from polylect.tongues import monolingual

ROWS, STEPS, RATE = 20, 2, 5e-4
SHAPE = {"layers": 18, "hidden": 640, "ffn": 2048, "heads": 4, "context": 512}
TINY = {"layers": 2, "hidden": 32, "ffn": 64, "heads": 4, "context": 512}


def compare(arguments: argparse.Namespace) -> list[Row]:
    """One row: steps of both precisions in turn, and the losses of both."""
    texts = [text for code in ("en", "de", "fr") for text in monolingual(code, "train", 400)]
    losses: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    variants = {
        name: _trainer(arguments, texts, name == "bfloat16", losses[name]) for name in losses
    }
    times = measure(variants, arguments.seconds, arguments.rounds)
    apart = max(abs(a - b) / a for a, b in zip(*losses.values(), strict=False))
    result = row({"rows": ROWS, "base": bool(arguments.base)}, times, "bfloat16", apart)
    is_fast, why = bfloat16_units("cpu")
    precision = "bf16-mixed" if is_fast else "32-true"
    return [result | {"losses": losses, "auto": {"precision": precision, "why": why}}]


def _trainer(
    arguments: argparse.Namespace, texts: list[str], half: bool, losses: list[float]
) -> Callable[[], None]:
    """A function that makes the next steps and notes their losses."""
    if arguments.base:
        model, tokenizer = load_backbone(arguments.base)
    else:
        tokenizer = train_tokenizer(texts, 1000)
        shape = TINY if arguments.tiny else SHAPE
        model = random_model("gemma3", tokenizer, seed=arguments.seed, **shape)
    torch.manual_seed(arguments.seed)
    model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear"))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=RATE)
    position = 0

    def steps() -> None:
        nonlocal position
        for _ in range(STEPS):
            batch = [texts[(position + i) % len(texts)] for i in range(ROWS)]
            position += ROWS
            inputs = tokenizer(batch, return_tensors="pt", padding=True)
            inputs.pop("token_type_ids", None)
            labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = model(**inputs, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())

    return steps


if __name__ == "__main__":
    main(
        "precision", __doc__, compare, {"base": {"help": "folder of a model, as of polylect trim"}}
    )
