"""Finds the setting of a strategy with which it costs as much as a budget allows."""

import copy
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from polylect.config.roots import Categories, ConfigError, Layers, plain
from polylect.config.targets import instantiate
from polylect.library.neurons.kinds import ModuleNeurons
from polylect.run.build import build_strategy, outline_base
from polylect.run.neuron_selection import select_neurons
from polylect.strategies.base import TranslationModule
from polylect.strategies.landermt import LANDeRMT
from polylect.strategies.lora_switch import LoRASwitch
from polylect.strategies.mix_moe import MixMoE

TOLERANCE = 0.01
"""A setting fits where it costs the budget within this share."""

_WIDEST = 16
"""The largest expert that is tried, in widths of the base's feed-forward networks."""


@dataclass(frozen=True)
class Knob:
    """The setting of a strategy that decides how much of it there is.

    Attributes:
        values: that it may have, ascending; so does the cost.
        make: the strategy with one of them, on a base without weights.
        paste: what to write on the command line for one of them.
    """

    values: Sequence[Any]
    make: Callable[[Any], TranslationModule]
    paste: Callable[[Any], str]


@dataclass(frozen=True)
class Found:
    """What a value of the knob costs."""

    paste: str
    cost: float


@dataclass(frozen=True)
class Solution:
    """The values around a budget: the nearest that costs less or as much, and more; if any."""

    below: Found | None
    above: Found | None

    def nearest(self, budget: float) -> Found:
        """Return the one that comes nearest."""
        both = [found for found in (self.below, self.above) if found]
        return min(both, key=lambda found: abs(found.cost - budget))


def solve(knob: Knob, cost: Callable[[TranslationModule], float], budget: float) -> Solution:
    """Return the values of the knob around the budget; about log2 of them are tried."""

    @cache
    def cost_at(position: int) -> float:
        return cost(knob.make(knob.values[position]))

    at = bisect_left(range(len(knob.values)), budget, key=cost_at)
    if at < len(knob.values) and cost_at(at) == budget:
        at += 1
    below, above = (
        Found(knob.paste(knob.values[i]), cost_at(i)) if 0 <= i < len(knob.values) else None
        for i in (at - 1, at)
    )
    return Solution(below, above)


def knob_of(cfg: DictConfig) -> Knob:
    """Return the knob of the configured strategy: its rank, width of experts or share of neurons.

    Raises:
        ConfigError: it has none, or what it needs is missing.
    """
    kind = type(build_strategy(_copy(cfg)))
    base = _bare_base(cfg)
    if issubclass(kind, LoRASwitch):
        widest = max(min(m.weight.shape) for m in base.modules() if isinstance(m, nn.Linear))
        return _setting("strategy.rank", range(1, widest + 1), cfg, base)
    if issubclass(kind, MixMoE):
        if cfg.strategy.get("stage") == "monolingual":
            raise ConfigError(
                "strategy.stage=monolingual trains all of the base's feed-forward networks, and "
                "has no size of its own: budgets are for the stages with MT experts."
            )
        widest = _WIDEST * base.config.intermediate_size
        return _setting("strategy.mt_width", range(1, widest + 1), cfg, base)
    if issubclass(kind, LANDeRMT):
        return _share_of_neurons(cfg, base)
    raise ConfigError(
        f"strategy {kind.__name__} has no size to choose: budgets are for lora, lora_switch, "
        "mix_moe (the width of its experts) and landermt (the share of its neurons)."
    )


def _setting(key: str, values: Sequence[int], cfg: DictConfig, base: nn.Module) -> Knob:
    def make(value: int) -> TranslationModule:
        changed = _copy(cfg)
        OmegaConf.update(changed, key, value, force_add=True)
        return _attached(build_strategy(changed), base)

    return Knob(values, make, lambda value: f"{key}={value}")


def _share_of_neurons(cfg: DictConfig, base: nn.Module) -> Knob:
    """The share of neurons that take part, sorted anew by the scores of the file."""
    path = cfg.strategy.neurons
    scores = ModuleNeurons.read(path)
    chosen = scores.any.about.get("chosen")
    if not chosen:
        raise ConfigError(f"strategy.neurons={path} does not say how it was chosen: detect again.")
    most = max(file.activation.shape[-1] for file in scores.kinds.values())
    settings = _changed("layers", Layers(), chosen["layers"])
    settings += _changed("categories", Categories(), chosen["categories"])

    def make(count: int) -> TranslationModule:
        categories = {**chosen["categories"], "share": _share(count, most)}
        found = select_neurons(scores, chosen["layers"], categories, chosen["seed"])
        module = build_strategy(_copy(cfg))
        module.restore_structure(found.structure())
        return _attached(module, base)

    def paste(count: int) -> str:
        words = [f"scores={path}", f"categories.share={_share(count, most)}", *settings]
        return " ".join(["polylect detect", *words, f"seed={chosen['seed']}"])

    return Knob(range(1, most + 1), make, paste)


def _share(count: int, of: int) -> float:
    """Return a short decimal of which the part of `of` neurons is `count`."""
    digits = len(str(of)) + 1
    unit = 10**digits
    return -(-count * unit // of) / unit if count < of else 1.0


def _changed(section: str, default: Any, chosen: Mapping[str, Any]) -> list[str]:
    """Return the settings that are not as `polylect detect` has them, but for the share."""
    names = [field.name for field in fields(default) if field.name != "share"]
    return [
        f"{section}.{name}={chosen[name]}"
        for name in names
        if name in chosen and chosen[name] != getattr(default, name)
    ]


def _copy(cfg: DictConfig) -> DictConfig:
    return OmegaConf.create({key: plain(cfg[key]) for key in cfg if key != "hydra"})


def _bare_base(cfg: DictConfig) -> Any:
    """Return the base model on the meta device."""
    made = outline_base(cfg) or instantiate(cfg.model, "model", cfg.packages, _convert_="all")
    base = made[0].to("meta")
    base.tie_weights()
    return base


def _attached(module: TranslationModule, base: Any) -> TranslationModule:
    module.set_backbone(copy.deepcopy(base), None)
    return module
