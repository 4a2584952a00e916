"""Each mistake gets one clear sentence, quickly, and leaves nothing behind."""

import re
import shlex
from pathlib import Path

import pytest
from helpers import bad_files, bad_inputs

from polylect.cli import run

MACROS = {
    "train": ["train", *bad_inputs.TRAIN.split()],
    "own": ["train", *bad_inputs.OWN_MODEL.split()],
    "add": ["add-language", *bad_inputs.ADD.split()],
    "tongues": ["train", *bad_inputs.TONGUES.split()],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    bad_files.make(folder, tiny_run)
    return folder


def arguments(command: str) -> list[str]:
    """What a shell hands over; what is set twice counts the last time."""
    first, *rest = split(command)
    settings = {a.partition("=")[0]: a for a in [*MACROS.get(first, [first])[1:], *rest]}
    return [MACROS.get(first, [first])[0], *settings.values()]


def split(command: str) -> list[str]:
    """As a shell would, with an apostrophe within a word taken as it is."""
    return [
        word.replace("\0", "'") for word in shlex.split(re.sub(r"(?<=\w)'(?=\w)", "\0", command))
    ]


def check(command: str, sentence: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(place)
    code = run(arguments(command))
    output, error = capsys.readouterr()
    assert code == 2, output + error
    lines = [line for line in error.splitlines() if line.startswith("polylect: ")]
    assert len(lines) == 1 and error.splitlines()[-1] == lines[0], error
    assert re.search(sentence, lines[0]), lines[0]
    assert "Traceback" not in error + output
    assert "POLYLECT_TRACEBACK" not in lines[0], "an error that is not foreseen"
    assert files(place) == before


def files(place: Path) -> list[Path]:
    """All there is, but for the aligned forms that a library keeps beside its adapters."""
    return sorted(p for p in place.rglob("*") if p.name != "aligned.safetensors")


FAST = [
    *bad_inputs.SETTINGS,
    *bad_inputs.ADDED,
    *bad_inputs.EXPORTED,
    *bad_inputs.EMPTIES,
    *bad_inputs.DIRECTIONS,
    *bad_inputs.PLACES,
]
SLOW = [*bad_inputs.FILES, *bad_inputs.MODELS]  # of what reads them there are quick tests, too


@pytest.mark.parametrize(
    ("command", "sentence"), [*FAST, *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW)]
)
def test_a_mistake_gets_one_clear_sentence(
    command: str,
    sentence: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(place)
    check(command, sentence, place, capsys)
