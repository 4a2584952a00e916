"""What a training prints: plain lines in a pipe, a bar on a terminal."""

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from helpers.tiny import TRAIN, config

from polylect.programs.train import main
from polylect.run.monitor.progress import clock, losses
from polylect.run.results.scoring import _best_first

SETTINGS = [setting for setting in TRAIN if "progress_bar" not in setting]


def on_a_terminal(command: list[str]) -> str:
    """What a command writes where standard output and errors are a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 200))  # a bar has no room on a terminal without a size
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    chunks = []
    with os.fdopen(ours, "rb", buffering=0) as file:
        try:
            while chunk := file.read(65536):
                chunks.append(chunk)
        except OSError:  # how Linux says that the other side is closed
            pass
    assert process.wait() == 0
    return b"".join(chunks).decode()


@pytest.mark.slow
def test_a_pipe_gets_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(config("train", *SETTINGS, f"runs={tmp_path}"))
    shown, errors = capsys.readouterr()
    lines = shown.splitlines()
    steps = [line for line in lines if re.match(r"step \d+/6 ", line)]
    assert len(steps) == 6
    for line in steps[1:]:
        assert re.search(
            r"  loss \d\.\d{3}  en-de \d\.\d{3}  en-fr \d\.\d{3}  lr \d\.\de[-+]\d\d", line
        )
        assert re.search(r"tokens/s [\d,]+", line)
    assert all(re.search(r"left \d+:\d\d$", line) for line in steps[:-1])
    assert "left" not in steps[-1]
    validations = [line for line in lines if "val/loss" in line]
    assert [re.match(r"step (\d+)  val/loss", line)[1] for line in validations] == ["2", "4", "6"]
    assert all(re.search(r"en-de \d\.\d{3}, en-fr \d\.\d{3}$", line) for line in validations)
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", shown + errors), "no control codes"


@pytest.mark.slow
def test_a_terminal_gets_a_bar_and_a_line_for_each_validation(tmp_path: Path) -> None:
    shown = on_a_terminal(
        [sys.executable, "-m", "polylect.cli", "train", *SETTINGS, f"runs={tmp_path}"]
    )
    assert re.search(r"training:.*6/6 .*loss=\d\.\d{3}.*en-fr=\d\.\d{3}.*lr=", shown)
    assert "v_num" not in shown and "train/loss" not in shown
    assert len(re.findall(r"step \d  val/loss", shown)) == 3


def test_of_many_directions_the_lowest_and_the_highest_are_shown() -> None:
    means = {f"en-{i}": float(i) for i in range(1, 10)}
    assert losses(means) == {"loss": "5.000", "lowest": "1.000 en-1", "highest": "9.000 en-9"}
    assert losses({"en-de": 2.0}) == {"loss": "2.000"}
    assert losses({}) == {}


@pytest.mark.parametrize("seconds, text", [(5.4, "0:05"), (125.0, "2:05"), (3725.0, "1:02:05")])
def test_time_has_hours_where_there_are_some(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_final_table_begins_with_the_best_direction() -> None:
    def row(**values: float) -> dict[str, dict[str, float]]:
        return {name: {"value": value} for name, value in values.items()}

    chrf = {"en-de": row(bleu=9.0) | {"chrf++": {"value": 20.0}}}
    chrf["en-ta"] = row(bleu=2.0) | {"chrf++": {"value": 40.0}}
    assert _best_first(chrf, ["en-de", "en-ta"]) == ["en-ta", "en-de"]
    errors = {"en-de": row(ter=80.0), "en-ta": row(ter=60.0)}
    assert _best_first(errors, ["en-de", "en-ta"]) == ["en-ta", "en-de"]
