"""The check of a configuration before anything heavy is done.

The signature of each `_target_` is the schema: `validate` binds every node to the constructor it
names and reports a wrong key or type by its config path.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, make_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from polylect.config.roots import SCHEMAS, ConfigError, plain
from polylect.config.targets import check_packages, locate, target_mistakes
from polylect.did_you_mean import did_you_mean

_NUMBER = float | int  # a float parameter that takes 1 for 1.0
_TYPES = (int, float, bool, str, _NUMBER)
_SIMPLE = (*_TYPES, *(kind | None for kind in _TYPES))


def target_parameters(node: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters that the node's `_target_` takes by name; empty where it takes any.

    Raises ConfigError where the target, which must be one that may be named, cannot be imported.
    """
    target = locate(node["_target_"])
    by_name: dict[str, inspect.Parameter] = {}
    for callable_ in _constructors(target):
        parameters = inspect.signature(callable_).parameters
        by_name |= {name: p for name, p in parameters.items() if name not in by_name}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
            return {n: p for n, p in by_name.items() if n != "self" and p.kind in named}
    return {}


def _constructors(target: Any) -> Iterator[Any]:
    """Yield the target, or each `__init__` of a class that `**keywords` are handed up to."""
    if not inspect.isclass(target):
        yield target
        return
    for cls in target.__mro__[:-1]:
        if "__init__" in vars(cls):
            yield cls.__init__


def validate(cfg: DictConfig) -> None:
    """Check that every node names a `_target_` that it may, and fits that target's signature.

    Raises:
        ConfigError: all mistakes together, one line each, with the config path.
    """
    packages = cfg.get("packages") or ()
    check_packages(packages)
    mistakes = [*_root_mistakes(cfg), *_empty_values(cfg, "")]
    refused = [
        mistake
        for key in cfg
        if not OmegaConf.is_missing(cfg, key)
        for mistake in target_mistakes(plain(cfg[key]), str(key), str(key), packages)
    ]
    # What may not be named is not imported for its signature.
    mistakes += refused or list(_mistakes(cfg, ""))
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _root_mistakes(cfg: DictConfig) -> Iterator[str]:
    """Yield what is wrong with keys at the root: one that does not exist, one that is missing."""
    schema = OmegaConf.get_type(cfg)
    if schema in SCHEMAS.values():
        keys = [f.name for f in fields(schema)]
        for key in cfg:
            if key not in keys:
                yield f"config key {key} does not exist; {did_you_mean(str(key), keys)}"
            elif OmegaConf.is_missing(cfg, key):
                yield f"config key {key} must be given, as in {key}=VALUE"


_MAY_BE_EMPTY = ("adapter", "name", "logger")
"""At the root: no adapter, what `run_folder` refuses in words of its own, folders of loggers."""


def _empty_values(node: Any, path: str) -> Iterator[str]:
    """Values that are empty texts, as in `run=`: an empty path would be the folder one is in."""
    if isinstance(node, DictConfig | ListConfig):
        for key in range(len(node)) if isinstance(node, ListConfig) else node:
            here = not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key)
            if here and (path or key not in _MAY_BE_EMPTY):
                within = f"{path}[{key}]" if isinstance(node, ListConfig) else f"{path}.{key}"
                yield from _empty_values(node[key], within.removeprefix("."))
    elif isinstance(node, str) and not node.strip():
        yield (
            f"config key {path} is empty: leave the entry out"
            if path.endswith("]")
            else f"config key {path} is empty: write something behind {path}= or leave it out"
        )


def _mistakes(node: Any, path: str) -> Iterator[str]:
    if not isinstance(node, DictConfig):
        return
    if "_target_" in node:
        yield from _signature_mistakes(node, path)
    for key in node:
        if not OmegaConf.is_missing(node, key):
            yield from _mistakes(node[key], f"{path}.{key}" if path else str(key))


def _signature_mistakes(node: DictConfig, path: str) -> Iterator[str]:
    parameters = target_parameters(node)
    if not parameters:
        return
    keys = [str(key) for key in node if not str(key).startswith("_")]
    for key in keys:
        if key not in parameters:
            yield f"config key {path}.{key} does not exist; {did_you_mean(key, list(parameters))}"
    # OmegaConf converts and checks simple types; everything else is the constructor's business.
    missing = [key for key in keys if OmegaConf.is_missing(node, key)]
    for key in missing:
        yield f"config key {path}.{key} must be given, as in {path}.{key}=VALUE"
    typed = [(k, parameters[k].annotation) for k in keys if k in parameters and k not in missing]
    simple = [(k, annotation) for k, annotation in typed if annotation in _SIMPLE]
    for key, annotation in typed:
        if annotation not in _SIMPLE and not _may_be(node[key], annotation):
            yield f"config key {path}.{key} must be {_in_words(annotation)}, got {node[key]!r}"
    schema = OmegaConf.structured(make_dataclass("Schema", [(k, t, MISSING) for k, t in simple]))
    for key, annotation in simple:
        try:
            schema[key] = node[key]
        except OmegaConfBaseException:
            is_one = isinstance(annotation, type)
            expected = f"of type {annotation.__name__}" if is_one else _in_words(annotation)
            yield f"config key {path}.{key} must be {expected}, got {node[key]!r}"


def _may_be(value: Any, annotation: Any) -> bool:
    """Say whether a text or number fits an annotation such as `int | Mapping[str, int]`.

    What else there is, and annotations that are no classes, the constructor judges itself.
    """
    if not isinstance(value, str | int | float) or annotation is inspect.Parameter.empty:
        return True
    kinds = [get_origin(kind) or kind for kind in _alternatives(annotation)]
    if {Any, object} & set(kinds) or not all(inspect.isclass(kind) for kind in kinds):
        return True
    kinds += [int] if float in kinds else []
    return isinstance(value, tuple(kinds))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _in_words(annotation: Any) -> str:
    """Return an annotation in words: `int | Mapping[str, int]` is a number or a mapping."""
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    words |= {Mapping: "a mapping", dict: "a mapping", NoneType: "null"}
    kinds = [get_origin(kind) or kind for kind in _alternatives(annotation)]
    lists = {Sequence: "a list", list: "a list", tuple: "a list"}
    words_of_kinds = [text for kind in kinds if (text := (words | lists).get(kind)) is not None]
    if words[float] in words_of_kinds:  # a whole number is one, too
        words_of_kinds = [text for text in words_of_kinds if text != words[int]]
    return " or ".join(dict.fromkeys(words_of_kinds)) or "of another type"
