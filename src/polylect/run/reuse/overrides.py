"""`run=`: a run that is used, and the settings that a command may give beside it."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from textwrap import shorten
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from polylect.config.roots import ConfigError, plain
from polylect.run.reuse.resume import lay_over, stored_values
from polylect.run.reuse.stored_config import read_config, stored_config

RUN_SECTIONS = ("model", "data", "strategy")
"""Sections that a program which uses a run takes from that, as far as it knows them."""

ALLOWED_KEYS = ("data.*", "model.path", "model.revision", "model.dtype", "model.attention")
"""Patterns of the keys that may be given beside `run`; the others are what was trained."""


def stored_sections(run: str) -> tuple[dict[str, Any], Path]:
    """Return the `RUN_SECTIONS` of a run's configuration, unchecked, and the file with them.

    Raises FileNotFoundError where there is no run, ValueError where its file is damaged.
    """
    path = Path(run) / "config.yaml"
    if path.is_file():
        values: Mapping[str, Any] = read_config(path)
    else:
        from polylect.run.build import checkpoint_path
        from polylect.strategies.checkpoint import read_checkpoint

        path = checkpoint_path(run)
        values = stored_values(read_checkpoint(path))
    return {key: values[key] for key in RUN_SECTIONS if key in values}, path


def run_section_keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys of overrides that lie below `RUN_SECTIONS`; group choices have none."""
    keys = [o.split("=", 1)[0].lstrip("+~") for o in overrides]
    return [key for key in keys if key.split(".")[0] in RUN_SECTIONS and "." in key]


def apply_run_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration of a program that uses `cfg.run`, if overrides set more.

    `data` becomes that of the run, unless the command chooses another, with what is given on top;
    `model` holds what the command gives alone, for the run's own is in its checkpoint.

    Raises:
        ConfigError: something is given that is settled by the run.
    """
    keys = run_section_keys(overrides)
    if cfg.get("run") is None or not keys:
        return cfg
    values, path = stored_sections(cfg.run)
    groups = {o.key_or_group for o in OverridesParser.create().parse_overrides(list(overrides))}
    whole = groups & set(RUN_SECTIONS)
    for key in keys:
        if key.split(".")[0] not in whole:
            _check_free(key, cfg, values)
    if "data" in whole or not any(key.startswith("data.") for key in keys):
        return cfg
    stored = stored_config(values, path, ("data",), cfg.packages)
    return lay_over(cfg, stored, overrides, ("data",))


def _check_free(key: str, cfg: DictConfig, values: Mapping[str, Any]) -> None:
    """Raises ConfigError for a setting that is not in `ALLOWED_KEYS`, unless the run has it so."""
    free = any(fnmatchcase(key, pattern) for pattern in ALLOWED_KEYS) and key != "data.template"
    own = OmegaConf.select(OmegaConf.create(dict(values)), key)
    value = OmegaConf.select(cfg, key)
    if free or plain(own) == plain(value):
        return
    raise ConfigError(
        f"{key}={shorten(str(value), 80)} does not go beside run={cfg.run}, which was made with "
        f"{shorten(str(own), 80)}: leave it out. What may be given is data.*, memory.*, "
        "generation.*, and of the base model.path, revision, dtype and attention."
    )
