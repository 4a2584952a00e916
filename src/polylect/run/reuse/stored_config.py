"""Configurations that runs stored, here or elsewhere, read so that nothing in them is executed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from polylect.config.roots import ConfigError
from polylect.config.targets import check_packages, target_mistakes
from polylect.files import check_whole

REBUILDS = ("seed", "model", "data", "strategy", "generation", "memory")
"""The sections of a stored configuration that make a trained model again."""

_NEEDED = {
    "model": {"_target_"},
    "data": {"directions", "template"},
    "strategy": {"_target_"},
}
_PARTS = {"generation", "optim", "trainer", "callbacks"}
_LARGEST = 100_000  # values of a configuration
_DEEPEST = 50


def read_config(path: Path) -> dict[str, Any]:
    """Return the plain values of a run's `config.yaml`; raises as `check_whole`."""
    check_whole(path, "the configuration of a run")
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError(f"{path} is not read: it has aliases, which no run writes.")
        values = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        where = " ".join(str(error).split())
        raise ValueError(f"{path} is no configuration of a run: {where}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is no configuration of a run: it has no keys.")
    return values


def stored_config(
    values: Mapping[str, Any],
    path: Path,
    keys: Iterable[str],
    packages: Sequence[str] = (),
    command: str = "the same command with",
) -> DictConfig:
    """Return the sections of a stored configuration that `keys` name, safe to be instantiated.

    Args:
        values: what the file at `path` holds.
        packages: the user's own; the result has them as `packages`, whatever the file says.
        command: to be typed before the packages that are wanting, for the sentence.

    Raises:
        ConfigError: the configuration holds more than plain values, or names an object that is on
            no list, as a sentence with the path.
    """
    check_packages(packages)
    keys = tuple(keys)
    for key, needed in _NEEDED.items():
        if key in keys and not (isinstance(values.get(key), dict) and needed <= values[key].keys()):
            lacks = f"config key {key} lacks {' and '.join(sorted(needed))}"
            raise ConfigError(f"{path} is no whole configuration of a run: {lacks}.")
    values = {key: values[key] for key in keys if key in values}
    for key in _PARTS & values.keys():
        if not isinstance(values[key], dict | None):
            raise ConfigError(f"{path}: config key {key} must have keys, it is {values[key]}.")
    for key, value in _leaves(values, path):
        if isinstance(value, str) and "${" in value:
            raise ConfigError(
                f"{path}: config key {key} is {value}: a stored configuration may not refer to "
                "anything, such as the environment."
            )
        if not isinstance(value, str | int | float | bool | None):
            raise ConfigError(f"{path}: config key {key} is no plain value but a {type(value)}.")
    for key, value in values.items():
        for mistake in target_mistakes(value, key, key, packages, stored=command):
            raise ConfigError(f"{path}: {mistake}.")
    return OmegaConf.create({**values, "packages": list(packages)})


def _leaves(values: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """Yield every value by its config path; raises ConfigError where there are too many."""
    waiting: list[tuple[int, str, Any]] = [(1, key, value) for key, value in values.items()]
    count = 0
    while waiting:
        depth, key, value = waiting.pop()
        count += 1
        if count > _LARGEST or depth > _DEEPEST:
            raise ConfigError(f"{path} holds more values than the configuration of a run can.")
        if isinstance(value, Mapping):
            waiting.extend((depth + 1, f"{key}.{name}", below) for name, below in value.items())
        elif isinstance(value, list | tuple):
            waiting.extend((depth + 1, f"{key}[{i}]", below) for i, below in enumerate(value))
        else:
            yield key, value
