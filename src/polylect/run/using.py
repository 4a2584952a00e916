"""What a run is, or the base model with what is put on it, as something that translates."""

from omegaconf import DictConfig

from polylect.run.untrained_model import build_untrained, library_template
from polylect.translator import Translator


def translator_of(cfg: DictConfig) -> Translator:
    """Return the translator of `cfg.run`, or of `cfg.model` with `cfg.strategy` on it.

    Raises what `Translator.from_run` and `build_untrained` raise.
    """
    if cfg.run is not None:
        return Translator.from_run(
            cfg.run,
            generation=cfg.generation,
            device=cfg.device,
            packages=cfg.packages,
            model=cfg.model,
        )
    template = cfg.template or library_template(cfg.strategy) or "plain"
    module = build_untrained(cfg, {"directions": [], "template": template})
    return Translator(module, cfg.device)
