"""Fewer of Hydra's compositions, of which a command has three and which are most of its time."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from polylect.config import overrides


def share(patch: pytest.MonkeyPatch) -> None:
    """Compose the same group choices once, and no command only to ask it for its `hydra.mode`."""
    get_mode, compose_config = Hydra.get_mode, overrides.compose_config
    known: dict[tuple[str, tuple[str, ...], Path], DictConfig] = {}

    def mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        """None is what Hydra gives where nothing sets it; the files of conf/sweep do."""
        if any(text.startswith(("sweep=", "hydra")) for text in overrides):
            return get_mode(self, config_name, overrides)
        return None

    def composed(program: str, choices: Sequence[str], conf: Path) -> DictConfig:
        within_job = GlobalHydra.instance().is_initialized()
        if within_job or any(choice.startswith("hydra") for choice in choices):
            return compose_config(program, choices, conf)
        key = (program, tuple(choices), conf)
        if key not in known:
            known[key] = compose_config(program, choices, conf)
        return copy.deepcopy(known[key])

    patch.setattr(Hydra, "get_mode", mode)
    patch.setattr(overrides, "compose_config", composed)
