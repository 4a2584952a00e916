"""What several processes cannot do, said before the base is loaded or a step is made."""

import importlib.util
import os
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.config.roots import ConfigError
from polylect.run.length import processes_of
from polylect.run.processes.group import started_together
from polylect.strategies.full import Full

_SHARDED = "polylect.run.processes.fsdp.FullySharded"
_DEEPSPEED = "lightning.pytorch.strategies.DeepSpeedStrategy"


def strategy_of(cfg: DictConfig) -> str:
    """Return the name of the trainer's strategy, or what it is made of."""
    strategy = cfg.trainer.get("strategy", "auto")
    return strategy.get("_target_", "") if OmegaConf.is_dict(strategy) else str(strategy)


def is_sharded_by(cfg: DictConfig) -> bool:
    """Return whether the trainer's strategy leaves each process a share of the weights (FSDP2)."""
    return strategy_of(cfg) == _SHARDED


def check_processes(cfg: DictConfig) -> None:
    """Raises ConfigError where the trainer asks for other processes than there will be."""
    name = strategy_of(cfg)
    if name.startswith(("fsdp", "model_parallel", "deepspeed")):
        instead = "deepspeed2 or trainer=deepspeed3" if name.startswith("deepspeed") else "fsdp"
        raise ConfigError(f"trainer.strategy={name} does not work here: take trainer={instead}.")
    if name == _DEEPSPEED and importlib.util.find_spec("deepspeed") is None and not cfg.dry_run:
        raise ConfigError(
            "trainer.strategy needs the package deepspeed: pip install deepspeed, or take "
            "trainer=fsdp, which does the same with torch alone."
        )
    devices, nodes = cfg.trainer.get("devices", 1), cfg.trainer.get("num_nodes", 1)
    there = started_together()
    if there > 1 and isinstance(devices, int) and devices > 0 and devices * nodes != there:
        raise ConfigError(
            f"torchrun or srun has started {there} processes, and trainer.devices={devices} on "
            f"trainer.num_nodes={nodes} are {devices * nodes}: make them the same."
        )
    by_hand = "NODE_RANK" in os.environ
    if nodes > 1 and there == 1 and not by_hand and not cfg.dry_run:
        raise ConfigError(
            f"trainer.num_nodes={nodes} needs a process of torchrun or srun on each machine: see "
            "experiments/launch."
        )


def check_sharing(module: Any, cfg: DictConfig) -> None:
    """Raises ConfigError where what a strategy or callback does needs whole weights or gradients.

    Args:
        module: the strategy, with or without its base.
    """
    name = strategy_of(cfg)
    if name == _DEEPSPEED:
        _check_deepspeed(module, cfg)
        return
    if getattr(module, "mask_at_step", False) and processes_of(cfg) > 1:
        raise ConfigError(
            "strategy.mask_at_step=true takes the direction of the last micro-batch, of which "
            f"{processes_of(cfg)} processes have as many: train in one process."
        )
    if not is_sharded_by(cfg):
        return
    if any("InterferenceLedger" in str(node) for node in (cfg.callbacks or {}).values()):
        raise ConfigError(
            "callbacks=ledger compares whole gradients, of which trainer=fsdp leaves each process "
            "a share: take trainer=ddp, or leave the ledger out."
        )
    if getattr(getattr(module, "factors", None), "init", "kaiming") != "kaiming":
        raise ConfigError(
            f"strategy.init={module.factors.init} looks at the inputs of whole layers: begin in "
            "one process or with trainer=ddp, and go on with trainer=fsdp and resume=RUN."
        )
    if getattr(module, "start", None):
        raise ConfigError(
            "strategy.start writes into whole adapters: begin in one process or with trainer=ddp, "
            "and go on with trainer=fsdp and resume=RUN."
        )
    if cfg.model.get("quantize"):
        raise ConfigError(
            f"model.quantize={cfg.model.quantize} makes weights that trainer=fsdp cannot share "
            "out: take trainer=ddp, or leave model.quantize=null."
        )


def _check_deepspeed(module: Any, cfg: DictConfig) -> None:
    """Its engine knows the weights of whole modules, clips all as one and steps them all."""
    if type(module) is not Full:
        raise ConfigError(
            f"DeepSpeed takes strategy=full alone, not {type(module).__name__}: it steps weights "
            "that a batch does not use, and clips all as one. Take trainer=fsdp."
        )
    if cfg.trainer.get("accumulate_grad_batches", 1) != 1:
        raise ConfigError(
            "DeepSpeed accumulates gradients out of reach, where batches of other lengths would "
            "weigh as much: leave trainer.accumulate_grad_batches=1 and raise "
            "data.tokens_per_batch, or take trainer=fsdp."
        )
    if cfg.resume:
        raise ConfigError(
            "resume=RUN does not go on with DeepSpeed, whose optimizer states are in files of its "
            "own: begin from the weights with init_from=RUN, or take trainer=fsdp."
        )
