"""Configurations as `polylect PROGRAM` composes them of what is typed."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from polylect.config.overrides import resolve_overrides
from polylect.config.roots import conf_folder


def settings_of(program: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a program with these overrides; raises ConfigError for a wrong one."""
    conf = conf_folder()
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose(program, resolve_overrides(program, overrides, conf))
