"""The translate program: lines in order, nothing lost, the rest reported."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from polylect.cli import run
from polylect.record import write_text
from polylect.strategies.lora_switch import LoRASwitch

DIRECTIONS = ("en-de", "en-hi")
CONFIG = """
model: {_target_: polylect.models.backbone.tiny_backbone, context: 64}
data: {directions: [en-de, en-hi], template: tag}
generation: {_target_: polylect.strategies.generation.Generation, limit: 6}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with adapters, as training leaves it."""
    from polylect.models.backbone import tiny_backbone

    folder = tmp_path_factory.mktemp("run")
    module = LoRASwitch(directions=DIRECTIONS, template="tag", rank=4)
    module.adopt(*tiny_backbone(context=64))
    for group in module.parameter_groups():
        for parameter in group["params"]:
            torch.nn.init.normal_(parameter, std=0.3)
    module.export(folder)
    write_text(folder / "config.yaml", CONFIG)
    return folder


def translate(trained: Path, *settings: str) -> int:
    return run(["translate", f"run={trained}", "device=cpu", *settings])


def test_lines_keep_their_order_and_chunks_do_not_matter(trained: Path, tmp_path: Path) -> None:
    lines = ["We read.", "", "The small cat sees the old house today.", "The book.", "A house."]
    write_text(tmp_path / "in.txt", "\n".join(lines))
    outputs = []
    for size in (1, 2, 100):
        out = tmp_path / f"out{size}.txt"
        settings = [f"input={tmp_path}/in.txt", f"output={out}", f"lines_per_chunk={size}"]
        assert translate(trained, *settings, "direction=en-de") == 0
        outputs.append(out.read_text(encoding="utf-8").split("\n"))
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(outputs[0]) == len(lines) + 1
    assert outputs[0][1] == ""


def test_the_second_column_names_the_direction(trained: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "in.tsv", "We read.\ten-hi\nWe read.\ten-de\n")
    assert translate(trained, f"input={tmp_path}/in.tsv", f"output={tmp_path}/out.txt") == 0
    mixed = (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines()
    for direction, line in zip(("en-hi", "en-de"), mixed, strict=True):
        write_text(tmp_path / "one.txt", "We read.\n")
        out = tmp_path / f"{direction}.txt"
        settings = [f"input={tmp_path}/one.txt", f"output={out}", f"direction={direction}"]
        assert translate(trained, *settings) == 0
        assert out.read_text(encoding="utf-8") == f"{line}\n"


def test_an_overlong_line_is_left_empty_and_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path / "in.txt", "We read.\n" + "house " * 100 + "\nWe read.\n")
    settings = [f"input={tmp_path}/in.txt", f"output={tmp_path}/out.txt", "direction=en-de"]
    assert translate(trained, *settings) == 0
    error = capsys.readouterr().err
    assert "line 2 is longer than the model takes" in error
    assert "too long 1" in error
    out = (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines()
    assert out[1] == ""
    assert out[0] == out[2]


def test_a_job_goes_on_where_it_stopped(trained: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "in.txt", "We read.\nThe book.\nA house.\n")
    whole, part = tmp_path / "whole.txt", tmp_path / "part.txt"
    base = [f"input={tmp_path}/in.txt", "direction=en-de"]
    assert translate(trained, *base, f"output={whole}") == 0
    part.write_bytes(whole.read_bytes().split(b"\n")[0] + b"\n")
    assert translate(trained, *base, f"output={part}", "start=2") == 2
    assert translate(trained, *base, f"output={part}", "start=1") == 0
    assert part.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("content", "settings", "hint"),
    [
        (b"We read.\n", [], "line 1 of the input has no second column"),
        (b"We read.\ten-da\n", [], "did you mean en-de"),
        (b"caf\xe9\n", ["direction=en-de"], "not UTF-8"),
        (b"x\n", ["direction=en-fr"], "en-fr"),
        (b"x\n", ["direction=en-de", "lines_per_chunk=0"], "lines_per_chunk"),
    ],
)
def test_mistakes_are_named(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    settings: list[str],
    hint: str,
) -> None:
    (tmp_path / "in.txt").write_bytes(content)
    assert translate(trained, f"input={tmp_path}/in.txt", f"output={tmp_path}/o", *settings) == 2
    assert hint in capsys.readouterr().err


def test_an_output_is_never_overwritten(trained: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "in.txt", "We read.\n")
    write_text(tmp_path / "out.txt", "precious\n")
    settings = [f"input={tmp_path}/in.txt", f"output={tmp_path}/out.txt", "direction=en-de"]
    assert translate(trained, *settings) == 2
    assert (tmp_path / "out.txt").read_text() == "precious\n"


def command(trained: Path, *settings: str) -> list[str]:
    return [sys.executable, "-m", "polylect.cli", "translate", f"run={trained}", *settings]


@pytest.mark.slow
def test_standard_input_to_a_pipe_that_closes(trained: Path) -> None:
    done = subprocess.run(
        f"yes 'We read.' | head -40 | {' '.join(command(trained))} direction=en-de "
        "lines_per_chunk=4 | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "go on with start=" in done.stderr or "lines 40" in done.stderr


@pytest.mark.slow
def test_ctrl_c_leaves_whole_lines(trained: Path, tmp_path: Path) -> None:
    write_text(tmp_path / "in.txt", "The small cat sees the old house.\n" * 20000)
    out = tmp_path / "out.txt"
    settings = [f"input={tmp_path}/in.txt", f"output={out}", "direction=en-de", "lines_per_chunk=8"]
    process = subprocess.Popen(
        command(trained, *settings), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not out.exists() or out.stat().st_size == 0:
        assert process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 130
    content = out.read_bytes()
    assert content.endswith(b"\n")
    lines = content.count(b"\n")
    assert lines % 8 == 0
    assert f"go on with start={lines} " in error
