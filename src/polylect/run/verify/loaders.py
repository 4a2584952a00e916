"""What is verified, loaded: runs, adapters on their base, exported models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.config.base_or_run import LIBRARY
from polylect.config.roots import ConfigError, plain
from polylect.config.targets import instantiate
from polylect.library.folder import read_about
from polylect.models.embedded import FOLDER
from polylect.run.build import load
from polylect.run.passport.exports import load_exported
from polylect.run.passport.file import Passport
from polylect.run.record import Record
from polylect.run.reuse.overrides import stored_sections
from polylect.run.reuse.stored_config import REBUILDS, stored_config
from polylect.run.untrained_model import build_untrained, load_adapters


def path_of_base(model: DictConfig) -> str:
    """Return where the files of a base are, by the settings that make it; "" where it has none."""
    if str(model.get("_target_", "")).endswith(".embedded_base"):
        return str(FOLDER)
    return str(model.get("path") or "")


def settings_of_run(folder: Path, cfg: DictConfig) -> DictConfig:
    """Return the settings that make what a run folder is about, checked as those of any run.

    An evaluation's are in its record, and may name a run in place of a base.
    """
    values = Record.read(folder).config
    if values.get("run"):
        stored, path = stored_sections(values["run"])
        settings = stored_config(stored, path, ("model",), cfg.packages)
        settings.model = OmegaConf.merge(settings.model, values.get("model") or {}, cfg.model or {})
        return OmegaConf.merge(settings, {"run": values["run"], "adapter": values.get("adapter")})
    keys = [key for key in REBUILDS if values.get(key) is not None]
    path = folder / "record.json"
    settings = stored_config(values, path, (*keys, "model"), cfg.packages)
    settings.model = OmegaConf.merge(settings.model, cfg.model or {})
    return settings


def load_run(folder: Path, settings: DictConfig, cfg: DictConfig) -> Any:
    """Return the strategy of a run as its checkpoint has it, or as an evaluation made it."""
    if settings.get("run") and settings.get("adapter"):
        return load_adapters(settings.run, None, cfg.packages, model=settings.model)[0]
    if settings.get("run"):
        return load(settings.run, None, cfg.packages, settings.model)[0]
    if (folder / "checkpoints").is_dir():
        return load(folder, None, cfg.packages, settings.model)[0]
    return build_untrained(settings)


def base_settings(folder: Path, cfg: DictConfig) -> DictConfig:
    """Return the settings that make the base of an adapter: those given, or those it notes itself.

    Raises ConfigError where there are none.
    """
    if "_target_" in (cfg.model or {}):
        return OmegaConf.create({"model": cfg.model, "packages": list(cfg.packages)})
    values = read_about(folder).get("config")
    if not isinstance(values, dict) or "model" not in values:
        raise ConfigError(
            f"{folder} does not say what its base is: give model=…, as in model=local "
            "model.path=BASE."
        )
    settings = stored_config(values, folder / "polylect.json", ("model",), cfg.packages)
    settings.model = OmegaConf.merge(settings.model, cfg.model or {})
    return settings


def load_base(settings: DictConfig) -> tuple[Any, Any]:
    """Return a base from its file, with nothing put into it, and its tokenizer."""
    model, tokenizer = instantiate(
        settings.model, "model", tuple(settings.get("packages") or ()), _convert_="all"
    )
    return model.eval(), tokenizer


def load_library(
    settings: DictConfig, template: str, cfg: DictConfig, folders: Mapping[str, Path]
) -> Any:
    """Return the base with adapters, and the strategy that was chosen for the folder of them.

    Args:
        settings: those of the base.
        folders: of adapters, by name; others that lie beside them are not looked at, unless a
            strategy was chosen.
    """
    part = OmegaConf.create(
        {
            "packages": list(cfg.packages),
            "model": plain(settings.model),
            "generation": None,
            "strategy": plain(cfg.strategy) or LIBRARY,
        }
    )
    module = build_untrained(part, {"directions": [], "template": template})
    if cfg.strategy is None:
        for name, folder in folders.items():
            module.add(folder, name)
    return module


def load_model(folder: Path, passport: Passport) -> Any:
    """Return the exported model of a passport, as a strategy that does nothing to it."""
    dtype = passport.base["dtype"]
    return load_exported(folder, passport.template, passport.directions, dtype)
