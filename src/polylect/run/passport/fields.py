"""What `passport.json` may hold: each value is of its kind and size, or the file is refused.

A passport may come from anywhere. Nothing in it is executed, imported or opened by its name.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], bool]

DTYPES = ("float32", "bfloat16", "float16", "float64", "uint8", "int8")
KINDS = ("run", "adapter", "model", "rows")
_MOST_ENTRIES = 100_000
_MOST_OUTPUTS = 10_000
_LONGEST = 20_000
_NAME = re.compile(r"[^\x00-\x1f]{1,1000}")
_PARTS = re.compile(r"(?!\.\.?(/|$))[^/\\\x00-\x1f]+(/(?!\.\.?(/|$))[^/\\\x00-\x1f]+)*")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_path(value: Any) -> bool:
    """Whether it is a file below the passport's folder, whatever else."""
    return _is_name(value) and _PARTS.fullmatch(value) is not None


def _is_hash(digits: int) -> Check:
    pattern = re.compile(f"[0-9a-f]{{{digits}}}")
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_count(most: int) -> Check:
    return lambda value: type(value) is int and 0 <= value <= most


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _or_null(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _mapping(key: Check, check: Check, most: int = _MOST_ENTRIES) -> Check:
    return lambda value: (
        isinstance(value, dict)
        and len(value) <= most
        and all(key(k) and check(v) for k, v in value.items())
    )


def _list(check: Check, most: int = _MOST_ENTRIES) -> Check:
    return lambda value: isinstance(value, list) and len(value) <= most and all(map(check, value))


def _object(fields: Mapping[str, Check]) -> Check:
    return lambda value: (
        isinstance(value, dict)
        and value.keys() == fields.keys()
        and all(check(value[name]) for name, check in fields.items())
    )


_SHA256 = _is_hash(64)
_TENSORS = _mapping(_is_name, _is_hash(16))
_FILES = _mapping(_is_path, _object({"sha256": _SHA256, "tensors": _TENSORS}))
_SPLITS = _mapping(_is_name, _mapping(_is_name, _or_null(_SHA256)))

GOLDEN = {
    "direction": _is_name,
    "source": _is_text,
    "prompt": lambda value: bool(value) and _list(_is_count(2**31 - 1), 10_000)(value),
    "prompt_text": _is_text,
    "text": _is_text,
    "tokens": _is_count(10_000),
    "capped": _is_flag,
}
FIELDS: dict[str, tuple[str, Check]] = {
    "kind": (f"one of {', '.join(KINDS)}", lambda value: value in KINDS),
    "made": (
        "an object with time, commit, dirty, device and versions",
        _object(
            {
                "time": _is_text,
                "commit": _or_null(_is_text),
                "dirty": _is_flag,
                "device": _is_text,
                "versions": _mapping(_is_name, _or_null(_is_text)),
            }
        ),
    ),
    "base": (
        "an object with name, fingerprint, dtype, tensors and files",
        _object(
            {
                "name": _is_text,
                "fingerprint": _or_null(_SHA256),
                "dtype": lambda value: value in DTYPES,
                "tensors": _TENSORS,
                "files": _mapping(_is_path, _SHA256),
            }
        ),
    ),
    "tokenizer": ("a SHA-256", _SHA256),
    "template": ("a name", _is_name),
    "directions": ("a list of names", _list(_is_name)),
    "data": ("an object of splits, directions and hashes", _SPLITS),
    "scores": (
        "an object of directions, metrics, values and signatures",
        _mapping(
            _is_name,
            _mapping(_is_name, _object({"value": _is_number, "signature": _is_text})),
        ),
    ),
    "files": ("an object of paths below the folder and their hashes", _FILES),
    "used": ("an object of names of other files and their hashes", _FILES),
    "generation": (
        "an object with the settings of decoding",
        _object(
            {
                "beams": _is_count(1024),
                "length_penalty": _is_number,
                "ratio": _is_number,
                "extra": _is_count(10**9),
                "limit": _is_count(10_000),
            }
        ),
    ),
    "golden": (
        "a list of translations",
        _list(_object(GOLDEN), _MOST_OUTPUTS),
    ),
    "seal": ("a SHA-256", _SHA256),
}
"""What each field must be, in words and as a test."""
