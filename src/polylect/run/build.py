"""Builds objects from a checked configuration, in the order that lets a bad value die first."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.config.roots import ConfigError, plain
from polylect.config.targets import instantiate
from polylect.data.datamodule import TranslationData
from polylect.data.prompt import whole_name
from polylect.files import folders_meant
from polylect.retrieval.memory import Memory
from polylect.run.precision import settle_dtype
from polylect.run.processes.group import local_rank
from polylect.run.reuse.stored_config import REBUILDS, stored_config
from polylect.strategies.base import TranslationModule
from polylect.strategies.checkpoint import path_in_errors, read_checkpoint

_LOADER = "polylect.models.backbone.load_backbone"


def build_data(cfg: DictConfig) -> TranslationData:
    """Return the data module; reads nothing yet, unless that takes to know the directions.

    Where `data.directions` is null, those that the data has are put there, and into the name of a
    chat template the date that it prints.
    """
    if "_target_" not in cfg.data:
        raise ConfigError("data does not say what to make: give data=… or data._target_=….")
    data = instantiate(cfg.data, "data", _packages(cfg), _convert_="all")
    if cfg.data.get("template") is not None:
        cfg.data.template = whole_name(cfg.data.template)
    if cfg.data.get("directions") is None:
        cfg.data.directions = list(data.directions)
    return data


def build_strategy(cfg: DictConfig) -> TranslationModule:
    """Return the strategy, without a base model yet.

    `about` holds what rebuilds it from a checkpoint: the resolved configuration of everything
    that shapes it. Where `model.dtype` is "auto", what it stands for is put there.
    """
    own = _packages(cfg)
    optim = instantiate(cfg.optim, "optim", own, _convert_="all") if cfg.get("optim") else {}
    # Partial, since Hydra would turn arguments that are dataclasses into plain dicts.
    make = instantiate(cfg.strategy, "strategy", own, _partial_=True, _convert_="all")
    module = make(
        directions=list(cfg.data.directions),
        template=cfg.data.template,
        generation=instantiate(cfg.generation, "generation", own) if cfg.generation else None,
        **optim,
    )
    if (chosen := settle_dtype(cfg, frozen_base=module.frozen_base)) and not local_rank():
        print(chosen, file=sys.stderr, flush=True)
    module.about = {"config": {key: plain(cfg[key]) for key in REBUILDS if key in cfg}}
    return module


def load_backbone_into(
    module: TranslationModule, data: TranslationData | None, cfg: DictConfig
) -> None:
    """Load the base model and give it to the strategy and to the data.

    A dry run does without its weights where they are not here.
    Raises ValueError where the two do not fit together.
    """
    backbone, tokenizer = outline_base(cfg) or instantiate(
        cfg.model, "model", _packages(cfg), _convert_="all"
    )
    module.set_backbone(backbone, tokenizer)
    if data is not None:
        data.set_backbone(backbone, tokenizer)
        data.check_context()


def outline_base(cfg: DictConfig) -> Any:
    """Return the base without weights, in a dry run that has none of them here; else None.

    The tokenizer beside it is None where it is not here either.
    """
    from polylect.models.outline.model import outline_backbone
    from polylect.models.source import has_weights

    settings = plain(cfg.model)
    if not cfg.get("dry_run") or settings.pop("_target_", None) != _LOADER:
        return None
    if has_weights(settings["path"], settings.get("revision")):
        return None
    outline = outline_backbone(**settings)
    print(
        f"base        model.path={settings['path']}: no weights here, what follows is from "
        f"{outline.origin}"
    )
    if outline.tokenizer is None:
        print(
            "tokenizer   not here either: no examples, no lengths in tokens, and memory for full "
            "batches"
        )
    return outline.model, outline.tokenizer


def build_memory(cfg: DictConfig, module: TranslationModule) -> Memory | None:
    """Return the translation memory that `cfg.memory` describes; None where it names no corpus.

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
        settings["check_sides"] = data.get("check_sides", True)
    return instantiate(settings, "memory", _packages(cfg), _convert_="all")


def _packages(cfg: DictConfig) -> Sequence[str]:
    return tuple(cfg.get("packages") or ())


def checkpoint_path(run: str | Path) -> Path:
    """Return the checkpoint a user means: the file itself, or the best one of a run folder.

    Raises FileNotFoundError that says what was looked for.
    """
    path = Path(run)
    if path.is_file():
        return path
    for name in ("best.ckpt", "last.ckpt"):
        if (candidate := path / "checkpoints" / name).is_file():
            return candidate
    has_adapters = any(path.glob("adapter_config.json")) or any(path.glob("*/adapter_config.json"))
    raise FileNotFoundError(
        f"{path} is neither a checkpoint nor a run folder with checkpoints/best.ckpt"
        + (
            ": adapters are used with model=… and library=FOLDER."
            if has_adapters
            else folders_meant(path, "record.json")
        )
    )


def resume_path(run: str | Path) -> Path:
    """Return where a run goes on: at the last checkpoint of its folder."""
    last = Path(run) / "checkpoints" / "last.ckpt"
    return last if last.is_file() else checkpoint_path(run)


def restore_structure(module: TranslationModule, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Prepare the strategy for the layers of a checkpoint, before `set_backbone`.

    Raises ValueError.
    """
    try:
        module.restore_structure(checkpoint["polylect"]["structure"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} does not fit {type(module).__name__}: {error}.") from error


def load(
    run: str | Path, generation: Any = None, packages: Sequence[str] = (), model: Any = None
) -> tuple[TranslationModule, DictConfig]:
    """Rebuild the strategy of a run from its checkpoint alone, base model included.

    Nothing that the checkpoint holds is executed, and it may name only objects of polylect and of
    `packages`, which are the caller's own. What `generation` and `model` hold changes the run's own
    settings, such as where its base lies.
    """
    path = checkpoint_path(run)
    checkpoint = read_checkpoint(path)
    stored = checkpoint["polylect"]["about"]["config"]
    cfg = stored_config(stored, path, REBUILDS, packages)
    cfg.generation = OmegaConf.merge(cfg.get("generation") or {}, generation or {})
    cfg.model = OmegaConf.merge(cfg.model, model or {})
    module = build_strategy(cfg)
    restore_structure(module, checkpoint, path)
    load_backbone_into(module, None, cfg)
    with path_in_errors(path):
        module.load_owned(checkpoint)
    module.eval()
    return module, cfg
