"""Switching, loading and unloading adapters against PEFT, and the memory an adapter takes.

    python experiments/bench/switch.py --out experiments/bench/results/switch.json

A folder holds 201 PEFT adapters for one random Llama. A library and a `PeftModel` hold 2 of them in
memory, another library and another `PeftModel` hold 200. All four take turns:

- switch: to another adapter in memory, by naming it for a batch, or by `set_adapter`;
- switch and use: the same, and a forward pass of one row of 16 tokens with it;
- load: one more adapter from its folder;
- unload: that one again.
"""

import argparse
import copy
import gc
import tempfile
import warnings
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path

from harness import Row, agreement, main, measure, per_call, row  # sets the environment

# ruff: isort: split
import torch
from lora_models import CONFIG
from peft import PeftModel
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from polylect.data.batch import Example, TranslationBatch, collate
from polylect.layers.surgery import find_linears
from polylect.library import Adapter, AdapterLibrary, LowRank, base_fingerprint
from polylect.strategies.lora_library import LoRALibrary

RANK, LAYERS, TOKENS = 8, 2, 16
SWITCHES = 10  # in a round, each to another adapter
FEW, MANY = 2, 200


class Ours:
    """A library with some of its adapters in memory."""

    def __init__(self, base: nn.Module, folder: Path, names: Sequence[str]) -> None:
        self.module = LoRALibrary(directions=[], library=folder)
        self.module.set_backbone(copy.deepcopy(base), None)
        before = process_bytes()
        for name in names:
            self.module.load(name)
        self.process_bytes = (process_bytes() - before) / len(names)
        self.tensor_bytes = self.module.store.bytes / len(names)
        self.batches = {name: one_row(name) for name in self.module.adapter_index.names}

    def switch(self, name: str) -> None:
        with self.module.routing(self.batches[name]):
            pass

    @torch.no_grad()
    def use(self, name: str) -> Tensor:
        batch = self.batches[name]
        with self.module.routing(batch):
            return self.module.backbone(batch.input_ids, use_cache=False).logits

    def load(self, name: str) -> None:
        self.module.load(name)

    def unload(self, name: str) -> None:
        self.module.unload(name)


