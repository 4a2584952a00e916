"""Checks that a program is given either a run, or a base model with an untrained strategy."""

from omegaconf import DictConfig, OmegaConf

from polylect.config.roots import ConfigError

FROZEN = {"_target_": "polylect.strategies.frozen.Frozen"}
LIBRARY = {"_target_": "polylect.strategies.lora_library.LoRALibrary"}


def choose_strategy(cfg: DictConfig) -> None:
    """Put `cfg.library` into `cfg.strategy`, and where that is not given the one that fits.

    Raises:
        ConfigError: `run` is given as well as what describes a base, or neither of them; or the
            strategy takes no library.
    """
    whole = [key for key in ("model", "strategy") if "_target_" in (cfg.get(key) or {})]
    own = [*whole, *(key for key in ("library", "template") if cfg.get(key))]
    if cfg.run is not None and own:
        raise ConfigError(f"give run=… or {own[0]}=…, not both: a run has its own.")
    if cfg.run is not None:
        return
    if not cfg.model:
        raise ConfigError(
            "give run=FOLDER, or model=… for a base model as it is, with library=FOLDER for one "
            "with adapters."
        )
    if not cfg.library:  # an empty name the validation refuses
        cfg.strategy = cfg.strategy or FROZEN
        return
    if cfg.strategy and "library" not in list(cfg.strategy.keys()):
        name = str(cfg.strategy.get("_target_")).rpartition(".")[2]
        raise ConfigError(
            f"strategy {name} takes no library: leave out library=…, or choose strategy=lag, "
            "arrow, spectr or lora_library."
        )
    cfg.strategy = OmegaConf.merge(cfg.strategy or LIBRARY, {"library": cfg.library})
