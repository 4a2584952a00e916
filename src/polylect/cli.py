"""`polylect SUBCOMMAND overrides…`: hands over to the program of that name.

Help, completion and `--cfg` work without importing torch: a program is imported when it runs.
"""

import argparse
import os
import sys
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

# Threads that spin while they wait slow a small model tenfold as soon as another process runs.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Exceptions come to us, where a user's mistake becomes one sentence and a bug keeps its traceback.
os.environ["HYDRA_FULL_ERROR"] = "1"

PROGRAMS = {
    "train": "train on translation directions with a strategy, score, show translations",
    "evaluate": "score a run, a checkpoint or a base model on any data",
    "compare": "put the scores of several runs beside each other, with significance tests",
    "report": "write one page on runs, sweeps and recipes: scores, curves, translations",
    "answer": "answer questions on articles with adapters of tasks and of articles, and score",
    "data": "report on data without training: what is read, dropped, too long, left",
    "translate": "translate a file or standard input, line by line",
    "serve": "answer requests over HTTP, as OpenAI's API too, with a page to translate on",
    "export": "write what was trained as a plain model, adapters or rows, and check it",
    "verify": "show that a run, adapter, model or server is what its passport says",
    "detect": "find the neurons that matter to each direction",
    "recipe": "run a method of several stages, such as detect and train",
    "library": "look after the adapters of a folder: list, check, align, compare and more",
    "add-language": "train the adapter of a language more, beside a library that stays as it is",
    "trim": "cut the vocabulary of a base model down to what given text needs",
    "pretrain": "make a small base model and its tokenizer from text",
    "init": "lay a project of your own: configurations, a class, example data",
}
USAGE = """polylect: one language model, many translation directions, no interference.

usage: polylect SUBCOMMAND [key=value …]

{programs}

polylect SUBCOMMAND --help         what can be set, with examples
polylect SUBCOMMAND --cfg job      the composed configuration
polylect sweep status FOLDER       what has come of the jobs of a sweep (-m)
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
    from polylect.config.errors import complain, exit_code

    program, rest = arguments[0], list(arguments[1:])
    if program == "sweep":
        from polylect.run.sweep.folder import show_status

        return exit_code(partial(show_status, rest))
    if program not in PROGRAMS:
        from polylect.did_you_mean import did_you_mean

        return complain(
            f"polylect {program} does not exist; {did_you_mean(program, list(PROGRAMS))}"
        )
    return (
        complain(wrong)
        if (wrong := _not_together(program, rest))
        else exit_code(partial(_hydra, program, rest))
    )


TOGETHER = ("train", "evaluate", "translate", "detect")
"""The programs that several processes run together."""


def _not_together(program: str, arguments: Sequence[str]) -> str | None:
    """Return a sentence where torchrun or srun has started what is for one process, else None."""
    from polylect.run.processes.group import started_together

    swept = any(text in ("-m", "--multirun") for text in arguments)
    if started_together() == 1 or (program in TOGETHER and not swept):
        return None
    return (
        f"polylect {program}{' -m' if swept else ''} is one process, and torchrun or srun has "
        f"started {started_together()}: start it without them."
    )


def _stored_config(program: str, overrides: Sequence[str]) -> dict | None:
    """Return the configuration of the run that a command resumes, repeats or uses; None if none."""
    if program == "train":
        return _continued_config(overrides)
    from polylect.run.reuse.overrides import run_section_keys, stored_sections

    runs = [o.removeprefix("run=").strip("'\"") for o in overrides if o.startswith("run=")]
    if not runs or runs[-1] in ("", "null") or not run_section_keys(overrides):
        return None
    return stored_sections(runs[-1])[0]


def _continued_config(overrides: Sequence[str]) -> dict | None:
    """Return the configuration of the run that `config` or `resume` names; None without a file."""
    from polylect.run.reuse.resume import config_file
    from polylect.run.reuse.stored_config import read_config

    named = dict(o.split("=", 1) for o in overrides if o.startswith(("config=", "resume=")))
    for name, run in named.items():
        run = run.strip("'\"")
        if name == "resume" and run.endswith(".ckpt"):
            run = str(Path(run).parents[1])
        has_file = (Path(run) / "config.yaml").is_file()
        if has_file or (name == "config" and run != "null"):
            return read_config(config_file(run))
    return None


_ONE_FOLDER = {"init": "folder", "verify": "target"}
"""The setting that a folder alone means, of programs that take one."""

_FOLDERS = {"compare": "systems", "report": "folders"}
"""The same, of programs that take several."""


def _with_folders(program: str, overrides: Sequence[str]) -> list[str]:
    """Return the overrides with bare folders, as in `polylect compare RUN RUN`, as settings.

    Those of a sweep have "=" in their names.
    """
    folders = [t for t in overrides if not t.startswith("~") and ("=" not in t or os.path.isdir(t))]
    if program not in (*_ONE_FOLDER, *_FOLDERS) or not folders:
        return list(overrides)
    rest = [text for text in overrides if text not in folders]
    if program in _ONE_FOLDER:
        if len(folders) > 1:
            from polylect.config.roots import ConfigError

            raise ConfigError(f"polylect {program} takes one folder, got {' and '.join(folders)}.")
        return [*(f"{_ONE_FOLDER[program]}={_quote(folder)}" for folder in folders), *rest]
    return [f"{_FOLDERS[program]}=[{', '.join(map(_quote, folders))}]", *rest]


def _quote(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.double).with_quotes()


def _hydra(program: str, arguments: list[str]) -> int | None:
    from hydra import version
    from hydra._internal.utils import _run_hydra, get_args_parser

    from polylect.config.choices import groups_of
    from polylect.config.folders import search_path
    from polylect.config.overrides import resolve_overrides
    from polylect.config.roots import conf_folder
    from polylect.run.sweep.folder import close_sweeps
    from polylect.run.sweep.job import HydraJob

    parser = get_args_parser()
    parser.error = partial(_refuse_arguments, program)
    if program == "train":
        parser.add_argument("--config", metavar="RUN", help="run folder: make that run again")
    args = parser.parse_intermixed_args(arguments)
    if args.help:
        _list_only(groups_of(program, conf_folder()))
    args.overrides = _with_folders(program, args.overrides)
    if (repeated := getattr(args, "config", None)) is not None:
        args.overrides.append(f"config={_quote(repeated)}")
    if args.config_dir is not None:
        args.overrides.insert(0, search_path(args.config_dir))
        args.config_dir = None
    _add_package_folders(args.overrides)
    if args.cfg is not None:
        _check_shown(args)
    if not (args.hydra_help or args.shell_completion):
        stored = _stored_config(program, args.overrides)
        args.overrides = resolve_overrides(program, args.overrides, conf_folder(), stored)
    version.setbase("1.3")  # as hydra.main would
    job = HydraJob(program, list(args.overrides))
    if args.help:
        _show_choices(args.overrides)
    try:
        _run_hydra(
            args=args,
            args_parser=parser,
            task_function=job,
            config_path=str(conf_folder()),
            config_name=program,
        )
    except ValueError as error:
        if not str(error).startswith("No trials are completed"):
            raise  # else Optuna looks for the best trial where all have failed
    finally:
        failed = close_sweeps()
    if job.failures:
        raise job.failures[0]
    return 1 if failed or any(job.codes) else 0


def _add_package_folders(overrides: Sequence[str]) -> None:
    """Let packages beside the user's configuration folders be imported, as for packages=[mine]."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from polylect.config.folders import folders_of

    search_paths = [o for o in overrides if o.startswith("hydra.searchpath=")]
    for folder in folders_of(OverridesParser.create().parse_overrides(search_paths)):
        if (parent := str(folder.absolute().parent)) not in sys.path:
            sys.path.append(parent)  # last, so that it hides nothing


def _check_shown(args: argparse.Namespace) -> None:
    """Raise ConfigError for `--cfg` with `-m`; else let the run folder be shown as "RUN"."""
    from polylect.config.roots import ConfigError
    from polylect.run.session import register_resolvers

    if args.multirun:
        raise ConfigError(
            f"--cfg {args.cfg} shows the configuration of one run: leave -m out and give each "
            "setting that is swept over one value."
        )
    register_resolvers(Path("RUN"))


def _refuse_arguments(program: str, message: str) -> NoReturn:
    from polylect.config.roots import ConfigError

    raise ConfigError(f"{message}; see `polylect {program} --help`.")


def _list_only(groups: Collection[str]) -> None:
    """Let help show these groups of `conf` instead of all."""
    from hydra._internal.hydra import Hydra

    Hydra.list_all_config_groups = lambda hydra, parent="": sorted(groups)


def _show_choices(overrides: Sequence[str]) -> None:
    """Print the YAML file of each group choice, whose comments say what its keys do."""
    from polylect.config.roots import conf_folder

    for override in overrides:
        group, _, choice = override.partition("=")
        file = conf_folder() / group / f"{choice}.yaml"
        if file.is_file():
            print(f"{override}:\n\n{file.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
