"""Command-line overrides made kind: a key may be any that exists, a typo names the nearest.

Hydra refuses `strategy.dropout=0.1` when the YAML file does not list `dropout` and advises
`+strategy.dropout=0.1`, which works for a typo just as well. Here a key that the constructor named
by `_target_` takes gets its plus, and any other unknown key is an error.
"""

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from polylect.config import ConfigError, target_parameters
from polylect.hints import nearest


def complete(program: str, overrides: Sequence[str], conf: Path) -> list[str]:
    """The overrides with a plus where the key is real but not in the YAML.

    Raises:
        ConfigError: a group, a choice or a key that does not exist; the message names the nearest.
    """
    parsed = [_parsed(text) for text in overrides]
    groups = {p.parent.relative_to(conf).as_posix() for p in conf.glob("*/*.yaml")}
    choices = [o for _, o in parsed if _group(o) in groups]
    for override in choices:
        _check_choice(override, conf)
    values = [text for text, o in parsed if _is_value(o, groups)]
    if not values:
        return [text for text, _ in parsed]
    cfg = _composed(program, choices, conf)
    return [
        _with_plus(text, o, cfg, groups) if _is_value(o, groups) else text for text, o in parsed
    ]


def _parsed(text: str) -> tuple[str, Override]:
    """The override, its value quoted where Hydra's grammar has no other way to take it.

    So `data.train=my/train.{lang}` may be written as it is.
    """
    parser = OverridesParser.create()
    key, equals, value = text.partition("=")
    tries = [text] if "'" in value or value.startswith(("{", "[")) else [text, f"{key}='{value}'"]
    for attempt in tries if equals and key else [text]:
        with contextlib.suppress(HydraException):
            parsed = parser.parse_override(attempt)
            if parsed.key_or_group:
                return attempt, parsed
    raise ConfigError(f"{text!r} is not a setting: write key=value, as in seed=3.")


def _group(override: Override) -> str:
    return override.key_or_group.split("@")[0]


def _is_value(override: Override, groups: set[str]) -> bool:
    """Whether this sets a value of ours: no group choice, not Hydra's own, no explicit + or ~."""
    plain = not (override.is_add() or override.is_force_add() or override.is_delete())
    return plain and _group(override) not in groups and not _group(override).startswith("hydra")


def _check_choice(override: Override, conf: Path) -> None:
    group = _group(override)
    known = [p.stem for p in sorted((conf / group).glob("*.yaml"))]
    value = override.get_value_element_as_str() if override.value() is not None else "null"
    for choice in value.split(","):
        name = choice.strip("\"' []")
        # glob(…), paths and config folders of the user's own are left to Hydra.
        if re.fullmatch(r"\w+", name) and name != "null" and name not in known:
            raise ConfigError(f"{group}={name} does not exist; {nearest(name, known)}")


def _composed(program: str, choices: Sequence[Override], conf: Path) -> DictConfig:
    """The configuration that the group choices give; of a sweep over a group, its first choice."""
    first = [f"{_group(o)}={o.get_value_element_as_str().split(',')[0]}" for o in choices]
    with initialize_config_dir(str(conf), version_base="1.3"):
        try:
            return compose(program, overrides=[text for text in first if "(" not in text])
        except ValueError as error:  # of Hydra, for a group without a choice
            raise ConfigError(f"{error} ({' '.join(first)})") from error


def _with_plus(text: str, override: Override, cfg: DictConfig, groups: set[str]) -> str:
    node, path = cfg, override.key_or_group.split(".")
    for depth, key in enumerate(path):
        if not OmegaConf.is_dict(node):  # an element of a list, or free content: Hydra knows
            return text
        if key in node.keys():  # noqa: SIM118 (`in` is false where the value is still missing)
            node = node._get_node(key) if OmegaConf.is_missing(node, key) else node[key]
            continue
        known = [str(k) for k in node]
        if "_target_" in node:
            parameters = target_parameters(node)
            known += list(parameters)
            if key in parameters or not parameters:
                return f"+{text}"
        elif depth > 0 and not known:  # a free mapping such as data.train
            return f"+{text}"
        if depth == 0:
            known += sorted(groups)
        prefix = ".".join([*path[:depth], ""]) if depth else ""
        known = [f"{prefix}{k}" for k in known if not k.startswith("_")]
        raise ConfigError(f"{prefix}{key} does not exist; {nearest(prefix + key, known)}")
    return text
