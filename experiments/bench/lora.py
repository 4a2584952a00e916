"""Mixed batches of LoRA adapters against PEFT: decoding, prefill, training.

    python experiments/bench/lora.py --out experiments/bench/results/lora.json

The variants are those of lora_bench.py; this adds the goals and the record.
"""

import argparse
from collections.abc import Mapping

from harness import Row, main, with_goal  # sets the environment, so it comes first

# ruff: isort: split
import lora_bench
import torch

TIMES_FASTER = {
    "decode": {4: 2.0, 32: 4.0},
    "prefill": {4: 1.3, 8: 1.4, 32: 2.1},
    "train": {4: 1.2, 8: 1.4, 16: 2.0},
}
FLAT = 1.1  # the time with 32 adapters over that with one
SHARE = {"decode": 0.2, "prefill": 0.4, "train": 1.0}  # of --seconds: their rounds differ


def run(arguments: argparse.Namespace) -> list[Row]:
    rows = []
    for name, share in SHARE.items():
        torch.manual_seed(arguments.seed)
        rows += lora_bench.PHASES[name](share * arguments.seconds, arguments.rounds)
    return [with_goals(found) for found in rows]


def with_goals(found: Row) -> Row:
    """The row with the goal of every PEFT variant."""
    if "over_ours_1" in found:
        return with_goal(found, "ours_32", most=FLAT)
    goals: Mapping[int, float] = TIMES_FASTER[found["phase"]]
    if found["adapters"] in goals:
        for variant in found["over_ours"]:
            if variant.startswith("peft"):
                found = with_goal(found, variant, least=goals[found["adapters"]])
    return found


if __name__ == "__main__":
    main("lora", __doc__, run)
