"""Command-line overrides made kind: a key may be any that exists, a typo names the nearest.

Hydra refuses `strategy.dropout=0.1` when the YAML file does not list `dropout` and advises
`+strategy.dropout=0.1`, which works for a typo just as well. Here a key that the constructor named
by `_target_` takes gets its plus, and any other unknown key is an error.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf

from polylect.config.choices import (
    check_choice,
    check_is_taken,
    choices_of,
    choices_with,
    group_of,
    groups_of,
)
from polylect.config.folders import folders_of
from polylect.config.keys import is_text, keys_ending_in, takes_place
from polylect.config.other_words import OTHER_WORDS
from polylect.config.quoting import quote
from polylect.config.roots import ConfigError
from polylect.config.validation import target_parameters
from polylect.did_you_mean import did_you_mean


def resolve_overrides(
    program: str,
    overrides: Sequence[str],
    conf: Path,
    stored: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return the overrides with a plus where the key is real but not in the YAML.

    In a sweep over groups a key must be real with each choice. On top of a run's own configuration,
    of which `stored` has the values, it must be real there, unless its group is chosen anew.

    Raises:
        ConfigError: a group, a choice or a key that does not exist; the message names the nearest.
    """
    parsed = [_parse_override(text) for text in overrides]
    folders = [conf, *folders_of([o for _, o in parsed])]
    groups = {p.parent.name for folder in folders for p in folder.glob("*/*.yaml")}
    choices = [o for _, o in parsed if group_of(o) in groups]
    for override in choices:
        check_is_taken(program, override, conf)
        check_choice(override, folders)
    if not stored and not any(_is_value(o, groups) for _, o in parsed):
        return [text for text, _ in parsed]
    search = [text for text, o in parsed if o.key_or_group == "hydra.searchpath"]
    cfgs = _configurations(program, choices, groups, folders, search)
    if stored:
        remaining = {k: v for k, v in stored.items() if k not in {group_of(o) for o in choices}}
        cfgs = {texts: _with_stored(cfg, remaining) for texts, cfg in cfgs.items()}
        return [o for text, own in parsed for o in _on_stored(text, own, cfgs, groups)]
    own = groups_of(program, conf)
    return [
        resolved
        for text, o in parsed
        for resolved in (_for_hydra(text, o, cfgs, own) if _is_value(o, groups) else [text])
    ]


def _parse_override(text: str) -> tuple[str, Override]:
    """Return the override and its parse, the value quoted where Hydra's grammar needs it.

    So `data.train=my/train.{lang}` and `extra.train=[strategy.gate=none]` may be written as is.
    """
    key, equals, value = text.partition("=")
    with suppress(HydraException, ValueError):
        return text, _parse(text)
    with suppress(HydraException, ValueError):
        if equals and key:
            return (attempt := f"{key}={quote(value)}"), _parse(attempt)
    raise ConfigError(f"{text!r} is not a setting: {_how_to_write(key, equals, value)}.")


def _how_to_write(key: str, equals: str, value: str) -> str:
    open_, closed = (sum(map(value.count, signs)) for signs in ("[{", "]}"))
    if key and equals and open_ != closed:
        return "a bracket is missing; what has spaces needs quotes for the shell: 'key=[a, b]'"
    if not equals and Path(key).is_dir():
        return f"write key=value, as in run={key}, or path={key} for polylect library"
    return "write key=value, as in seed=3"


def _parse(text: str) -> Override:
    parsed = OverridesParser.create().parse_override(text)
    if not parsed.key_or_group:
        raise ValueError(f"{text!r} has no key.")
    return parsed


def _is_value(override: Override, groups: Collection[str]) -> bool:
    """Say whether this sets a value of ours: no group choice, not of Hydra, no explicit + or ~."""
    plain = not (override.is_add() or override.is_force_add() or override.is_delete())
    return plain and group_of(override) not in groups and not group_of(override).startswith("hydra")


