"""PEFT's rules for which module a pattern in an adapter's configuration means."""

import re
from collections.abc import Mapping
from typing import Any


def is_target(config: Mapping[str, Any], path: str) -> bool:
    """Return whether a module is one that the configuration's target_modules name.

    A string is a regular expression for the whole path ("all-linear" is any), a list holds paths
    or their endings, which `layers_to_transform` then narrows down to some layers.
    """
    targets = config.get("target_modules")
    if not targets or _matches(config.get("exclude_modules"), path):
        return False
    if targets == "all-linear":
        return True
    if not _matches(targets, path):
        return False
    layers = config.get("layers_to_transform")
    if isinstance(targets, str) or layers is None or layers == []:
        return True
    return _layer_index(config, path) in ([layers] if isinstance(layers, int) else layers)


def by_pattern(patterns: Mapping[str, Any] | None, path: str, default: Any) -> Any:
    """Return the value of the first pattern that the path, or its end from a dot on, matches."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", path):
            return value
    return default


def _matches(patterns: str | list[str] | None, path: str) -> bool:
    if not patterns:
        return False
    if isinstance(patterns, str):
        return re.fullmatch(patterns, path) is not None
    return any(path == ending or path.endswith(f".{ending}") for ending in patterns)


def _layer_index(config: Mapping[str, Any], path: str) -> int | None:
    """Return the first number in the path, after one of `layers_pattern` if there are any."""
    lists = config.get("layers_pattern") or [r"[^.]*"]
    for name in [lists] if isinstance(lists, str) else lists:
        layer = re.match(rf"(?:^|.*?\.){name}\.(\d+)\.", path)
        if layer:
            return int(layer.group(1))
    return None
