"""`config=`, `resume=`, `init_from=`: settings of a run before, and which of them may change."""

import copy
import inspect
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import reduce
from operator import getitem
from pathlib import Path, PurePath
from shlex import quote
from textwrap import shorten
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from polylect.config.roots import ConfigError, plain
from polylect.config.validation import target_parameters
from polylect.run.reuse.stored_config import read_config, stored_config

CONTINUED = (
    "name", "seed", "evaluate", "evaluate_base", "metrics", "model", "data", "strategy", "optim",
    "trainer", "callbacks", "generation", "memory",
)  # fmt: skip
"""What a run takes from the one that it goes on with. Where it writes and what it logs to is said
by the command alone, so that a stored configuration decides neither."""

MAY_CHANGE = (
    "name",
    "evaluate",
    "evaluate_base",
    "metrics",
    "generation*",
    "model.path",  # the fingerprint says whether it is the same base
    "model.revision",
    "model.attention",
    "model.gradient_checkpointing",
    "data.root",  # the hash of the training text says whether it is the same
    "data.train*",
    "data.test*",
    "data.num_workers",
    "data.cache",  # what it holds is the text whose hash is looked at
    "data.processes",
    "strategy.validate_translations",
    "trainer.max_*",
    "trainer.min_*",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy*",
    "trainer.val_check_interval",
    "trainer.check_val_every_n_epoch",
    "trainer.limit_val_batches",
    "trainer.limit_test_batches",
    "trainer.num_sanity_val_steps",
    "trainer.log_every_n_steps",
    "trainer.enable_*",
    "trainer.profiler",
    "callbacks.*.dirpath",
    "callbacks.*.verbose",
)
"""Settings that a resumed run may have otherwise. All others shape what is learnt: of some the old
value would go on and of others the new one, and neither would be said."""

_PLACES = ("dirpath", "filename")  # of a callback: where it writes
_ABSENT = object()


def config_file(run: str | Path) -> Path:
    """Return the configuration of a run: the file itself, or that of the folder.

    Raises FileNotFoundError.
    """
    path = Path(run)
    path = path / "config.yaml" if path.is_dir() else path
    if not run or not path.is_file():
        raise FileNotFoundError(
            f"config={run} is neither a run folder with a config.yaml nor such a file."
        )
    return path


