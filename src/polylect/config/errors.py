"""Errors as one sentence on standard error, and an exit code."""

import errno
import os
import re
import sys
from collections.abc import Callable

from polylect.did_you_mean import did_you_mean


def exit_code(program: Callable[[], int | None]) -> int:
    """Run a program; a mistake of the user's is one sentence on standard error.

    Returns 2 for a mistake, 130 when interrupted, else what the program returns. A bug raises what
    it raised; with POLYLECT_TRACEBACK in the environment, so does a mistake.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from polylect.config.roots import ConfigError

    try:
        return program() or 0
    except KeyboardInterrupt:
        return 130
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if os.environ.get("POLYLECT_TRACEBACK"):
            raise
        return complain(_sentence(error))
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("POLYLECT_TRACEBACK"):
            raise
        if isinstance(error, OSError) and error.errno is not None:
            return _system_error(error)
        if not isinstance(error, OSError) and not is_own_error(error):
            raise
        return complain(str(error))


def _system_error(error: OSError) -> int:
    """Return a sentence on what the system refuses, such as a full disk or an unreadable folder."""
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EPIPE, errno.EDQUOT):
        # Python would complain again when it flushes what is left at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:  # whoever read it has had enough
            return 0
        return complain(f"what was to be printed or written cannot be: {error.strerror}.")
    return complain(_message_of(error))


def _message_of(error: Exception) -> str:
    """Return the message of an error; of a system error, what is wrong with which file."""
    if isinstance(error, OSError) and error.strerror:
        files = " and ".join(str(f) for f in (error.filename, error.filename2) if f is not None)
        return f"{files or 'a file or device'} cannot be used: {error.strerror}."
    return str(error)


def _sentence(error: BaseException) -> str:
    """Return what a user needs of an error, which Hydra may have wrapped around a constructor's."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    while isinstance(error, HydraException) and error.__cause__ is not None:
        error = error.__cause__
    key = getattr(error, "full_key", None)
    if type(error).__name__ == "MissingMandatoryValue":
        return f"config key {key} must be given, as in {key}=VALUE"
    if key:  # OmegaConf's message has lines for programmers
        return f"config key {key}{_reworded(str(error).splitlines()[0], key)}"
    if match := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'\n", str(error)):
        key, value = match.groups()
        return (
            f"{key}={value} is several values: type {key}=[{value}] for a list, "
            f"\"{key}='{value}'\" for one text with commas, or -m before it for a run with each."
        )
    if match := re.search(r"Could not find 'hydra/(launcher|sweeper)/(\w+)'", str(error)):
        kind, name = match.groups()
        if name not in _PLUGINS:
            return f"hydra/{kind}={name} does not exist; {did_you_mean(name, _PLUGINS)}"
        return f"hydra/{kind}={name} is not installed: pip install {_PLUGINS[name]}."
    if re.search(r"Could not find '[^']*/'", str(error)):  # Hydra lists where it looked
        return "a group needs a choice, as in optim=adamw: leave out what ends in '='."
    if isinstance(error, ValueError | RuntimeError | OSError | HydraException):
        return _message_of(error).strip()
    if isinstance(error, OmegaConfBaseException):
        return str(error).splitlines()[0]
    return f"{type(error).__name__}: {error} (POLYLECT_TRACEBACK=1 shows where)"


_PLUGINS = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
    "optuna": "hydra-optuna-sweeper",
}
"""The packages of Hydra's launchers and sweepers."""

# What OmegaConf says of a value, as it is put to a user; {key} is its key.
_OMEGACONF = {
    r"Cannot convert '(?:list|dict)' to string: '(.+)'": (
        r" must be one text, got \1: give {key}=TEXT."
    ),
    r"Value (.+) of type .+ could not be converted to Integer": r" must be of type int, got \1.",
    r"Value (.+) of type .+ could not be converted to Float": r" must be a number, got \1.",
    r"Value (.+) is not a valid bool.*": r" must be true or false, got \1.",
    r"Cannot merge DictConfig with ListConfig": " must be a list, as in {key}=[…].",
    r"Invalid value assigned: .* is not a ListConfig.*": " must be a list, as in {key}=[…].",
    r"Key '(.+)' is not in struct": (
        " does not exist here: first choose what it is a setting of, as in data=files."
    ),
    r"KeyError raised .*Environment variable '(.+)' not found.*": (
        r" needs the environment variable \1: set it, as in export \1=FOLDER."
    ),
}


def _reworded(message: str, key: str) -> str:
    for pattern, words in _OMEGACONF.items():
        if (match := re.fullmatch(pattern, message)) is not None:
            return match.expand(words).replace("{key}", key)
    return f": {message}"


def is_own_error(error: BaseException) -> bool:
    """Return whether this package raised the error: then it is a sentence meant for the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return name.split(".")[0] == "polylect"


def complain(message: str) -> int:
    """Say what is wrong on standard error; returns the exit code 2."""
    print(f"polylect: {message}", file=sys.stderr)
    return 2
