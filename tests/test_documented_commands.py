"""Every command that a README, a help or a comment shows is a whole and valid configuration."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.documented import ROOT, documented_commands, words
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from polylect.cli import PROGRAMS, _add_package_folders, _with_folders, run
from polylect.config.base_or_run import choose_strategy
from polylect.config.choices import groups_of
from polylect.config.folders import search_path
from polylect.config.overrides import resolve_overrides
from polylect.config.roots import conf_folder
from polylect.config.validation import validate
from polylect.programs import data, evaluate, verify
from polylect.programs.recipe import stages_of
from polylect.run.reuse.overrides import run_section_keys
from polylect.run.session import register_resolvers

COMMANDS = sorted({command for _, command in documented_commands()})
MINE = """
from polylect.strategies.lora_switch import LoRASwitch

class Strategy(LoRASwitch): pass
class Data:
    def __init__(self, **settings): ...
def load(path: str, dtype: str = "float32", attention: str | None = None): ...
"""
BEFORE_VALIDATION = {  # what programs settle themselves, such as data that are not scored
    "data": (data._leave_out_splits,),
    "evaluate": (choose_strategy, evaluate._check),
    "export": (choose_strategy,),
    "serve": (choose_strategy,),
    "translate": (choose_strategy,),
    "verify": (verify.settle,),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `polylect init` laid, and the package `mine` that some commands name."""
    folder = tmp_path_factory.mktemp("user") / "mine"
    assert run(["init", str(folder)]) == 0
    return folder


@pytest.fixture(autouse=True)
def package(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Commands are given in the project, where the package `mine` is another, of one file."""
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("mine", None)
    register_resolvers(tmp_path)
    yield
    sys.modules.pop("mine", None)


def check(program: str, arguments: list[str]) -> None:
    """Compose and validate each job of a command, and each stage where it is a recipe."""
    if program == "sweep":
        assert arguments[0] == "status" and len(arguments) == 2
        return
    assert program in PROGRAMS
    parser = get_args_parser()
    parser.add_argument("--config")
    args = parser.parse_intermixed_args(arguments)
    if args.help or args.config:  # prints, or takes the settings of a run that does not exist here
        return
    settings = [s for s in _with_folders(program, args.overrides) if not _is_of_plugin(s)]
    if args.config_dir:
        settings.insert(0, search_path(args.config_dir))
        _add_package_folders(settings)
    stored = None
    if any(s.startswith("run=") for s in settings) and run_section_keys(
        settings
    ):  # beside a run, as is the quick start's
        stored = OmegaConf.to_container(composed("train", []), resolve=False)
    overrides = resolve_overrides(program, settings, conf_folder(), stored)
    jobs = [overrides]
    if args.multirun:
        parsed = OverridesParser.create().parse_overrides(overrides)
        (jobs,) = BasicSweeper.split_arguments(parsed, None)
        assert len(jobs) > 1, "a sweep over one job"
    for job in jobs:
        cfg = composed(program, job)
        for settle in BEFORE_VALIDATION.get(program, ()):
            settle(cfg)
        validate(cfg)
        if program == "recipe":
            for stage in stages_of(cfg).values():
                filled = [o.replace("{", "").replace("}", "") for o in stage.overrides if "{" in o]
                plain = [o for o in stage.overrides if "{" not in o]
                resolve_overrides(stage.program, [*plain, *filled], conf_folder())


def _is_of_plugin(setting: str) -> bool:
    """Say whether a setting is of a launcher or sweeper, which need not be installed."""
    return setting.startswith(("hydra/launcher=", "hydra.launcher.", "hydra.sweep"))


def composed(program: str, overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose(program, overrides)


def test_the_documents_have_commands_of_every_program() -> None:
    files = {path for path, _ in documented_commands()}
    assert {"README.md", "experiments/kilt/README.md", "conf/train.yaml"} <= files
    assert {words(command)[0] for command in COMMANDS} == {*PROGRAMS, "sweep"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_is_valid(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "sweep=optuna" in command:
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="no hydra-optuna-sweeper")
    for name in ("BASE", "DATA", "INSTRUCT", "KILT"):
        monkeypatch.setenv(f"POLYLECT_{name}", "folder")
    program, *arguments = words(command)
    check(program, arguments)


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name != "pretrain"])
def test_help_lists_the_groups_that_the_program_takes(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run([program, "--help"])
    shown = capsys.readouterr().out
    choices = re.search(r"Choices \(group=choice\).*:\n(.*?)Settings", shown, re.DOTALL)
    if choices is None:
        assert not groups_of(program, conf_folder())
        return
    listed = {line.split(":")[0].strip() for line in choices[1].splitlines() if ":" in line}
    assert listed == groups_of(program, conf_folder())


SCRIPTS = [
    path
    for path in sorted(ROOT.glob("experiments/*/*.sh"))
    if "source experiments/tools/runs.sh" in path.read_text(encoding="utf-8")
]
"""Those that run programs; the others define shell functions, or call scripts alone."""
STUB = r"""#!/usr/bin/env bash
# Notes what it is called with, and leaves what a finished run leaves.
printf '%s\0' "${0##*/}" "$@" >> "$NOTES"; printf '\n' >> "$NOTES"
[ "${0##*/}" = polylect ] || exit 0
runs=runs name=$1
for argument in "${@:2}"; do
  case $argument in name=*) name=${argument#name=};; runs=*) runs=${argument#runs=};;
    recipe=*) name=${argument#recipe=};; esac
done
folder=$runs/$name/2026-01-01_00-00-00
mkdir -p "$folder/model" "$folder/adapters/en-de"
touch "$folder/neurons.safetensors"
echo '{
 "status": "done"
}' > "$folder/record.json"
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_gives_valid_commands(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script runs to its end on programs that only note what they are given."""
    experiments = tmp_path / "experiments"
    for path in ROOT.glob("experiments/*/*.sh"):
        copy = experiments / path.relative_to(ROOT / "experiments")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"))
    for name in ("polylect", "python"):
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(STUB)
        (tmp_path / "bin" / name).chmod(0o755)
    notes = tmp_path / "notes"
    environment = {name: "folder" for name in ("POLYLECT_BASE", "POLYLECT_DATA")}
    environment |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "NOTES": str(notes)}
    copy = experiments / script.relative_to(ROOT / "experiments")
    done = subprocess.run(
        ["bash", copy], env=os.environ | environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    calls = [line.split("\0")[:-1] for line in notes.read_text().splitlines()]
    ours = [call[1:] for call in calls if call[0] == "polylect"]
    assert ours
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for program, *arguments in ours:
        check(program, arguments)
    for _, tool, *_ in (call for call in calls if call[0] == "python"):
        assert (ROOT / tool).is_file(), tool
