"""From a checked configuration to objects, in the order that lets a bad value die first."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from polylect.config import ConfigError, plain
from polylect.data.datamodule import TranslationData
from polylect.retrieval.memory import Memory
from polylect.strategies.base import TranslationModule


def build_data(cfg: DictConfig) -> TranslationData:
    """The data module; reads nothing yet, unless that takes to know the directions.

    Where `data.directions` is null, those that the data has are put there.
    """
    data = instantiate(cfg.data, _convert_="all")
    if cfg.data.get("directions") is None:
        cfg.data.directions = list(data.directions)
    return data


def build_strategy(cfg: DictConfig) -> TranslationModule:
    """The strategy, without a base model yet.

    `about` holds what rebuilds it from a checkpoint: the resolved configuration of everything
    that shapes it.
    """
    optim = instantiate(cfg.optim, _convert_="all") if cfg.get("optim") else {}
    # Partial, since Hydra would turn arguments that are dataclasses into plain dicts.
    make = instantiate(cfg.strategy, _partial_=True, _convert_="all")
    module = make(
        directions=list(cfg.data.directions),
        template=cfg.data.template,
        generation=instantiate(cfg.generation) if cfg.generation else None,
        **optim,
    )
    keep = ("name", "seed", "model", "data", "strategy", "generation", "metrics")
    module.about = {"config": {key: plain(cfg[key]) for key in keep if key in cfg}}
    return module


def adopt(module: TranslationModule, data: TranslationData | None, cfg: DictConfig) -> None:
    """Load the base model and give it to the strategy, and its tokenizer to the data."""
    backbone, tokenizer = instantiate(cfg.model, _convert_="all")
    module.adopt(backbone, tokenizer)
    if data is not None:
        data.tokenizer = tokenizer


def build_memory(cfg: DictConfig, module: TranslationModule) -> Memory | None:
    """The translation memory that `cfg.memory` describes; None where it names no corpus.

    memory.corpus=train stands for the training corpora of the data, which are those that the module
    was made for where the program has no others.
    """
    if not cfg.memory or cfg.memory.corpus is None:
        return None
    settings = plain(cfg.memory)
    if settings["corpus"] == "train":
        data = plain(cfg.get("data")) or module.about["config"]["data"]
        if data.get("train") is None:
            raise ConfigError("memory.corpus=train needs data.train, which is not given.")
        settings |= {"corpus": data["train"], "root": data.get("root")}
    return instantiate(settings, _convert_="all")


def checkpoint_path(run: str | Path) -> Path:
    """The checkpoint a user means: the file itself, or the best one of a run folder.

    Raises FileNotFoundError that says what was looked for.
    """
    path = Path(run)
    if path.is_file():
        return path
    for name in ("best.ckpt", "last.ckpt"):
        if (candidate := path / "checkpoints" / name).is_file():
            return candidate
    raise FileNotFoundError(
        f"{path} is neither a checkpoint nor a run folder with checkpoints/best.ckpt."
    )


def load(run: str | Path, generation: Any = None) -> tuple[TranslationModule, DictConfig]:
    """Rebuild the strategy of a run from its checkpoint alone, base model included.

    What `generation` holds changes the run's own settings.
    """
    import torch

    path = checkpoint_path(run)
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    if "polylect" not in checkpoint:
        raise ValueError(f"{path} was not written by polylect: it lacks its section.")
    cfg = OmegaConf.create(checkpoint["polylect"]["about"]["config"])
    cfg.generation = OmegaConf.merge(cfg.generation or {}, generation or {})
    module = build_strategy(cfg)
    module.restore_structure(checkpoint["polylect"]["structure"])
    adopt(module, None, cfg)
    module.load_owned(checkpoint)
    module.eval()
    return module, cfg
