"""A direction more for a library: the steps it takes from a cold start, from adapters, their mean.

    measure.py --library RUN/adapters --direction en-ta --out FILE.json
    measure.py … --steps 60 --every 10 -- experiment=captions_gemma

Adapters that serve the direction are left out. Every start is trained with every seed, as the quick
start or by the settings given after --, and chrF++ of 30 validation sentences is taken as it
learns. Runs that are done are kept, so the same command goes on.
"""

import argparse
import csv
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from polylect.config.roots import conf_folder, plain
from polylect.config.targets import instantiate
from polylect.data.batch import pad_id
from polylect.data.stream import EvaluationBatches
from polylect.library import Adapter, AdapterLibrary
from polylect.programs.add_language.nearest import mean_update, similarities
from polylect.programs.train import main as train
from polylect.run.build import build_data
from polylect.run.precision import settle_dtype
from polylect.run.record import Record
from polylect.run.session import register_resolvers
from polylect.run.sweep.process import RUN_FOLDER

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from publish import write_published

GOALS = (20, 40, 60, 70)
QUICK_START = ["data.val.size=30", "data.tokens_per_batch=512"]
SETTINGS = [
    "++strategy.validate_translations=30", "evaluate=false", "evaluate_base=false",
    "++trainer.enable_progress_bar=false",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--direction", default="en-ta")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--every", type=int, default=2, help="steps between two looks")
    parser.add_argument("overrides", nargs="*", default=QUICK_START, help="of the training")
    parser.add_argument("--starts", nargs="+", help="cold, nearest, mean, adapters; else all")
    parser.add_argument("--runs", type=Path, default=Path("runs/add_language"))
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    begin = time.monotonic()
    library, direction = AdapterLibrary(arguments.library), arguments.direction
    names = [n for n in library.names if direction not in library.about(n).get("directions", [n])]
    common = [*arguments.overrides, *SETTINGS, f"data.directions=[{direction}]"]
    common += [f"trainer.max_steps={arguments.steps}"]
    common += [f"trainer.val_check_interval={arguments.every}"]
    register_resolvers(arguments.runs)
    cfg = composed(*common)
    record = Record(run=str(arguments.library), config=plain(cfg))
    found = record.metrics["similarities"] = near(cfg, library, names)
    nearest = max(found, key=found.__getitem__)
    starts = {"cold": None, **{name: str(library.folder(name).absolute()) for name in names}}
    starts["mean"], record.metrics["mean_keeps"] = mean_folder(library, names, arguments.runs)
    if arguments.starts:
        wanted = [nearest if name == "nearest" else name for name in arguments.starts]
        starts = {name: starts[name] for name in wanted}
    curves: dict[str, dict[str, Any]] = {name: {} for name in starts}
    for seed in arguments.seeds:
        for name, folder in starts.items():
            run = arguments.runs / f"{direction}_{name}_seed{seed}"
            start = [] if folder is None else [f"strategy.start={folder}"]
            curves[name][str(seed)] = curve(run, direction, [*common, f"seed={seed}", *start])
            print(name, seed, curves[name][str(seed)], flush=True)
    record.metrics |= {"chrf++": curves, "steps": steps_to(curves)}
    record.status, record.seconds = "done", round(time.monotonic() - begin, 1)
    write_published(arguments.out, asdict(record) | {"scratch": record.scratch})


def composed(*overrides: str) -> Any:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("train", list(overrides))


def near(cfg: Any, library: AdapterLibrary, names: list[str]) -> dict[str, float]:
    """How near each adapter is to the first 200 training sentences."""
    settle_dtype(cfg, frozen_base=True)
    base, tokenizer = instantiate(cfg.model, "model", _convert_="all")
    cfg.data.val = cfg.data.test = None
    data = build_data(cfg)
    data.set_backbone(base, tokenizer)
    data.setup("fit")
    examples = data.examples(cfg.data.directions[0], "train", 200)
    batches = EvaluationBatches(examples, 512, 64, pad_id(tokenizer))
    values = similarities(library, names, base, batches)
    return {name: round(value, 5) for name, value in values.items()}


def mean_folder(library: AdapterLibrary, names: list[str], runs: Path) -> tuple[str, float]:
    """Where the mean of all adapters lies, and the share of it that its rank keeps."""
    adapters = [library.load(name) for name in names]
    rank = max(len(update.a) for update in adapters[0].modules.values())
    updates, kept = mean_update(adapters, rank)
    saved = AdapterLibrary(runs / "start").save("mean", Adapter(updates), overwrite=True)
    return str(saved.absolute()), round(kept, 4)


def curve(run: Path, direction: str, overrides: list[str]) -> dict[str, float]:
    """Train, unless that was done, and return chrF++ of the validation sentences by steps made."""
    if not (run / "record.json").is_file() or Record.read(run).status != "done":
        os.environ[RUN_FOLDER] = str(run)
        register_resolvers(run)
        train(composed(*overrides))
        del os.environ[RUN_FOLDER]
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(f"val/chrf/{direction}")]
    values = {int(row["step"]) + 1: float(row[f"val/chrf/{direction}"]) for row in rows}
    return {str(step): round(value, 2) for step, value in values.items()}


def steps_to(curves: dict[str, dict[str, Any]]) -> dict[str, dict[str, list[int | None]]]:
    """The steps after which each goal is reached, by goal and start, in the order of the seeds."""
    return {
        str(goal): {
            name: [
                next((int(step) for step, value in values.items() if value >= goal), None)
                for values in by_seed.values()
            ]
            for name, by_seed in curves.items()
        }
        for goal in GOALS
    }


if __name__ == "__main__":
    main()
