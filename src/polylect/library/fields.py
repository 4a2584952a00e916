"""Checks the fields of an adapter's JSON files: each is of its kind, or the file is refused.

A string where a list belongs would be taken letter by letter, and "false" for true.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Kind = tuple[str, Callable[[Any], bool]]
"""What a value must be, in words and as a test."""


def check_fields(path: Path, fields: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    """Raises ValueError, with the file and the field, for a value of another kind."""
    for name, (words, fits) in kinds.items():
        if name in fields and not fits(fields[name]):
            text = json.dumps(fields[name], ensure_ascii=False)
            raise ValueError(f"{path}: {name} must be {words}, got {text[:80]}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_pattern(value: Any) -> bool:
    try:
        return bool(re.compile(value))
    except (TypeError, re.error):
        return False


def _is_list(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _is_mapping(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, dict) and all(map(_is_pattern, value)) and all(map(test, value.values()))
    )


def _or_null(words: str, *tests: Callable[[Any], bool]) -> Kind:
    return f"{words}, or null", lambda value: value is None or any(test(value) for test in tests)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


_TEXT = _or_null("text", _is_text)
_FLAG = _or_null("true or false", _is_bool)
_MODULES = _or_null("a regular expression or a list of names", _is_pattern, _is_list(_is_name))

ABOUT_FIELDS: dict[str, Kind] = {
    "directions": ('a list of names such as ["en-ta"]', _is_list(_is_name)),
    "base_model": _TEXT,
    "base_fingerprint": _TEXT,
    "base_cut_from": _TEXT,
    "tokenizer_hash": _TEXT,
    "template": _TEXT,
    "scores": _or_null("an object", lambda value: isinstance(value, dict)),
}
"""The fields of `polylect.json`."""

CONFIG_FIELDS: dict[str, Kind] = {
    "r": ("a whole number above 0", _is_rank),
    "lora_alpha": ("a finite number", _is_number),
    "rank_pattern": _or_null(
        "an object from regular expressions to whole numbers above 0", _is_mapping(_is_rank)
    ),
    "alpha_pattern": _or_null(
        "an object from regular expressions to finite numbers", _is_mapping(_is_number)
    ),
    "target_modules": _MODULES,
    "exclude_modules": _MODULES,
    "layers_to_transform": _or_null(
        "a whole number or a list of them", _is_index, _is_list(_is_index)
    ),
    "layers_pattern": _or_null(
        "a regular expression or a list of them", _is_pattern, _is_list(_is_pattern)
    ),
    "base_model_name_or_path": _TEXT,
    "use_rslora": _FLAG,
    "use_dora": _FLAG,
    "fan_in_fan_out": _FLAG,
    "lora_bias": _FLAG,
    "bias": _TEXT,
}
"""The fields of `adapter_config.json` that are read."""
