"""`polylect SUBCOMMAND overrides…`: hands over to the program of that name.

Help, completion and `--cfg` work without importing torch: a program is imported when it runs.
"""

import os
import sys
import tempfile
from collections.abc import Sequence

# Threads that spin while they wait slow a small model tenfold as soon as another process runs.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Exceptions come to us, where a user's mistake becomes one sentence and a bug keeps its traceback.
os.environ["HYDRA_FULL_ERROR"] = "1"

PROGRAMS = {
    "train": "train on translation directions with a strategy, score, show translations",
    "evaluate": "score a run, a checkpoint or a base model on any data",
    "answer": "answer questions on articles with adapters of tasks and of articles, and score",
    "translate": "translate a file or standard input, line by line",
    "detect": "find the neurons that matter to each direction",
    "recipe": "run a method of several stages, such as detect and train",
    "library": "list, check, align, compare, add or remove the adapters of a folder",
    "pretrain": "make a small base model and its tokenizer from text",
}
USAGE = """polylect: one language model, many translation directions, no interference.

usage: polylect SUBCOMMAND [key=value …]

{programs}

polylect SUBCOMMAND --help         what can be set, with examples
polylect SUBCOMMAND --cfg job      the composed configuration
polylect --version                 the version
polylect train                     the quick start: needs no GPU, account, network or data"""


def main() -> None:
    """Entry point of the console script; exits 0, 1 (a bug or a failed run) or 2 (user's error)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one subcommand with its overrides and return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, PROGRAMS)) + 2
        print(USAGE.format(programs="\n".join(f"  {k:{width}}{v}" for k, v in PROGRAMS.items())))
        return 0
    if arguments[0] == "--version":
        from polylect import __version__

        print(f"polylect {__version__}")
        return 0
    program, rest = arguments[0], list(arguments[1:])
    if program not in PROGRAMS:
        from polylect.hints import nearest

        return _complain(f"polylect {program} does not exist; {nearest(program, list(PROGRAMS))}")
    return _guarded(program, rest)


def _guarded(program: str, arguments: list[str]) -> int:
    """Run the program; a mistake of the user's is one sentence on standard error."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from polylect.config import ConfigError

    try:
        return _hydra(program, arguments) or 0
    except KeyboardInterrupt:
        return 130
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if os.environ.get("POLYLECT_TRACEBACK"):
            raise
        return _complain(_sentence(error))
    except (ValueError, RuntimeError, FileNotFoundError, FileExistsError) as error:
        if _raised_by_us(error) and not os.environ.get("POLYLECT_TRACEBACK"):
            return _complain(str(error))
        raise


def _hydra(program: str, arguments: list[str]) -> int | None:
    from hydra import version
    from hydra._internal.utils import _run_hydra, get_args_parser

    from polylect.config import conf_folder
    from polylect.overrides import complete
    from polylect.sweep import task

    parser = get_args_parser()
    args = parser.parse_args(arguments)
    if not (args.hydra_help or args.shell_completion):
        args.overrides = complete(program, args.overrides, conf_folder())
    version.setbase("1.3")  # as hydra.main would
    codes: list[int] = []
    failures: list[Exception] = []
    job = task(program, list(args.overrides), codes, failures)
    with tempfile.TemporaryDirectory() as scratch:
        args.overrides.append(f"hydra.sweep.dir={scratch}")  # where Hydra puts its multirun.yaml
        _run_hydra(
            args=args,
            args_parser=parser,
            task_function=job,
            config_path=str(conf_folder()),
            config_name=program,
        )
    if failures:
        raise failures[0]
    return 1 if any(codes) else 0


def _sentence(error: BaseException) -> str:
    """What a user needs of an error that Hydra may have wrapped around that of a constructor."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    while isinstance(error, HydraException) and error.__cause__ is not None:
        error = error.__cause__
    key = getattr(error, "full_key", None)
    if type(error).__name__ == "MissingMandatoryValue":
        return f"config key {key} must be given, as in {key}=VALUE"
    if key:  # OmegaConf's message has lines for programmers
        return f"config key {key}: {str(error).splitlines()[0]}"
    if isinstance(error, ValueError | RuntimeError | OSError | HydraException):
        return str(error).strip()
    if isinstance(error, OmegaConfBaseException):
        return str(error).splitlines()[0]
    return f"{type(error).__name__}: {error} (POLYLECT_TRACEBACK=1 shows where)"


def _raised_by_us(error: BaseException) -> bool:
    """Whether the error was raised in this package: then it is a sentence meant for the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return name.split(".")[0] == "polylect"


def _complain(message: str) -> int:
    print(f"polylect: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
