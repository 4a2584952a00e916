"""`polylect export`: what was trained, in the form that other programs read."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polylect.config.base_or_run import choose_strategy
from polylect.config.roots import ConfigError
from polylect.config.validation import validate
from polylect.did_you_mean import check_known
from polylect.run.results.hub import CARD_FORMS, check_name, listing, upload

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
    _check_hub(cfg)
    if cfg.gguf and cfg.form != "gguf":
        raise ConfigError(f"gguf={cfg.gguf} is of form=gguf, and here form={cfg.form}.")
    print(f"polylect export: {cfg.run or 'base model'}, loading …", flush=True)
    from polylect.run.passport.exports import write_export_passports
    from polylect.run.results.card import write_card
    from polylect.run.results.export import new_folder, write_merged, write_own
    from polylect.run.results.gguf import write_adapters, write_models
    from polylect.run.terminal import quiet
    from polylect.translator import device_of

    quiet()
    module, stored = _module(cfg)
    module.to(device_of(cfg.device)).eval()
    with new_folder(out) as folder:
        if cfg.form == "merged":
            sentences = write_merged(module, folder, cfg.name)
        elif cfg.form == "gguf":
            sentences = (
                write_models(module, folder, cfg.name, Path(cfg.gguf))
                if cfg.gguf
                else write_adapters(module, folder, cfg.name)
            )
        else:
            sentences = write_own(module, stored, folder, cfg.form, cfg.name)
        if cfg.form != "gguf":  # whose outputs only llama.cpp could give
            sentences += write_export_passports(module, folder, cfg.form, cfg.name, cfg.run)
        if cfg.hub:
            card = write_card(folder, cfg.form, cfg.run, _base_name(module))
    for line in [*sentences, *_examples(module, cfg, out)]:
        print(line)
    print(f"written: {out}")
    if cfg.hub and cfg.dry_run:
        print("\n".join([*listing(out, cfg.hub), "with this model card:", card]))
    elif cfg.hub:
        print(f"uploaded: {upload(out, cfg.hub)}")


def _check_hub(cfg: DictConfig) -> None:
    """Raises ConfigError, before anything is loaded, for an upload that cannot be."""
    if cfg.hub is None and cfg.dry_run:
        raise ConfigError("dry_run=true is of an upload: give hub=OWNER/NAME.")
    if cfg.hub is None:
        return
    if cfg.form not in CARD_FORMS:
        raise ConfigError(
            f"form={cfg.form} has no model card: take form={' or '.join(CARD_FORMS)}."
        )
    check_name(cfg.hub)


def _examples(module: Any, cfg: DictConfig, out: Path) -> list[str]:
    """Return how vLLM serves what was written, where it does."""
    from polylect.files import read_json
    from polylect.library.peft_format import CONFIG
    from polylect.models.mixture import MODEL_TYPE
    from polylect.run.passport.file import Passport
    from polylect.run.results.vllm import adapters_example, model_example

    if cfg.form == "adapters":
        folders = {path.parent.name: path.parent for path in sorted(out.glob(f"*/{CONFIG}"))}
        return adapters_example(module, folders or {cfg.name: out}, _base_name(module))
    if cfg.form not in CARD_FORMS:
        return []
    for folder in sorted(path.parent for path in out.rglob("config.json")):
        served = [d for d in Passport.read(folder).directions if "-" in d]
        kind = read_json(folder / "config.json", "the configuration of a model")["model_type"]
        if served and kind != MODEL_TYPE:
            return model_example(module, folder, served[0])
    return []


def _base_name(module: Any) -> str:
    return getattr(module.backbone.config, "_name_or_path", "") or ""


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