def _configurations(
    program: str,
    choices: Sequence[Override],
    groups: Collection[str],
    folders: Sequence[Path],
    search: Sequence[str],
) -> dict[str, DictConfig]:
    """Return the configurations that the group choices compose, by the choices' text.

    In a sweep over groups, as many as it takes for each choice to be in one. Hydra itself then
    composes without the swept groups as well: that one has no text.
    """
    fixed = [o for o in choices if not o.is_sweep_override()]
    choices_by_group = {
        group_of(o): [f"~{group_of(o)}"]
        if o.is_delete()
        else [f"{group_of(o)}={c}" for c in choices_of(o, folders)]
        for o in choices
    }
    conf = folders[0]
    base = compose_config(
        program, [*search, *(choices_by_group[group_of(o)][0] for o in fixed)], conf
    )
    for key, value in (base.hydra.sweeper.params or {}).items():  # of a file in conf/sweep
        swept = _parse(f"{key}={value}")
        if group_of(swept) in groups - choices_by_group.keys():
            choices_by_group[group_of(swept)] = [
                f"{key}={choice}" for choice in choices_of(swept, folders)
            ]
    if len(choices_by_group) == len({group_of(o) for o in fixed}):
        return {"": base}
    jobs = range(max(map(len, choices_by_group.values())))
    each = [[texts[job % len(texts)] for texts in choices_by_group.values()] for job in jobs]
    return {"": base} | {
        " ".join(texts): compose_config(program, [*search, *texts], conf) for texts in each
    }


def compose_config(program: str, choices: Sequence[str], conf: Path) -> DictConfig:
    """Return what Hydra composes of overrides that are resolved, with its own section.

    Raises:
        ConfigError: a group without a choice.
    """
    began = GlobalHydra.instance().is_initialized()  # within a job
    with nullcontext() if began else initialize_config_dir(str(conf), version_base="1.3"):
        try:
            return compose(program, overrides=list(choices), return_hydra_config=True)
        except ValueError as error:  # of Hydra, for a group without a choice
            raise ConfigError(f"{error} ({' '.join(choices)})") from error


def _with_stored(cfg: DictConfig, stored: Mapping[str, Any]) -> DictConfig:
    """Return the configuration with the sections that a run has stored, as plain values."""
    OmegaConf.set_struct(cfg, False)
    for key, value in stored.items():
        if key in cfg:
            cfg[key] = value
    return cfg


def _on_stored(
    text: str, override: Override, cfgs: Mapping[str, DictConfig], groups: Collection[str]
) -> list[str]:
    """Return the override in a form that Hydra takes although its own files may lack the key."""
    if _is_value(override, groups):
        _complete(text, override, cfgs, groups)  # or it is a mistake
        return [f"++{text}"]
    key = override.key_or_group
    if override.is_delete() and group_of(override) not in groups and override.value() is None:
        missing = object()
        if all(OmegaConf.select(cfg, key, default=missing) is not missing for cfg in cfgs.values()):
            return [f"++{key}=0", text]  # what is null Hydra takes for absent
    return [text]


def _for_hydra(
    text: str, override: Override, cfgs: Mapping[str, DictConfig], groups: Collection[str]
) -> list[str]:
    """Return the override as Hydra is to take it: numbers as text, a corpus replaced whole."""
    if override.is_sweep_override():  # its jobs settle theirs
        return [_complete(text, override, cfgs, groups)]
    key, _, value = text.partition("=")
    if is_text(override, cfgs.values()):
        text = f"{key}={QuotedString(value.strip(), Quote.single).with_quotes()}"
    completed = _complete(text, override, cfgs, groups)
    replaced = all(takes_place(override.value(), cfg, key) for cfg in cfgs.values())
    return [f"~{key}", f"+{text}"] if replaced else [completed]


def _complete(
    text: str, override: Override, cfgs: Mapping[str, DictConfig], groups: Collection[str]
) -> str:
    """Return the override with the plus that it needs with every one of the configurations."""
    forms = set()
    for texts, cfg in cfgs.items():
        try:
            forms.add(_with_plus(text, override, cfg, groups))
        except ConfigError as error:
            if len(cfgs) == 1:
                raise
            if texts:
                raise ConfigError(f"with {texts}: {error}") from error
            forms.add("")  # it need not be real where no job is
    return forms.pop() if len(forms) == 1 else f"++{text}"


