"""A base model with a strategy that trains nothing, such as a folder of adapters put to use."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.config.base_or_run import FROZEN, LIBRARY
from polylect.config.roots import ConfigError, plain
from polylect.data.prompt import whole_name
from polylect.library import AdapterLibrary
from polylect.run.build import build_strategy, load_backbone_into
from polylect.run.reuse.stored_config import read_config, stored_config
from polylect.strategies.base import TranslationModule

_RUN_SECTIONS = ("model", "data", "generation")  # sections; the strategy is to use the adapters


def library_template(strategy: DictConfig) -> str | None:
    """Return the template with which the adapters
    of a strategy's libraries were trained, if they say.

    Raises ConfigError where they were trained with several.
    """
    templates = {
        library.about(name)["template"]: f"{library.path / name}"
        for library in _libraries(strategy)
        for name in library.names
        if library.about(name).get("template")
    }
    if len(templates) > 1:
        listed = " and ".join(f"{path} with {name}" for name, path in list(templates.items())[:2])
        raise ConfigError(f"adapters were trained with different templates: {listed}.")
    return next(iter(templates), None)


def check_template(strategy: DictConfig, template: str) -> None:
    """Raises ConfigError where adapters were trained with another template than `template`."""
    trained = library_template(strategy)
    if trained is not None and whole_name(trained) != whole_name(template):
        raise ConfigError(
            f"the adapters of {plain(strategy.library)} were trained with template {trained}, and "
            f"would be asked with {template}: give data.template={trained}."
        )


def _libraries(strategy: DictConfig) -> Iterator[AdapterLibrary]:
    setting = plain(strategy).get("library")
    if setting is not None:
        paths = setting.values() if isinstance(setting, Mapping) else [setting]
        yield from (AdapterLibrary(path) for path in paths)


def build_untrained(cfg: DictConfig, data: Any = None) -> TranslationModule:
    """Return the base model with a strategy that needs no training; raises ConfigError for another.

    Args:
        cfg: `model`, `generation`, `packages` and `strategy`, the base as it is where that is null.
        data: a section with `directions` and `template`, in place of that of `cfg`.
    """
    part = OmegaConf.create(
        {
            "seed": cfg.get("seed", 1),
            "packages": cfg.packages,
            "model": cfg.model,
            "data": data or cfg.data,
            "generation": cfg.generation,
            "strategy": cfg.strategy or FROZEN,
        }
    )
    module = build_strategy(part)
    if module.trains:
        raise ConfigError(
            f"strategy {type(module).__name__} has to be trained first: give run=FOLDER."
        )
    load_backbone_into(module, None, part)
    return module


def has_adapters(run: str | Path) -> bool:
    """Return whether the folder is one of a run that has exported adapters."""
    return (Path(run) / "adapters").is_dir() and (Path(run) / "config.yaml").is_file()


def load_adapters(
    run: str | Path,
    generation: Any = None,
    packages: Sequence[str] = (),
    budget_mib: int | float = 1024,
    model: Any = None,
) -> tuple[TranslationModule, DictConfig]:
    """Return the base of a run with its exported adapters, of which those needed are in memory.

    What `generation` and `model` hold changes the run's own settings.

    Nothing in the folder is executed: what its configuration names must be of polylect, or defined
    in `packages`, which are the caller's own. Raises ConfigError where it names anything else.
    """
    folder = Path(run)
    path = folder / "config.yaml"
    cfg = stored_config(read_config(path), path, _RUN_SECTIONS, packages)
    library = {"library": str(folder / "adapters"), "budget_mib": budget_mib}
    cfg = OmegaConf.merge(cfg, {"strategy": LIBRARY | library})
    cfg.generation = OmegaConf.merge(cfg.get("generation") or {}, generation or {})
    cfg.model = OmegaConf.merge(cfg.model, model or {})
    module = build_strategy(cfg)
    load_backbone_into(module, None, cfg)
    return module, cfg
