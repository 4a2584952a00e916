"""`polylect export`: what was trained, in the form that other programs read."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polylect.config.base_or_run import choose_strategy
from polylect.config.roots import ConfigError
from polylect.config.validation import validate
from polylect.did_you_mean import check_known

FORMS = ("merged", "adapters", "rows", "model", "gguf")
_OF_LIBRARY = ("merged", "gguf")
"""Forms that need no run: a base and a folder of adapters do."""


def main(cfg: DictConfig) -> None:
    """Write `out`, load it again, and say how far it is from the run."""
    choose_strategy(cfg)
    validate(cfg)
    check_known("form", cfg.form, FORMS)
    out = Path(cfg.out)
    if out.exists():
        raise ConfigError(f"out={out} exists already and is not overwritten.")
    print(f"polylect export: {cfg.run or 'base model'}, loading …", flush=True)
    from polylect.run.passport.exports import write_export_passports
    from polylect.run.results.export import new_folder, write_gguf, write_merged, write_own
    from polylect.run.terminal import quiet
    from polylect.translator import device_of

    quiet()
    module, stored = _module(cfg)
    module.to(device_of(cfg.device)).eval()
    with new_folder(out) as folder:
        if cfg.form == "merged":
            sentences = write_merged(module, folder, cfg.name)
        elif cfg.form == "gguf":
            sentences = write_gguf(module, folder, cfg.name)
        else:
            sentences = write_own(module, stored, folder, cfg.form, cfg.name)
        if cfg.form != "gguf":  # whose outputs only llama.cpp could give
            sentences += write_export_passports(module, folder, cfg.form, cfg.name, cfg.run)
    for line in sentences:
        print(line)
    print(f"written: {out}")


def _module(cfg: DictConfig) -> tuple[Any, DictConfig]:
    """Return the strategy to be exported, and the configuration that names its base."""
    from polylect.run.build import load
    from polylect.run.untrained_model import (
        build_untrained,
        has_adapters,
        library_template,
        load_adapters,
    )

    if cfg.run is None and cfg.form not in _OF_LIBRARY:
        raise ConfigError(f"form={cfg.form} is of a run: give run=…, or form=merged.")
    if cfg.run is None:
        template = library_template(cfg.strategy) or "plain"
        return build_untrained(cfg, {"directions": [], "template": template}), cfg
    if cfg.form in _OF_LIBRARY and has_adapters(cfg.run):
        return load_adapters(cfg.run, packages=cfg.packages, model=cfg.model)
    return load(cfg.run, packages=cfg.packages, model=cfg.model)
