"""Looks up the keys of a command line in the configuration that the files give."""

from collections.abc import Iterable, Iterator
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, StringNode

from polylect.config.validation import target_parameters

_SHOWN = 3


def is_text(override: Override, cfgs: Iterable[DictConfig]) -> bool:
    """Return whether a number is given where only text is taken: `name=1e3` is no 1000.0."""
    value = override.value()
    return isinstance(value, bool | int | float) and any(
        _takes_text(cfg, override.key_or_group) for cfg in cfgs
    )


def _takes_text(cfg: DictConfig, key: str) -> bool:
    above, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, above) if above else cfg
    if not OmegaConf.is_dict(node):
        return False
    if "_target_" in node:
        parameter = target_parameters(node).get(name)
        return parameter is not None and parameter.annotation in (str, str | None)
    names = list(node.keys())  # `in` is false where the value is still missing
    return name in names and isinstance(node._get_node(name), StringNode)


def takes_place(value: Any, cfg: DictConfig, key: str) -> bool:
    """Return whether a list or mapping is something else than what is at the key, as a corpus.

    Hydra would merge the two. A mapping of keys that are there already changes those.
    """
    node = OmegaConf.select(cfg, key)
    if not OmegaConf.is_dict(node) or not node or "_target_" in node:
        return False
    return isinstance(value, list) or (isinstance(value, dict) and not value.keys() <= node.keys())


def keys_ending_in(cfg: DictConfig, ending: str) -> str:
    """Return the whole keys that a short one may stand for: `lr` for the optimizer's.

    What the files set comes before what else a `_target_` takes. Empty where there is none.
    """
    keys = [
        f"{key}{_current_value(value)}" for key, value in _keys(cfg) if key.endswith(f".{ending}")
    ]
    if not keys:
        keys = [
            f"{path}.{ending}"
            for path, node in _keys(cfg)
            if OmegaConf.is_dict(node) and "_target_" in node and ending in target_parameters(node)
        ]
    return " or ".join(keys[:_SHOWN])


def _current_value(value: Any) -> str:
    return "" if value is None or OmegaConf.is_config(value) else f" (now {value})"


def _keys(node: DictConfig, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key below a node, except Hydra's own, with its value; None if unresolved."""
    for name in node:
        path = f"{above}.{name}" if above else str(name)
        if path == "hydra" or str(name).startswith("_"):
            continue
        unresolved = OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name)
        value = None if unresolved else node[name]
        yield path, value
        if OmegaConf.is_dict(value):
            yield from _keys(value, path)
