"""The session of every program: its folder, signals, resolvers, the wandb run."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from omegaconf import DictConfig, OmegaConf

from polylect.config.roots import ConfigError
from polylect.files import read_json
from polylect.run.processes.group import first_speaks, from_first, join, rank
from polylect.run.record import new_folder
from polylect.run.sweep.process import RUN_FOLDER


@contextmanager
def session(cfg: DictConfig) -> Iterator[Path]:
    """Give the folder of a run; SIGTERM then ends the program so that its record is written."""
    is_part = RUN_FOLDER in os.environ  # of a sweep or a recipe, which has chosen the folder
    join()
    handlers = signal_handlers({signal.SIGTERM: raise_system_exit})
    with first_speaks(), run_folder(cfg) as folder, handlers:
        register_resolvers(folder, is_part, cfg.get("resume"))
        yield folder


@contextmanager
def run_folder(cfg: DictConfig) -> Iterator[Path]:
    """Give the folder of this run: the one a parent process chose, or a new one.

    Processes that this one starts find it in the environment. If nothing was written into it, as
    when a setting is wrong, it goes away again, and so do those above that were made for it.
    """
    if RUN_FOLDER in os.environ or cfg.get("dry_run"):
        yield Path(os.environ.get(RUN_FOLDER, cfg.runs))
        return
    if not cfg.name.strip() or Path(cfg.name).is_absolute() or ".." in Path(cfg.name).parts:
        raise ConfigError(
            f"name={cfg.name} is no name of a run: its folder is runs/NAME/TIME; another folder of "
            "all runs is given by runs=FOLDER."
        )
    parents = (Path(cfg.runs) / cfg.name / "run").parents
    absent = [p for p in parents if not p.exists()] if rank() == 0 else []
    try:
        folder = new_folder(Path(cfg.runs) / cfg.name) if rank() == 0 else Path(cfg.runs)
    except OSError as error:
        raise ConfigError(f"runs={cfg.runs} cannot be written to: {error.strerror}.") from error
    folder = from_first(folder)
    os.environ[RUN_FOLDER] = str(folder)
    try:
        yield folder
    finally:
        del os.environ[RUN_FOLDER]
        with suppress(OSError):
            for empty in (folder, *absent) if rank() == 0 else ():
                empty.rmdir()


def register_resolvers(folder: Path, is_part: bool = False, resumed: str | None = None) -> None:
    """Define `${run_folder:}`, and what loggers are told of the run, for the YAML files.

    Args:
        folder: of the run.
        is_part: whether it is a job of a sweep or a stage of a recipe.
        resumed: the run folder or checkpoint that it goes on with.
    """
    whole = folder.parent if is_part else folder
    group = f"{whole.parent.name}/{whole.name}"
    of_sweep = whole.parent.parent.name == "sweeps" or (whole / "sweep.json").is_file()
    kind = "sweep" if of_sweep else "recipe"
    values = {
        "run_folder": str(folder),
        "run_name": f"{group}/{folder.name}" if is_part else group,
        "run_group": group if is_part else None,
        "run_tags": [kind] if is_part else [],
        "wandb_id": _wandb_id(resumed),
    }
    for name, value in values.items():
        OmegaConf.register_new_resolver(name, lambda value=value: value, replace=True)
    OmegaConf.register_new_resolver("wandb_offline", _wandb_offline, replace=True)


def _wandb_id(resumed: str | None) -> str:
    """Return the id that W&B knows a run by: that of the run that is resumed, or else a new one."""
    if resumed:
        folder = Path(resumed) if Path(resumed).is_dir() else Path(resumed).absolute().parents[1]
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            record = read_json(folder / "record.json", "the record of a run")
            stored = str(record["config"]["logger"]["wandb"]["id"])
            if re.fullmatch("[a-z0-9]{4,64}", stored):
                return stored
    return uuid4().hex[:12]


def _wandb_offline() -> bool:
    """Say whether no account is set up: no key in the environment, none in ~/.netrc."""
    netrc = Path.home() / ".netrc"
    has_netrc_key = netrc.is_file() and "wandb" in netrc.read_text(
        encoding="utf-8", errors="replace"
    )
    mode = os.environ.get("WANDB_MODE")
    return mode == "offline" if mode else not (os.environ.get("WANDB_API_KEY") or has_netrc_key)


@contextmanager
def signal_handlers(handlers: Mapping[int, Any]) -> Iterator[None]:
    """Handle signals in this way and afterwards as before; in the main thread, where one may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_system_exit(number: int, frame: Any) -> None:
    """Handle a signal: end as if the program had been left, so that the record is written."""
    raise SystemExit(128 + number)


def close_wandb() -> None:
    """End the wandb run and its service, which else keeps the first run's settings.

    The next run starts its own, in this process or in one that inherits the environment.
    """
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()
        sys.modules["wandb"].teardown()