def _with_plus(text: str, override: Override, cfg: DictConfig, groups: Collection[str]) -> str:
    node, path = cfg, override.key_or_group.split(".")
    for depth, key in enumerate(path):
        if node is None or node == MISSING:  # data.filters, data.train: a mapping begins here
            return f"+{text}"
        if not OmegaConf.is_dict(node):  # an element of a list, or free content: Hydra knows
            return text
        if key in node.keys():  # noqa: SIM118 (`in` is false where the value is still missing)
            node = MISSING if OmegaConf.is_missing(node, key) else node[key]
            continue
        options = [str(k) for k in node]
        if "_target_" in node:
            parameters = target_parameters(node)
            options += list(parameters)
            if key in parameters or not parameters:
                return f"+{text}"
        elif depth > 0 and not options:  # a free mapping such as data.train
            return f"+{text}"
        if depth == 0 and (whole := keys_ending_in(cfg, override.key_or_group)):
            raise ConfigError(f"{override.key_or_group} does not exist; did you mean {whole}?")
        ours = OTHER_WORDS.get(key, "") if depth == 0 else ""
        if ours and re.split(r"\W", ours)[0] in cfg:
            raise ConfigError(f"{key} does not exist; here it is {ours}.")
        if depth == 0 and key in groups:
            raise ConfigError(f"{key} has no settings by itself: choose one, as in {key}=NAME.")
        if depth == 0:
            options += [str(k) for k in groups]
            deeper = _deeper(key, cfg, 1.0)
            if not deeper and not get_close_matches(key, options, cutoff=_ALIKE):
                deeper = _deeper(key, cfg, _ALIKE)
            if deeper:
                raise ConfigError(f"{key} does not exist; did you mean {' or '.join(deeper)}?")
        prefix = ".".join([*path[:depth], ""]) if depth else ""
        if below := [f"{prefix}{name}.{key}" for name in _objects_taking(key, node)]:
            raise ConfigError(f"{prefix}{key} does not exist; did you mean {' or '.join(below)}?")
        options = [f"{prefix}{k}" for k in options if not k.startswith("_")]
        if depth == 1 and (others := choices_with(path[0], key)):
            raise ConfigError(
                f"{prefix}{key} does not exist with what is chosen; first choose "
                f"{' or '.join(f'{path[0]}={choice}' for choice in others)}."
            )
        raise ConfigError(f"{prefix}{key} does not exist; {did_you_mean(prefix + key, options)}")
    if OmegaConf.is_dict(node) and len(node) == 0 and isinstance(override.value(), dict):
        return f"++{text}"  # a free mapping given whole
    return text


def _objects_taking(key: str, node: DictConfig) -> list[str]:
    """Return the names of sibling objects, such as loggers, whose constructors take the setting."""
    parts = {
        str(name): node._get_node(name) for name in node if not OmegaConf.is_missing(node, name)
    }
    objects = {
        n: part for n, part in parts.items() if OmegaConf.is_dict(part) and "_target_" in part
    }
    return [n for n, part in objects.items() if key in (target_parameters(part) or (key,))]


_ALIKE = 0.8  # of 1, how alike two names are that are the same but for a slip


def _deeper(
    key: str, node: DictConfig, alike: float, prefix: str = "", depth: int = 3
) -> list[str]:
    """Return the paths of the keys of this name below a node: `lr` gives optim.optimizer.lr."""
    paths = []
    for name in map(str, node):
        path, below = f"{prefix}{name}", node._get_node(name)
        if prefix and get_close_matches(key, [name], cutoff=alike):
            paths.append(path)
        elif depth and OmegaConf.is_dict(below) and name != "hydra" and not below._is_missing():
            paths += _deeper(key, below, alike, f"{path}.", depth - 1)
    return paths
