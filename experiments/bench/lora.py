"""Mixed batches of LoRA adapters against PEFT: decoding, prefill, training.

    python experiments/bench/lora.py --out experiments/bench/results/lora.json

One model (Llama, 4 layers, hidden 256, FFN 1024, LoRA of rank 16 on all linear layers), 32 rows.
"ours" deals the adapters out row by row, "ours_sorted_rows" has those of one adapter side by side.
"""

import argparse
from collections.abc import Iterator, Mapping

from harness import Row, agreement, main, measure, row, with_goal  # sets the environment

# ruff: isort: split
import torch
from lora_models import CACHE, CONFIG, LENGTH, ROWS, blocks, in_peft, pair, spread, tokens
from transformers import DynamicCache, LlamaForCausalLM

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
        rows += PHASES[name](share * arguments.seconds, arguments.rounds)
    return [with_goals(result) for result in rows]


def with_goals(result: Row) -> Row:
    """The row with the goal of every PEFT variant."""
    if "over_ours_1" in result:
        return with_goal(result, "ours_32", most=FLAT)
    goals: Mapping[int, float] = TIMES_FASTER[result["phase"]]
    if result["adapters"] in goals:
        for variant in result["over_ours"]:
            if variant.startswith("peft"):
                result = with_goal(result, variant, least=goals[result["adapters"]])
    return result


def prefill(seconds: float, rounds: int) -> Iterator[Row]:
    """A route and a forward pass over 32 rows of 32 tokens."""
    ids = tokens(LENGTH)
    for count in (1, 4, 8, 32):
        base, context, _, peft = pair(count)

        def ours(names, base=base, context=context):
            with torch.inference_mode(), context.route(names):
                return base(ids, use_cache=False).logits

        @torch.inference_mode()
        def theirs(names, peft=peft):
            return peft(input_ids=ids, adapter_names=names, use_cache=False).logits

        names = spread(count)
        variants = {
            "ours": lambda ours=ours, names=names: ours(names),
            "ours_sorted_rows": lambda ours=ours, count=count: ours(blocks(count)),
            "no_adapter": lambda ours=ours: ours([""] * ROWS),
            "peft": lambda theirs=theirs, names=names: theirs(names),
        }
        difference = agreement(ours(names), theirs(names))
        times = measure(variants, seconds, rounds)
        yield row({"phase": "prefill", "adapters": count}, times, "ours", difference)
    base, context, _, _ = pair(32)

    def forward(names):
        with torch.inference_mode(), context.route(names):
            return base(ids, use_cache=False).logits

    variants = {f"ours_{k}": lambda k=k: forward(spread(k)) for k in (1, 4, 8, 32)}
    yield row({"phase": "prefill, flat"}, measure(variants, seconds, rounds), "ours_1", 0.0)


def decode(seconds: float, rounds: int) -> Iterator[Row]:
    """One generated token for 32 rows after 32 cached ones, inside one route."""
    ids, one = tokens(LENGTH), tokens(1)
    for count in (4, 8, 32):
        base, context, _, peft = pair(count)
        names = spread(count)
        cache = DynamicCache(config=CONFIG)
        with torch.inference_mode(), context.route(names):
            base(ids, **{CACHE: cache}, use_cache=True)

        def step(model, cache=cache, **options):
            with torch.inference_mode():
                logits = model(input_ids=one, **{CACHE: cache}, use_cache=True, **options).logits
                cache.crop(-1)
            return logits

        variants = {
            "ours": lambda step=step, base=base: step(base),
            "peft": lambda step=step, peft=peft, names=names: step(peft, adapter_names=names),
        }
        with context.route(names):
            difference = agreement(variants["ours"](), variants["peft"]())
            times = measure(variants, seconds, rounds)
        yield row({"phase": "decode", "adapters": count}, times, "ours", difference)


def train(seconds: float, rounds: int) -> Iterator[Row]:
    """Forward and backward of K adapters over 32 rows of 32 tokens, without the optimizer."""
    ids = tokens(LENGTH)
    for count in (4, 8, 16):
        base, context, layers, peft = pair(count)
        parts = ids.view(count, -1, LENGTH)
        plain = LlamaForCausalLM(CONFIG).eval().requires_grad_(False)
        alone = [in_peft(plain, [f"a{k}"]) for k in range(count)]

        def mixed(names, base=base, context=context):
            with context.route(names):
                loss = base(ids, labels=ids, use_cache=False).loss
            base.zero_grad()
            loss.backward()

        def sub_batches(peft=peft, parts=parts, count=count):
            peft.zero_grad()
            for k, part in enumerate(parts):
                peft.set_adapter(f"a{k}")
                (peft(input_ids=part, labels=part, use_cache=False).loss / count).backward()

        def separate(alone=alone, parts=parts, count=count):
            for model, part in zip(alone, parts, strict=True):
                model.zero_grad()
                (model(input_ids=part, labels=part, use_cache=False).loss / count).backward()

        mixed(blocks(count))
        sub_batches()
        path, layer = next(iter(layers.items()))
        twin = peft.get_submodule(f"base_model.model.{path}")
        last = f"a{count - 1}"
        difference = agreement(layer.lora_a[last].grad, twin.lora_A[last].weight.grad)
        variants = {
            "ours": lambda mixed=mixed, count=count: mixed(spread(count)),
            "ours_sorted_rows": lambda mixed=mixed, count=count: mixed(blocks(count)),
            "peft_sub_batches": sub_batches,
            "peft_separate_models": separate,
        }
        times = measure(variants, seconds, rounds)
        yield row({"phase": "train", "adapters": count}, times, "ours", difference)


PHASES = {"decode": decode, "prefill": prefill, "train": train}


if __name__ == "__main__":
    main("lora", __doc__, run)
