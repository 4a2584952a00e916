"""The command line: help without torch, mistakes answered in one sentence."""

import subprocess
import sys

import pytest

from polylect.cli import PROGRAMS, run


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polylect.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_help_names_every_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {program}" in shown for program in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_of_a_program_needs_no_torch_and_shows_an_example(program: str) -> None:
    code = (
        "import sys, polylect.cli\n"
        f"try: polylect.cli.run([{program!r}, '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"  polylect {program}" in done.stdout
    assert "Examples:" in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("polylect 0.")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["trian"], "train"),
        (["train", "strategi=lora"], "strategy"),
        (["train", "strategy=lora_swich"], "lora_switch"),
        (["train", "strategy.rnk=3"], "strategy.rank"),
        (["train", "seeed=3"], "seed"),
        (["train", "seed=three"], "seed"),
        (["train", "trainer.max_stepz=3"], "trainer.max_steps"),
        (["train", "optim.optimizer.lrr=1"], "optim.optimizer.lr"),
        (["train", "+nonsense=1"], "nonsense"),
        (["train", "+strategy.nonsense=1"], "strategy.nonsense"),
        (["train", "strategy.rank=0"], "strategy.rank"),
        (["train", "data.directions=[en-xq]"], "xq"),
        (["translate", "run=nowhere"], "nowhere"),
        (["evaluate"], "run="),
    ],
)
def test_a_mistake_is_one_sentence_with_a_hint(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    runs = [f"runs={tmp_path}"] if arguments[0] in ("train", "evaluate") else []
    assert run([*arguments, *runs]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("polylect: ")
    assert hint in error.splitlines()[-1]
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) <= 2


def test_a_key_the_constructor_takes_needs_no_plus(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "strategy.rslora=true", "optim.optimizer.eps=1e-6", "--cfg", "job"]) == 0
    shown = capsys.readouterr().out
    assert "rslora: true" in shown
    assert "eps: 1.0e-06" in shown


def test_composed_configuration_is_printed_by_a_process() -> None:
    done = cli("train", "--cfg", "job", "strategy=lora")
    assert done.returncode == 0
    assert "adapters: shared" in done.stdout
