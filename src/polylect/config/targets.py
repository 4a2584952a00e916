"""The Python objects that a configuration may name, and the one call that makes them.

`_target_` runs whatever it names. What may stand there is a closed list for each section: what our
own files in `conf` name for it; in what a user types also the optimizers, loggers and callbacks of
torch and Lightning; and all that is defined in the packages that the user names, as in
packages=[mine].
"""

import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException

from polylect.config.errors import is_own_error
from polylect.config.roots import ConfigError, conf_folder, plain
from polylect.did_you_mean import did_you_mean

_FAMILIES = {
    "optim": ("torch.optim",),
    "logger": ("lightning.pytorch.loggers",),
    "callbacks": ("lightning.pytorch.callbacks",),
}
"""Packages for what a user types; a stored configuration may not name them by itself."""

_WITHOUT_FOLDER = {
    "memory": {"polylect.retrieval.memory.Memory"},
    "base": {"polylect.models.pretraining.pretrain"},
}
_HOW = ("_target_", "_partial_", "_recursive_", "_convert_")
_WHITELIST = "_execution_whitelist_"  # hydra-core 1.4 and later check, too


def instantiate(node: Any, section: str, packages: Sequence[str] = (), **keywords: Any) -> Any:
    """Return what the node of a section ("model", "data", …) describes; None for None.

    Args:
        packages: the user's own, whose objects may be named.
        keywords: arguments beside those of the node, and Hydra's `_partial_` and `_convert_`.

    Raises:
        ConfigError: the node names what it may not, or what it names refused its arguments.
    """
    node = plain(node)  # what is checked is what runs: no interpolation is left to change it
    if mistakes := list(target_mistakes(node, section, section, packages)):
        raise ConfigError("\n".join(mistakes))
    if _WHITELIST in inspect.signature(hydra.utils.instantiate).parameters:
        prefixes = (*_FAMILIES.get(section, ()), *packages)
        keywords[_WHITELIST] = [*known_targets(section), *(f"{prefix}.*" for prefix in prefixes)]
    try:
        return hydra.utils.instantiate(node, **keywords)
    except (ConfigError, OmegaConfBaseException):
        raise
    except Exception as error:
        wrapped = isinstance(error, InstantiationException) and error.__cause__
        cause = error.__cause__ if wrapped else error
        raise ConfigError(_sentence(cause, section)) from cause


def _sentence(error: BaseException, section: str) -> str:
    """Return a constructor's error as a sentence; the section is added where it is not our own."""
    text = " ".join(str(error).split())
    if is_own_error(error):
        return text
    if isinstance(error, ValueError | RuntimeError | OSError | ImportError):
        return f"{section}: {text}"
    if isinstance(error, InstantiationException) or "Misconfiguration" in type(error).__name__:
        return f"{section}: {text}"
    return f"{section}: {type(error).__name__}: {text} (POLYLECT_TRACEBACK=1 shows where)"


@cache
def known_targets(section: str) -> frozenset[str]:
    """Return what the files of `conf` name for a section."""
    names = set(_WITHOUT_FOLDER.get(section, ()))
    for path in (conf_folder() / section).rglob("*.yaml"):
        names |= set(re.findall(r"\b_target_: *([\w.]+)", path.read_text(encoding="utf-8")))
    return frozenset(names)


def check_packages(packages: Sequence[str]) -> None:
    """Raises ConfigError where one cannot be a package of the user's own."""
    if isinstance(packages, str) or not all(re.fullmatch(r"\w+(\.\w+)*", p) for p in packages):
        raise ConfigError(f"packages={packages} is no list of packages: write packages=[mine].")
    for package in packages:
        top = package.split(".")[0]
        if top == "polylect" or top in sys.stdlib_module_names:
            raise ConfigError(
                f"packages={package} is no package of your own: a configuration could then call "
                "anything that is in it."
            )
        if not _is_there(package):
            raise ConfigError(
                f"packages={package} is not to be found: install it, or name the folder that it "
                "lies in, as in PYTHONPATH=FOLDER."
            )


def _is_there(package: str) -> bool:
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def target_mistakes(
    node: Any, path: str, section: str, packages: Sequence[str] = (), *, stored: str | None = None
) -> Iterator[str]:
    """Yield a sentence for each `_target_` at or below the node that may not stand there.

    Args:
        node: plain values, interpolations resolved.
        path: of the node in the configuration, for the sentences.
        stored: how the user has it read, as a command, if a file holds the configuration and the
            user did not type it.
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            where = f"{path}.{key}"
            if key == "_target_":
                if reason := _refusal(value, section, packages, stored):
                    yield f"config key {where} names {value}, {reason}"
            elif re.fullmatch(r"_\w+_", str(key)) and key not in _HOW:
                yield f"config key {where} does not exist: arguments are given by their names"
            else:
                yield from target_mistakes(value, where, section, packages, stored=stored)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            where = f"{path}[{index}]"
            yield from target_mistakes(value, where, section, packages, stored=stored)


def _refusal(name: Any, section: str, packages: Sequence[str], stored: str | None) -> str | None:
    """Return why a target may not stand in a section, as a clause; None where it may."""
    targets = known_targets(section)
    if not isinstance(name, str):
        return "which is no name"
    if name in targets or name == "???":  # what is missing is another mistake
        return None
    for package in (*packages, *(() if stored else _FAMILIES.get(section, ()))):
        if name.startswith(f"{package}."):
            return _foreign_definition(name, package)
    if name.startswith("polylect."):
        return f"which is not for {section}; {did_you_mean(name, targets)}"
    package = package_of(name, section)
    how = f"name the package, as in packages=[{package}]"
    if stored:
        how = f"which a file cannot ask for by itself, type {stored} 'packages=[{package}]'"
    return f"which is not on the list for {section}: if you trust all that is in its package, {how}"


def package_of(name: str, section: str) -> str:
    """Return the package that is to be named so that a section may name the object."""
    families = (f for f in _FAMILIES.get(section, ()) if name.startswith(f"{f}."))
    return next(families, name.split(".")[0])


def _foreign_definition(name: str, package: str) -> str | None:
    """Return why a target is not of the package, as a clause: `mine.os.system` is the system's."""
    try:
        value = locate(name)
    except ConfigError as error:
        return f"which {str(error).split(' ', 1)[1]}"
    module = getattr(value, "__module__", None) or type(value).__module__
    if module == package or module.startswith(f"{package}."):
        return None
    return f"which is not defined in the package {package} but in {module}"


def locate(name: str) -> Any:
    """Return the object of that path; raises ConfigError where it cannot be imported.

    Importing a module runs it: the path must be one that may be named.
    """
    logging.getLogger("hydra.utils").disabled = True  # it would print what is raised as well
    try:
        return hydra.utils.get_object(name)
    except Exception as error:
        reason = " ".join(str(error).split())  # Hydra's has several lines
        raise ConfigError(f"{name} cannot be imported: {reason}") from error
