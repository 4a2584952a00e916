"""`polylect data`: what the data of a configuration hold and what becomes of them, untrained."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.config.roots import ConfigError, plain
from polylect.config.targets import instantiate
from polylect.config.validation import validate
from polylect.files import write_json

SPLITS = ("train", "val", "test")


def main(cfg: DictConfig) -> None:
    """Print the report, and write it as JSON where `out` names a file."""
    _leave_out_splits(cfg)
    validate(cfg)
    _check(cfg)
    directions = plain(cfg.data).get("directions")
    shown = ", ".join(directions) if isinstance(directions, list) else directions
    print(f"polylect data: {shown or 'all'}, reading …", flush=True)

    from polylect.data.audit.report import data_report, report_page
    from polylect.models.context import context_of
    from polylect.run.build import build_data
    from polylect.run.terminal import quiet

    quiet()
    data = build_data(cfg)
    config, data.tokenizer = _base(cfg)
    data.context = context_of(config)
    data.check_context()
    data.setup()
    report = data_report(data, cfg.sample, cfg.repetitions)
    print(report_page(data, report))
    if cfg.out is not None:
        write_json(Path(cfg.out), report | {"config": plain(cfg)})
        print(f"\nas JSON: {cfg.out}")


def _leave_out_splits(cfg: DictConfig) -> None:
    """Set the splits that are not given to None: they are not reported."""
    for split in SPLITS:
        if OmegaConf.is_missing(cfg.data, split):
            cfg.data[split] = None


def _check(cfg: DictConfig) -> None:
    """Check the settings before anything is read."""
    if cfg.sample is not None and cfg.sample < 1:
        raise ConfigError(f"sample must be at least 1, or null for all pairs, got {cfg.sample}.")
    if cfg.out is not None and Path(cfg.out).exists():
        raise ConfigError(f"out={cfg.out} exists already and is not overwritten.")
    if "source" in cfg.data:  # questions, which have no splits of text
        return
    if not any(cfg.data.get(split) is not None for split in SPLITS):
        raise ConfigError("there is nothing to report on: give data.train, data.val or data.test.")


def _base(cfg: DictConfig) -> tuple[Any, Any]:
    """Return the base's configuration and tokenizer; weights are loaded only if it is made here."""
    from polylect.models.backbone import load_tokenizer

    if cfg.model.get("_target_") == "polylect.models.backbone.load_backbone":
        return load_tokenizer(cfg.model.path, cfg.model.get("revision"))
    backbone, tokenizer = instantiate(cfg.model, "model", cfg.packages, _convert_="all")
    return backbone.config, tokenizer