def repeat_config(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration of the run that `cfg.config` names, changed by the overrides.

    Raises as `resume_config`, and FileNotFoundError where there is no such configuration.
    """
    path = config_file(cfg.config)
    return resume_config(cfg, read_config(path), path, overrides, (*CONTINUED, "init_from"))


def resume_config(
    cfg: DictConfig,
    values: Mapping[str, Any],
    path: Path,
    overrides: Sequence[str],
    sections: Collection[str] = CONTINUED,
) -> DictConfig:
    """Return the configuration of the run that goes on, and on top what the command line gives.

    Args:
        cfg: as composed from the files and the command line.
        values: the configuration of the run, and the path of the file that holds it.
        overrides: those of the command line. Where one chooses an experiment, which may set
            anything, all of `cfg` counts as given.
        sections: of the configuration, that are taken from the run.

    Raises:
        ConfigError: the stored configuration names an object that is on no list, or a folder
            outside that of the runs.
    """
    if "experiment" in _override_keys(overrides):
        return cfg
    how = f"--config {quote(cfg.config)}" if cfg.config else quote(f"resume={cfg.resume}")
    stored = stored_config(values, path, sections, cfg.packages, f"polylect train {how}")
    folder = PurePath(str(stored.get("name")))
    if folder.is_absolute() or ".." in folder.parts:
        raise ConfigError(f"{path}: name is {folder}, which leads out of the folder of the runs.")
    return lay_over(cfg, stored, overrides, sections)


def _override_keys(overrides: Sequence[str]) -> dict[str, bool]:
    """Return the keys of overrides, and whether each one is a deletion."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {override.key_or_group.split("@")[0]: override.is_delete() for override in parsed}


def lay_over(
    cfg: DictConfig, stored: DictConfig, overrides: Sequence[str], sections: Collection[str]
) -> DictConfig:
    """Return `cfg` with these sections of a stored configuration, and the command line's on top.

    Arguments are those of `resume_config`.
    """
    new = copy.deepcopy(cfg)
    OmegaConf.set_struct(new, False)
    for key in sections:
        if key in stored:
            new[key] = stored[key]
    values_given = OmegaConf.to_container(cfg, resolve=False)  # the run folder is not known yet
    if "callbacks" in sections:
        _put_in_place(new, values_given)
    for key, deleted in _override_keys(overrides).items():
        above, _, name = key.rpartition(".")
        if key.split(".")[0] not in sections:
            continue
        if not deleted:
            value = reduce(getitem, key.split("."), values_given)
            OmegaConf.update(new, key, value, merge=False, force_add=True)
        elif OmegaConf.is_dict(node := OmegaConf.select(new, above)):
            node.pop(name, None)
    return new


def _put_in_place(new: DictConfig, values: Mapping[str, Any]) -> None:
    """Set where the callbacks of the earlier run write: the paths are the command's."""
    for name, node in (new.callbacks or {}).items():
        here = (values["callbacks"] or {}).get(name) or {}
        for place in _PLACES if node else ():
            node.pop(place, None)
            if place in here:
                node[place] = here[place]


def stored_values(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration in a checkpoint, as plain values that nobody has checked."""
    return checkpoint["polylect"]["about"]["config"]


def check_unchanged(checkpoint: Mapping[str, Any], cfg: DictConfig) -> None:
    """Compare every setting of the configuration with that of the checkpoint that it goes on from.

    Callbacks that only one of them has may come and go. Fewer processes may accumulate more batches
    and the other way round, so that a step learns from as many.

    Raises:
        ConfigError: one has changed that may not; each is named with its old and new value.
    """
    parts = (stored_values(checkpoint), cfg)
    old, new = ({key: plain(part.get(key)) for key in CONTINUED} for part in parts)
    before, after = (part.pop("callbacks") or {} for part in (old, new))
    for name in before.keys() & after.keys():
        if before[name] and after[name]:
            old[f"callbacks.{name}"], new[f"callbacks.{name}"] = before[name], after[name]
    free = [*MAY_CHANGE]
    if _batches_per_step(old["trainer"]) == _batches_per_step(new["trainer"]):
        free.append("trainer.accumulate_grad_batches")
    if changes := describe_differences(old, new, free):
        raise ConfigError(
            f"resume={cfg.resume} goes on with the settings it was begun with, but {changes}: "
            "leave that out, or begin a new run from its weights with init_from."
        )


def _batches_per_step(trainer: Mapping[str, Any]) -> Any:
    """Return how many batches of all processes an optimizer step learns from; None if not known."""
    devices = trainer.get("devices", 1)
    count = len(devices) if isinstance(devices, list) else devices
    factors = (count, trainer.get("num_nodes", 1), trainer.get("accumulate_grad_batches", 1))
    return math.prod(factors) if all(isinstance(f, int) and f > 0 for f in factors) else None


def check_stage(module: Any, checkpoint: Mapping[str, Any], path: Path) -> None:
    """Compare the settings of a strategy with those that the weights of a stage were trained with.

    Of another strategy, those that both have.

    Raises:
        ConfigError: one has changed that says what the weights compute.
    """
    new = module.about["config"]["strategy"]
    old = stored_values(checkpoint).get("strategy")
    if not isinstance(old, dict) or old.get("_target_") != new["_target_"]:
        both = (old.keys() & new.keys()) - {"_target_"} if isinstance(old, dict) else set()
        old, new = ({key: one[key] for key in both} for one in (old, new))
    free = [f"strategy.{key}" for key in module.between_stages]
    if changes := describe_differences({"strategy": old}, {"strategy": new}, free):
        raise ConfigError(f"the weights of {path} mean something else here, since {changes}.")


def describe_differences(
    old: Mapping[str, Any], new: Mapping[str, Any], but: Collection[str] = ()
) -> str:
    """Return each setting that differs, unless it fits a pattern of `but`, as a clause.

    It is empty if none differs.
    """
    return ", ".join(
        f"{key} was {_short_text(before)} and is {_short_text(after)}"
        for key, before, after in differences(old, new)
        if not any(fnmatchcase(key, pattern) for pattern in but)
    )


def _short_text(value: Any) -> str:
    return "not given" if value is _ABSENT else shorten(str(value), 80)


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield settings with other values, as (config path, old, new).

    A setting that one side does not have counts as what its target takes by default.
    """
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        if _lists(old) != _lists(new):
            yield path, old, new
        return
    name, other = old.get("_target_"), new.get("_target_")
    if name != other:
        yield f"{path}._target_", name, other
        return
    default = _defaults(new) if name else {}
    for key in {**old, **new}:
        absent = default.get(key, _ABSENT)
        where = f"{path}.{key}" if path else str(key)
        yield from differences(old.get(key, absent), new.get(key, absent), where)


def _defaults(node: Mapping[str, Any]) -> dict[str, Any]:
    parameters = target_parameters(node)
    empty = inspect.Parameter.empty
    return {key: p.default for key, p in parameters.items() if p.default is not empty}


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, list | tuple) else value
