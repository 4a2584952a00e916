"""Which direction profits from whose training: every direction through the rows of every other.

    matrix.py --out FILE.json RUN…

Each run has trained one direction, with neurons of the same file. Every test set goes through the
rows of every run: nats per target token less than the base's, with the interval that 1,000 draws of
sentences give (2.5 to 97.5 %). Also drawn, as plots/matrix.png beside the record.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from polylect.config.roots import plain
from polylect.data.batch import Example, pad_id
from polylect.data.stream import EvaluationBatches
from polylect.plots import save
from polylect.plots.figures import heat_map, heat_map_size, new_figure
from polylect.run.build import build_data, load
from polylect.run.record import Record
from polylect.run.reuse.stored_config import read_config
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import target_losses

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from publish import write_published

DRAWS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    begin = time.monotonic()
    runs = {_direction_of(run): run for run in arguments.runs}
    trained = list(runs)
    record = Record(run=str(arguments.runs[0].parent), config={"runs": trained})
    gains: dict[str, dict[str, dict[str, float]]] = {}
    for direction, run in runs.items():
        module, cfg = load(run)
        gains[direction] = gains_through(module, cfg, direction, trained)
        print(direction, gains[direction], flush=True)
        record.config = plain(cfg) | {"runs": trained}
    record.metrics["gains"] = gains
    record.status, record.seconds = "done", round(time.monotonic() - begin, 1)
    write_published(arguments.out, asdict(record) | {"scratch": record.scratch})
    save(drawn(gains), arguments.out.with_suffix(".png"))


def _direction_of(run: Path) -> str:
    """Return the one direction that a run has trained."""
    return read_config(run / "config.yaml")["data"]["directions"][0]


def gains_through(
    module: TranslationModule, cfg: Any, through: str, directions: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Nats per target token that the rows of one direction take from each, with an interval."""
    found = {}
    for direction in directions:
        data = build_data(OmegaConf.merge(cfg, {"data": {"directions": [direction]}}))
        data.tokenizer = module.tokenizer
        data.setup("test")
        examples = data.examples(direction, "test")
        base, tokens = losses_of(module, examples, "")
        own, _ = losses_of(module, examples, through)
        found[direction] = interval(base - own, tokens)
    return found


def losses_of(
    module: TranslationModule, examples: Sequence[Example], through: str
) -> tuple[np.ndarray, np.ndarray]:
    """Nats and target tokens of every sentence; "" is the base alone."""
    routed = [replace(example, direction=through) for example in examples]
    nats, tokens = [], []
    for batch in EvaluationBatches(routed, 1024, 32, pad_id(module.tokenizer)):
        with module.routing(batch):
            losses, rows = target_losses(module.backbone, batch)
        nats.append(torch.zeros(batch.rows).index_add(0, rows, losses.float()).numpy())
        tokens.append(torch.bincount(rows, minlength=batch.rows).numpy())
    return np.concatenate(nats), np.concatenate(tokens)


def interval(gain: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    """The mean per token, and where 95 % of the draws of as many sentences lie."""
    generator = np.random.default_rng(1)
    draws = generator.integers(len(gain), size=(DRAWS, len(gain)))
    means = gain[draws].sum(1) / tokens[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    values = {"mean": gain.sum() / tokens.sum(), "low": low, "high": high}
    return {name: round(float(value), 4) for name, value in values.items()}


def drawn(gains: dict[str, dict[str, dict[str, float]]]) -> Any:
    names = list(gains)
    values = torch.tensor([[gains[own][other]["mean"] for other in names] for own in names])
    most = float(values.abs().max())
    picture = new_figure(*heat_map_size(len(names), len(names)))
    axes = picture.subplots()
    heat_map(
        axes, values, names, names, "nats per target token gained", "nats", text="{:.2f}",
        cmap="PuOr", vmin=-most, vmax=most,
    )  # fmt: skip
    axes.set_xlabel("evaluated direction")
    axes.set_ylabel("trained direction")
    return picture


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
