"""Folders of YAML files beside polylect's own: those of the user, as `--config-dir` names them.

They are Hydra's search path. A folder is read because the command names it, never because it is
the one the command was given in: files that came with somebody else's folder choose nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override, Quote, QuotedString

from polylect.config.roots import ConfigError, conf_folder

_KEY = "hydra.searchpath"
_SCHEME = "file://"


def search_path(folder: str) -> str:
    """Return the override of Hydra's that adds a folder of the user's to those that are searched.

    Raises:
        ConfigError: there is no such folder, or a file in it has the place of one of ours, which
            Hydra would then not read.
    """
    path = Path(folder).absolute()
    if not path.is_dir():
        raise ConfigError(f"--config-dir {folder} is no folder.")
    for file in sorted(path.rglob("*.yaml")):
        name = file.relative_to(path)
        if (conf_folder() / name).is_file():
            raise ConfigError(
                f"{file} has the name of a file of polylect's own, {name}: give it another name."
            )
    quoted = QuotedString(f"{_SCHEME}{path}", Quote.single).with_quotes()
    return f"{_KEY}=[{quoted}]"


def folders_of(overrides: Sequence[Override]) -> list[Path]:
    """Return the folders beside our own in which the choices of groups may lie."""
    paths = [p for o in overrides if o.key_or_group == _KEY for p in o.value() or ()]
    return [
        Path(str(p).removeprefix(_SCHEME)) for p in paths if "://" not in p.replace(_SCHEME, "")
    ]


def search_path_of_job() -> list[str]:
    """Return the override with which the job that runs was given folders of the user's, if any."""
    if not HydraConfig.initialized():
        return []
    return [o for o in HydraConfig.get().overrides.hydra if o.startswith(f"{_KEY}=")]
