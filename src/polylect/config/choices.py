"""Choices of groups, such as `strategy=lag`: which a program takes, and which files there are."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Glob, Override

from polylect.config.roots import SCHEMAS, ConfigError, conf_folder
from polylect.did_you_mean import did_you_mean


@cache
def groups_of(program: str, conf: Path) -> frozenset[str]:
    """Return the groups of which a program takes a choice: those of its list of defaults."""
    defaults = yaml.safe_load((conf / f"{program}.yaml").read_text(encoding="utf-8"))["defaults"]
    keys = {key for entry in defaults if isinstance(entry, dict) for key in entry}
    return frozenset(key.removeprefix("optional ") for key in keys) - {"project"}  # the user's own


def check_is_taken(program: str, override: Override, conf: Path) -> None:
    """Raises ConfigError for a group that only other programs take."""
    group, own = group_of(override), groups_of(program, conf)
    others = [other for other in SCHEMAS if group in groups_of(other, conf)]
    if group in own or not others or override.is_add() or override.is_force_add():
        return
    raise ConfigError(
        f"polylect {program} takes no {group}=…, which is for polylect {', '.join(others)}; "
        f"here may be given: {', '.join(sorted(own)) or 'no group at all'}."
    )


def group_of(override: Override) -> str:
    """Return the group that an override chooses from, without the package after "@"."""
    return override.key_or_group.split("@")[0]


def choices_of(override: Override, folders: Sequence[Path]) -> list[str]:
    """Return the choices of a group, one unless they are swept over, as text."""
    value = override.value()
    if isinstance(value, Glob):
        return value.filter(_known_choices(override, folders))
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    return [override.get_value_element_as_str()]


def _known_choices(override: Override, folders: Sequence[Path]) -> list[str]:
    files = [p for folder in folders for p in (folder / group_of(override)).glob("*.yaml")]
    return sorted(p.stem for p in files)


def choices_with(group: str, key: str) -> list[str]:
    """Return the choices of a group whose files have such a key, at most three."""
    files = sorted((conf_folder() / group).glob("*.yaml"))
    contents = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    return [name for name, content in contents.items() if key in (content or {})][:3]


_OWN_FILES = " A file of your own is found with --config-dir FOLDER."
_OWN = {
    "model": " A folder, GGUF file or hub id is given by model=local model.path=PATH.",
    "data": " Files of your own are data=files data.train=FILE.",
}


def check_choice(override: Override, folders: Sequence[Path]) -> None:
    """Raises ConfigError, with the nearest, for a choice that has no file in these folders."""
    group, options = group_of(override), _known_choices(override, folders)
    choices = choices_of(override, folders)
    if not choices:
        raise ConfigError(f"{override.input_line} matches nothing; {did_you_mean('', options)}")
    for choice in ",".join(choices).split(","):
        name = choice.strip("\"' []")
        has_file = any((folder / group / f"{name}.yaml").is_file() for folder in folders)
        if name and name != "null" and "${" not in name and not has_file:
            raise ConfigError(
                f"{group}={name} does not exist; {did_you_mean(name, options)}"
                + ("" if len(folders) > 1 else _OWN.get(group, _OWN_FILES))
            )