class Peft:
    """A `PeftModel` with some of the same adapters."""

    def __init__(self, base: nn.Module, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        first, *others = names
        self.model = PeftModel.from_pretrained(copy.deepcopy(base), folder / first, first).eval()
        for name in others:
            self.load(name)
        self.ids = one_row(first).input_ids

    def switch(self, name: str) -> None:
        self.model.set_adapter(name)

    @torch.no_grad()
    def use(self, name: str) -> Tensor:
        self.model.set_adapter(name)
        return self.model(input_ids=self.ids, use_cache=False).logits

    def load(self, name: str) -> None:
        self.model.load_adapter(self.folder / name, name)

    def unload(self, name: str) -> None:
        self.model.delete_adapter(name)


def run(arguments: argparse.Namespace) -> list[Row]:
    many = 5 if arguments.tiny else MANY
    warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
    settings = CONFIG.to_dict() | {"num_hidden_layers": LAYERS}
    base = LlamaForCausalLM(LlamaConfig(**settings)).eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        *names, spare = write_adapters(base, folder, many + 1)
        file_bytes = (folder / spare / "adapter_model.safetensors").stat().st_size
        sides = {
            f"{side.__name__.lower()}_{count}": side(base, folder, names[:count])
            for side in (Ours, Peft)
            for count in (FEW, many)
        }
        difference = check(base, sides, [names[0], names[1]], spare)
        rows = switching(arguments, sides, {FEW: names[:FEW], many: names}, difference)
        rows += loading(arguments, sides, spare, difference)
    full = sides[f"ours_{many}"]
    figures = {
        "file, bytes": file_bytes,
        "tensors in memory, bytes": round(full.tensor_bytes),
        "growth of the process, bytes": round(full.process_bytes),
    }
    return [*rows, {"what": "memory of an adapter", "of": many, "figures": figures}]


def write_adapters(base: nn.Module, folder: Path, count: int) -> list[str]:
    """Folders of random adapters on all linear layers; their names."""
    names = [f"a{number:03}" for number in range(count)]
    linears = find_linears(base, "all-linear")
    for name in names:
        modules = {
            path: LowRank(
                torch.randn(RANK, linear.in_features) / 50,
                torch.randn(linear.out_features, RANK) / 50,
                2.0,
            )
            for path, linear in linears.items()
        }
        AdapterLibrary(folder).save(name, Adapter(modules))
    return names


def one_row(direction: str) -> TranslationBatch:
    prompt = torch.arange(3, 3 + TOKENS).tolist()
    return collate([Example(prompt, [], direction, "", ())], 0, "left")


def process_bytes() -> int:
    """Memory of this process that belongs to no file."""
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def check(
    base: nn.Module, sides: dict[str, Ours | Peft], names: Sequence[str], spare: str
) -> float:
    """All sides compute the same with every adapter, also after loading and unloading one."""
    first, second = (next(iter(sides.values())).use(name) for name in names)
    if (first - second).abs().max() < 1e-3:
        raise SystemExit("the adapters change nothing: switching between them shows nothing")
    differences = []
    for name in (*names, spare, *names):
        if name == spare:
            for side in sides.values():
                side.load(name)
        expected, *others = [side.use(name) for side in sides.values()]
        differences += [agreement(expected, other) for other in others]
        if name == spare:
            for side in sides.values():
                side.unload(name)
    ours = [side.module.backbone for side in sides.values() if isinstance(side, Ours)]
    if any(base_fingerprint(model) != base_fingerprint(base) for model in ours):
        raise SystemExit("the base has changed: no times from a wrong result")
    return max(differences)


def switching(
    arguments: argparse.Namespace,
    sides: dict[str, Ours | Peft],
    names: dict[int, list[str]],
    difference: float,
) -> list[Row]:
    rows = []
    for what in ("switch", "use"):

        def repeated(side: Ours | Peft, turn: cycle, what: str = what) -> Callable[[], None]:
            act = getattr(side, what)

            def several() -> None:
                for _ in range(SWITCHES):
                    act(next(turn))

            return several

        variants = {
            name: repeated(side, cycle(names[int(name.split("_")[1])]))
            for name, side in sides.items()
        }
        times = per_call(measure(variants, arguments.seconds, arguments.rounds), SWITCHES)
        label = {"switch": "switch", "use": "switch and use"}[what]
        rows += comparison({"what": label}, times, difference)
    return rows


def loading(
    arguments: argparse.Namespace, sides: dict[str, Ours | Peft], spare: str, difference: float
) -> list[Row]:
    variants = {
        f"{name}/{act}": lambda side=side, act=act: getattr(side, act)(spare)
        for name, side in sides.items()
        for act in ("load", "unload")
    }
    times = measure(variants, arguments.seconds, arguments.rounds)
    rows = []
    for act in ("load", "unload"):
        act_times = {name: times[f"{name}/{act}"] for name in sides}
        rows += comparison({"what": act}, act_times, difference)
    return rows


def comparison(what: dict, times: dict[str, list[float]], difference: float) -> list[Row]:
    """Against PEFT with as many adapters in memory, and ours with many against ours with few."""
    few, many = (name.removeprefix("ours_") for name in times if name.startswith("ours_"))
    pairs = [(count, f"ours_{count}", f"peft_{count}") for count in (few, many)]
    pairs.append((f"{few} and {many}", f"ours_{few}", f"ours_{many}"))
    return [
        row({**what, "in memory": count}, {n: times[n] for n in (first, second)}, first, difference)
        for count, first, second in pairs
    ]


if __name__ == "__main__":
    main("switch", __doc__, run)
