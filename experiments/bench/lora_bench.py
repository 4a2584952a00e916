"""Mixed-batch LoRA against PEFT on a CPU: same weights, same result, ratio of the times.

    python experiments/bench/lora_bench.py decode prefill train switch --out results.json

One model (Llama, 4 layers, hidden 256, FFN 1024, LoRA of rank 16 on all linear layers). Every
round runs every variant once, in turn; a ratio is the median over rounds of the ratio within a
round, so that what else the machine does hits all variants alike. Nothing is reported unless the
variants agree on the numbers.
"""

import argparse
import copy
import ctypes
import json
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # waiting threads sleep: fair on a shared machine
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft import __version__ as peft_version
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from polylect.layers.lora import LoRALayer, attach_all
from polylect.layers.routing import RoutingContext
from polylect.library import Adapter, AdapterLibrary, AdapterStore

ROWS, LENGTH, RANK, ALPHA = 32, 32, 16, 32
CONFIG = LlamaConfig(
    hidden_size=256,
    intermediate_size=1024,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=4,
    vocab_size=1000,
)
Variants = dict[str, Callable[[], object]]


def keep_freed_memory() -> None:
    """Large temporaries stay in the process: glibc would give each back to the kernel."""
    if platform.system() == "Linux":
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def measure(variants: Variants, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each variant in each round; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and len(next(iter(times.values()))) < rounds:
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def row(what: dict, times: dict[str, list[float]], ours: str, difference: float) -> dict:
    """One result: medians, and the median and quartiles of every variant's time over ours."""
    ratios = {}
    for name, series in times.items():
        within = sorted(a / b for a, b in zip(series, times[ours], strict=True))
        quarter = len(within) // 4
        ratios[name] = {
            "median": round(statistics.median(within), 3),
            "quartiles": [round(within[quarter], 3), round(within[-1 - quarter], 3)],
        }
    result = {
        **what,
        "rounds": len(times[ours]),
        "milliseconds": {name: round(statistics.median(s), 3) for name, s in times.items()},
        f"over_{ours}": ratios,
        "largest_difference": difference,
    }
    shown = "  ".join(f"{name} {r['median']:.2f}" for name, r in ratios.items())
    label = "  ".join(f"{key} {value}" for key, value in what.items())
    print(f"{label}: {shown}   ({result['rounds']} rounds)", flush=True)
    return result


def pair(count: int) -> tuple[LlamaForCausalLM, RoutingContext, dict[str, LoRALayer], PeftModel]:
    """The model with `count` random adapters, here and in PEFT."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(CONFIG).eval().requires_grad_(False)
    peft = in_peft(base, [f"a{k}" for k in range(count)])
    theirs = {
        name.removeprefix("base_model.model."): module
        for name, module in peft.named_modules()
        if hasattr(module, "lora_A")
    }
    context = RoutingContext()
    layers = attach_all(base, "all-linear", context)
    for path, layer in layers.items():
        for name in theirs[path].lora_A:
            a, b = theirs[path].lora_A[name].weight, theirs[path].lora_B[name].weight
            layer.set(name, a, b, ALPHA / RANK, trainable=True)
    return base, context, layers, peft


def in_peft(base: LlamaForCausalLM, names: list[str]) -> PeftModel:
    def config() -> LoraConfig:
        return LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", init_lora_weights=False
        )

    peft = get_peft_model(copy.deepcopy(base), config(), adapter_name=names[0])
    for name in names[1:]:
        peft.add_adapter(name, config())
    return peft.eval()


def tokens(length: int) -> Tensor:
    return torch.randint(3, CONFIG.vocab_size, (ROWS, length))


def spread(count: int) -> list[str]:
    """Adapters dealt out row by row: neighbours differ."""
    return [f"a{i % count}" for i in range(ROWS)]


def blocks(count: int) -> list[str]:
    """The same rows sorted by adapter, as a sorted batch has them."""
    return [f"a{i * count // ROWS}" for i in range(ROWS)]


def prefill(seconds: float, rounds: int) -> Iterator[dict]:
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


def decode(seconds: float, rounds: int) -> Iterator[dict]:
    """One generated token for 32 rows after 32 cached ones, inside one route."""
    ids, one = tokens(LENGTH), tokens(1)
    for count in (4, 8, 32):
        base, context, _, peft = pair(count)
        names = spread(count)
        cache = DynamicCache(config=CONFIG)
        with torch.inference_mode(), context.route(names):
            base(ids, past_key_values=cache, use_cache=True)

        def step(model, cache=cache, **options):
            with torch.inference_mode():
                logits = model(
                    input_ids=one, past_key_values=cache, use_cache=True, **options
                ).logits
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


def train(seconds: float, rounds: int) -> Iterator[dict]:
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


def switch(seconds: float, rounds: int) -> Iterator[dict]:
    """Opening a route against `set_adapter`, and memory per adapter, with 2 and 200 resident."""
    for count in (2, 200):
        base, context, layers, peft = pair(count)
        names = [f"a{k}" for k in range(count)]

        turns, theirs_turns = cycle(names), cycle(names)

        def ours(context=context, turns=turns):
            with context.route([next(turns)]):
                pass

        def theirs(peft=peft, turns=theirs_turns):
            peft.set_adapter(next(turns))

        variants = {"ours": ours, "peft_set_adapter": theirs}
        times = measure(variants, seconds, rounds)
        with tempfile.TemporaryDirectory() as folder:
            file_bytes, resident_bytes, load_ms = load_cost(base, layers, Path(folder), count)
        result = row({"phase": "switch", "resident": count}, times, "ours", 0.0)
        result |= {
            "adapter_file_bytes": file_bytes,
            "adapter_resident_bytes": resident_bytes,
            "load_one_more_milliseconds": load_ms,
        }
        print(f"  file {file_bytes} bytes, in memory {resident_bytes}, load {load_ms} ms")
        yield result


def load_cost(
    base: LlamaForCausalLM, layers: dict[str, LoRALayer], folder: Path, count: int
) -> tuple[int, int, float]:
    """Bytes of an adapter on disk and in memory; time to load one more beside `count`."""
    library = AdapterLibrary(folder)
    written = library.save("more", Adapter.of_layers(layers, "a0"))
    store = AdapterStore(base, layers, library, budget_bytes=1 << 30)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        store.acquire(["more"])
        times.append(1e3 * (time.perf_counter() - start))
        held = store.bytes
        store.unload("more")
    size = (written / "adapter_model.safetensors").stat().st_size
    return size, held, round(statistics.median(times), 3)


def agreement(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value; too large a one ends the run."""
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if difference > 1e-5:
        raise SystemExit(f"the variants differ by {difference:.1e}: no times from a wrong result")
    return difference


PHASES = {"decode": decode, "prefill": prefill, "train": train, "switch": switch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("phases", nargs="+", choices=PHASES, help="what to time")
    parser.add_argument("--seconds", type=float, default=12.0, help="for each row of results")
    parser.add_argument("--rounds", type=int, default=40, help="at most, for each row")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file to write the record to")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    rows = [r for p in arguments.phases for r in PHASES[p](arguments.seconds, arguments.rounds)]
    record = {
        "benchmark": "lora",
        "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "device": f"{platform.machine()} CPU, {arguments.threads} threads, float32",
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft_version,
        },
        "model": "Llama, 4 layers, hidden 256, FFN 1024, all-linear, rank 16, 32 rows",
        "rows": rows,
    }
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
