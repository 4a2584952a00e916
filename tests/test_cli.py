"""The command line: help without torch, mistakes answered in one sentence."""

import subprocess
import sys

import pytest

from polylect.cli import PROGRAMS, run


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "polylect.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_help_names_every_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {program}" in shown for program in PROGRAMS)


# Hydra takes a second to list the choices, so only the first help does.
HELPS = """
import sys, polylect.cli
from hydra._internal.hydra import Hydra
for program in polylect.cli.PROGRAMS:
    try: polylect.cli.run([program, "--help"])
    except SystemExit: pass
    print("torch imported" if "torch" in sys.modules else "END OF HELP")
    Hydra.format_config_groups = lambda *_, **__: ""
"""


def test_help_of_a_program_needs_no_torch_and_shows_an_example() -> None:
    done = subprocess.run([sys.executable, "-c", HELPS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "torch imported" not in done.stdout
    shown = done.stdout.split("END OF HELP\n")[:-1]
    for program, text in zip(PROGRAMS, shown, strict=True):
        assert f"  polylect {program}" in text
        assert "Examples:" in text
    (strategies,) = [line for line in shown[0].splitlines() if line.startswith("strategy: ")]
    assert "lora_switch" in strategies


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


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied", "a/b"), "a/b cannot be used: Permission denied."),
        (OSError(28, "No space left on device", "x"), "x cannot be used: No space left on device."),
    ],
)
def test_what_the_system_refuses_is_a_sentence(
    error: OSError,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main(cfg: object) -> None:
        raise error

    monkeypatch.setattr("polylect.programs.evaluate.main", main)
    assert run(["evaluate"]) == 2
    assert capsys.readouterr().err == f"polylect: {sentence}\n"


def test_standard_output_that_is_full_is_a_sentence() -> None:
    """In a process of its own, as Python itself would complain at its end."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "polylect.cli", "evaluate", "run=nowhere"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=600,
        )
    sentence = "polylect: what was to be printed or written cannot be: No space left on device.\n"
    assert (done.returncode, done.stderr) == (2, sentence)
