"""A training step in the Lightning loop against a bare PyTorch loop over the same batches.

    python experiments/bench/loop.py --out experiments/bench/results/loop.json

The one side is `polylect train` as it stands: its configuration, trainer, callbacks, CSV logger,
progress, and the data stream, which tokenises as it goes. The other is a loop of the ten lines that
the training needs, over the same batches, ready in memory. Both begin with the same weights (a
random Llama of 7 million parameters) and must have the same loss in every step. The bare loop takes
its turn between two of Lightning's batches; a round is a few steps of each.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from harness import Row, agreement, main, of_sums, row, with_goal  # sets the environment

# ruff: isort: split
import lightning as L
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

from polylect.config.roots import conf_folder
from polylect.config.targets import instantiate
from polylect.data.batch import TranslationBatch
from polylect.data.datamodule import TranslationData
from polylect.models.backbone import random_model
from polylect.models.tokenizer import train_tokenizer
from polylect.programs.train import callbacks
from polylect.run.build import build_data, build_strategy
from polylect.run.session import register_resolvers
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import target_losses
from polylect.tongues import monolingual

LANGUAGES = ("en", "de", "fr", "hi", "ta")
CASES = (("lora_switch", 2048), ("full", 2048), ("lora_switch", 256))
STEPS = {2048: 1, 256: 4}  # of each loop in a round
SHAPE = {"layers": 6, "hidden": 256, "ffn": 768, "heads": 4, "context": 512}
TINY = {"layers": 2, "hidden": 32, "ffn": 64, "heads": 4, "context": 512}
CLIP = 1.0


class Turns(L.Callback):
    """Lets the bare loop run between two of Lightning's batches, and keeps the times of both."""

    def __init__(self, bare: Iterator[Tensor], steps: int, seconds: float, rounds: int) -> None:
        self.bare, self.steps = bare, steps
        self.seconds, self.rounds = seconds, rounds
        self.times: dict[str, list[float]] = {"ours": [], "bare_loop": []}
        self.processor: dict[str, list[float]] = {"ours": [], "bare_loop": []}
        self.losses: dict[str, list[float]] = {"ours": [], "bare_loop": []}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.end = time.perf_counter() + self.seconds
        self.begin = clocks()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses["ours"].append(outputs["loss"])
        if (batch_idx + 1) % self.steps:
            return
        middle = clocks()
        self.losses["bare_loop"].extend(islice(self.bare, self.steps))
        now = clocks()
        for name, begin, end in (("ours", self.begin, middle), ("bare_loop", middle, now)):
            self.times[name].append(1e3 * (end[0] - begin[0]) / self.steps)
            self.processor[name].append(1e3 * (end[1] - begin[1]) / self.steps)
        rounds = len(self.times["ours"]) - 1  # the first one does not count
        if (rounds and now[0] > self.end) or rounds >= self.rounds:
            trainer.should_stop = True
        self.begin = clocks()


def clocks() -> tuple[float, float]:
    """Seconds on the wall, and of the processor's work for this process."""
    return time.perf_counter(), time.process_time()


def run(arguments: argparse.Namespace) -> list[Row]:
    texts = [text for code in LANGUAGES for text in monolingual(code, "train", 3000)]
    tags = [f"<2{code}>" for code in LANGUAGES]
    tokenizer = train_tokenizer(texts, 2048 if arguments.tiny else 8192, tags)
    return [case(arguments, tokenizer, *case_settings) for case_settings in CASES]


def case(arguments: argparse.Namespace, tokenizer: Any, strategy: str, tokens: int) -> Row:
    """One strategy with batches of so many tokens."""
    steps = STEPS[tokens]
    length = steps * (arguments.rounds + 1)
    with tempfile.TemporaryDirectory() as folder:
        register_resolvers(Path(folder))
        cfg = configuration(strategy, tokens, length, steps, arguments.seed)
        shape = TINY if arguments.tiny else SHAPE

        def made() -> tuple[TranslationModule, TranslationData]:
            torch.manual_seed(arguments.seed)
            module, data = build_strategy(cfg), build_data(cfg)
            model = random_model("llama", tokenizer, seed=arguments.seed, **shape)
            module.set_backbone(model, tokenizer)
            data.tokenizer = tokenizer
            return module, data

        bare_module, bare_data = made()
        bare_data.setup("fit")
        batches = list(bare_data.training_stream(length))
        turns = Turns(
            bare_loop(bare_module, batches, length), steps, arguments.seconds, arguments.rounds
        )
        module, data = made()
        trainer = instantiate(
            cfg.trainer,
            "trainer",
            logger=list(instantiate(cfg.logger, "logger").values()),
            callbacks=[*callbacks(cfg, Path(folder)), turns],
            default_root_dir=folder,
            _convert_="all",
        )
        trainer.fit(module, datamodule=data)
    losses = {name: torch.stack(values) for name, values in turns.losses.items()}
    difference = agreement(losses["ours"], losses["bare_loop"])
    times, processor = (  # the first round holds start-up
        {name: series[1:] for name, series in both.items()}
        for both in (turns.times, turns.processor)
    )
    timed_batches = batches[steps : len(turns.losses["ours"])]
    read = sum(int(batch.attention_mask.sum()) for batch in timed_batches)
    what = {"strategy": strategy, "tokens per batch": tokens}
    result = with_goal(row(what, times, "ours", difference), "bare_loop", least=0.95)
    figures = {
        "ratio of the summed times": of_sums(times, "bare_loop"),
        "of the processor's times": of_sums(processor, "bare_loop"),
        "steps": len(losses["ours"]),
        "parameters": sum(p.numel() for p in module.parameters()),
        "tokens per second, ours": round(read / (sum(times["ours"]) * steps / 1e3)),
    }
    return result | {"figures": figures}


def configuration(strategy: str, tokens: int, length: int, steps: int, seed: int) -> DictConfig:
    """What `polylect train` would run, with the validation at the very end and a log per round."""
    overrides = [
        f"strategy={strategy}",
        *(["optim=full"] if strategy == "full" else []),
        f"seed={seed}",
        "model=tiny",  # not used: the model is made here
        f"data.tokens_per_batch={tokens}",
        "data.train.size=3000",
        "data.val.size=4",
        f"trainer.max_steps={length}",
        f"trainer.val_check_interval={length}",
        f"trainer.log_every_n_steps={steps}",
    ]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("train", overrides)


def bare_loop(
    module: TranslationModule, batches: list[TranslationBatch], length: int
) -> Iterator[Tensor]:
    """The training that `module` describes, in plain PyTorch; yields the loss of every step."""
    optimizer = module.optimizer(module.parameter_groups())
    schedule = module.schedule(optimizer, length)
    units = module.units()
    module.train()
    for batch in batches:
        with module.routing(batch):
            losses, rows = target_losses(module.backbone, batch)
        owner = torch.tensor([units[direction] for direction in batch.directions])[rows]
        loss = sum(losses[owner == unit].mean() for unit in owner.unique())
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], CLIP)
        optimizer.step()
        schedule.step()
        yield loss.detach()


if __name__ == "__main__":
    main("loop", __doc__, run)
