"""The translate program: lines in order, nothing lost, the rest reported."""

import gzip
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from polylect.cli import run
from polylect.files import write_text
from polylect.strategies.lora_switch import LoRASwitch
from polylect.translator import Translator

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
    module.set_backbone(*tiny_backbone(context=64))
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


@pytest.mark.parametrize("form", ["bom", "spaces", "cr", "crlf", "gzip"])
def test_lines_are_read_and_cleaned_as_training_text_is(
    trained: Path, tmp_path: Path, form: str
) -> None:
    plain = "We read.\n\nThe small cat sees the old house.\n"
    raw = {
        "bom": b"\xef\xbb\xbf" + plain.replace("The", "\ufeffThe").encode(),
        "spaces": plain.replace("We", " \tWe").replace("\n\n", "\u00a0\n\u3000\n").encode(),
        "cr": plain.replace("\n", "\r").encode(),
        "crlf": plain.replace("\n", "\r\n").encode(),
        "gzip": gzip.compress(plain.encode()),
    }[form]
    name = "in.txt.gz" if form == "gzip" else "in.txt"
    (tmp_path / name).write_bytes(raw)
    write_text(tmp_path / "plain.txt", plain)
    for source, out in ((name, "a"), ("plain.txt", "b")):
        settings = [f"input={tmp_path}/{source}", f"output={tmp_path}/{out}", "direction=en-de"]
        assert translate(trained, *settings) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes().split(b"\n")[1] == b""


def test_standard_input_is_read_likewise(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for raw in (b"We read.\n\nThe book.\n", b"\xef\xbb\xbf We read.\r\n\xe3\x80\x80\r\nThe book."):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        assert translate(trained, "direction=en-de") == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] and outputs[0].count("\n") == 3


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


def test_columns_beside_a_direction_are_said_to_be_translated(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path / "in.tsv", "We read.\tWir lesen.\n\tWe read.\n")
    settings = [f"input={tmp_path}/in.tsv", f"output={tmp_path}/out.txt", "direction=en-de"]
    assert translate(trained, *settings) == 0
    assert "1 lines with tabs were translated whole" in capsys.readouterr().err


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


def test_a_torn_last_line_is_made_again(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path / "in.txt", "We read.\nThe book.\nA house.\n")
    whole, part = tmp_path / "whole.txt", tmp_path / "part.txt"
    base = [f"input={tmp_path}/in.txt", "direction=en-de"]
    assert translate(trained, *base, f"output={whole}") == 0
    lines = whole.read_bytes().splitlines(keepends=True)
    for torn in (b"\xe0", lines[1][:-1], b"something longer than what will stand there" * 9):
        part.write_bytes(lines[0] + torn)
        capsys.readouterr()
        assert translate(trained, *base, f"output={part}", "start=2") == 2
        assert "has 1 lines and a torn one: go on with start=1" in capsys.readouterr().err
        assert part.read_bytes() == lines[0] + torn
        assert translate(trained, *base, f"output={part}", "start=1") == 0
        assert "line 2 is torn and is made again" in capsys.readouterr().err
        assert part.read_bytes() == whole.read_bytes()


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_on_a_full_disk_whole_lines_stay_and_the_way_on_is_said(
    lines: int, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path / "in.txt", "We read.\nThe book.\nA house.\n")
    whole, part = tmp_path / "whole.txt", tmp_path / "part.txt"
    base = [f"input={tmp_path}/in.txt", "direction=en-de", "lines_per_chunk=1"]
    assert translate(trained, *base, f"output={whole}") == 0
    written = b"".join(whole.read_bytes().splitlines(keepends=True)[:lines])
    capsys.readouterr()
    with room(len(written) + 1):
        assert translate(trained, *base, f"output={part}") == 2
    error = capsys.readouterr().err
    assert f"output={part} cannot be written (File too large): make room, then go on." in error
    assert "Traceback" not in error
    if lines:
        assert part.read_bytes() == written
        assert f"stopped after {lines} whole lines; go on with start={lines} and" in error
    else:
        assert not part.exists()
    assert translate(trained, *base, f"output={part}", f"start={lines}") == 0
    assert part.read_bytes() == whole.read_bytes()


def test_standard_output_that_cannot_be_written(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    write_text(tmp_path / "in.txt", "We read.\n")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert translate(trained, f"input={tmp_path}/in.txt", "direction=en-de") == 2
    error = capsys.readouterr().err
    assert "output=- cannot be written (No space left on device): make room" in error


def test_a_job_that_is_ended_says_how_to_go_on(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    write_text(tmp_path / "in.txt", "We read.\nThe book.\nA house.\n")
    out, real = tmp_path / "out.txt", Translator.translations
    calls: Iterator[int] = iter(())

    def translations(self: Translator, *given: Any) -> Any:
        if next(calls) == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *given)

    monkeypatch.setattr(Translator, "translations", translations)
    settings = [f"input={tmp_path}/in.txt", f"output={out}", "direction=en-de", "lines_per_chunk=1"]
    for left in (0, 2):
        calls = iter(range(left, -1, -1))
        with pytest.raises(SystemExit) as ended:
            translate(trained, *settings)
        assert ended.value.code == 128 + signal.SIGTERM
        error = capsys.readouterr().err
        if left == 0:
            assert not out.exists() and "stopped before the first line" in error
        else:
            assert out.read_bytes().count(b"\n") == left
            assert f"go on with start={left} and the same output." in error


@pytest.mark.parametrize(
    ("output", "folder"), [("lacks/out.txt", "lacks"), ("in.txt/out.txt", "in.txt")]
)
def test_an_output_that_cannot_be_is_told_before_anything_is_loaded(
    output: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path / "in.txt", "We read.\n")
    settings = [f"input={tmp_path}/in.txt", f"output={tmp_path}/{output}", "direction=en-de"]
    assert translate(tmp_path / "no_run", *settings) == 2
    message = f"output={tmp_path}/{output}: there is no folder {tmp_path}/{folder}: make it first."
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "settings", "hint"),
    [
        (b"We read.\n", [], "line 1 of the input has no second column"),
        (b"We read.\ten-da\n", [], "did you mean en-de"),
        (b"caf\xe9\n", ["direction=en-de"], "not UTF-8"),
        ("We read.\n".encode("utf-16-le"), ["direction=en-de"], "may be UTF-16"),
        (b"We read.\n" + b"a" * 9 * 2**20, ["direction=en-de"], "in.txt:2: the line has more than"),
        (b"x\n", ["direction=en-fr"], "en-fr"),
        (b"x\n", ["direction=en-de", "lines_per_chunk=0"], "lines_per_chunk"),
        (b"x\ten-de\ny\n", ["lines_per_chunk=1"], "line 2 of the input has no second column"),
        (b"x\ten-de\ny\n", ["lines_per_chunk=1"], "stopped after 1 whole lines; go on with start"),
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


BASE = ["model=tiny", "model.context=64", "generation.limit=6"]


def lines(tmp_path: Path, *settings: str) -> list[str]:
    """What the program makes of two lines."""
    write_text(tmp_path / "in.txt", "We read.\nThe small cat sees the old house.\n")
    out = tmp_path / "out.txt"
    out.unlink(missing_ok=True)
    arguments = [f"input={tmp_path}/in.txt", f"output={out}", "device=cpu", *settings]
    assert run(["translate", *arguments]) == 0
    return out.read_text(encoding="utf-8").splitlines()


def test_a_base_with_a_folder_of_adapters_translates_as_their_run(
    trained: Path, tmp_path: Path
) -> None:
    library = f"library={trained}/adapters"
    for direction in DIRECTIONS:
        of_run = lines(tmp_path, f"run={trained}", f"direction={direction}")
        assert lines(tmp_path, *BASE, library, f"direction={direction}") == of_run
        assert lines(tmp_path, *BASE, "template=tag", f"direction={direction}") != of_run


@pytest.mark.parametrize("strategy", ["lag", "arrow", "spectr"])
def test_a_base_with_a_library_that_is_routed(strategy: str, trained: Path, tmp_path: Path) -> None:
    library = shutil.copytree(trained / "adapters", tmp_path / "library")
    shutil.rmtree(library / "en-hi")
    of_run = lines(tmp_path, f"run={trained}", "direction=en-de")
    # The only adapter that is there is chosen, whatever the direction.
    settings = [*BASE, f"strategy={strategy}", f"library={library}", "direction=en-de"]
    assert lines(tmp_path, *settings) == of_run


def test_an_adapter_is_named_for_all_lines(trained: Path, tmp_path: Path) -> None:
    own = lines(tmp_path, f"run={trained}", "direction=en-de")
    other = lines(tmp_path, f"run={trained}", "direction=en-de", "adapter=en-hi")
    library = f"library={trained}/adapters"
    assert other != own
    assert lines(tmp_path, *BASE, library, "direction=en-de", "adapter=en-hi") == other


def test_two_adapters_of_one_direction_are_told_apart(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    for name in ("first", "second"):
        shutil.copytree(trained / "adapters" / "en-de", library / name)
    settings = [*BASE, f"library={library}", "direction=en-de"]
    write_text(tmp_path / "in.txt", "We read.\n")
    given = [f"input={tmp_path}/in.txt", f"output={tmp_path}/o", "device=cpu", *settings]
    assert run(["translate", *given]) == 2
    error = capsys.readouterr().err
    assert "served by first and by second: name one with adapter=first" in error
    assert lines(tmp_path, *settings, "adapter=second") == lines(
        tmp_path, f"run={trained}", "direction=en-de"
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ([], "give run=FOLDER, or model=… for a base model as it is"),
        (["library=LIBRARY"], "give run=FOLDER, or model=…"),
        (["run=RUN", "library=LIBRARY"], "give run=… or library=…, not both: a run has its own"),
        (["run=RUN", *BASE], "give run=… or model=…, not both"),
        ([*BASE, "strategy=frozen", "library=LIBRARY"], "strategy Frozen takes no library"),
        ([*BASE, "strategy=lora"], "has to be trained first"),
        ([*BASE, "strategy=lag"], "strategy.library must be given"),
        ([*BASE, "library=RUN"], "is a run folder: its adapters are in"),
        ([*BASE, "adapter=en-de"], "has no adapters to load or switch"),
        ([*BASE, "library=LIBRARY", "adapter=en-da"], "did you mean en-de"),
        ([*BASE, "library=LIBRARY", "direction=en-it"], "no adapter serves direction en-it"),
        (
            [*BASE, "strategy=lag", "library=LIBRARY", "adapter=en-de"],
            "LAG has no adapters to load or switch",
        ),
        ([*BASE, "input=RUN"], "is a folder: give a file, or - for standard input"),
        ([*BASE, "memory.corpus=train"], "memory.corpus=train needs data.train"),
        ([*BASE, "template=tags"], "did you mean tag"),
    ],
)
def test_a_base_that_cannot_be_used_is_a_sentence(
    settings: list[str],
    sentence: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_text(tmp_path / "in.txt", "We read.\n")
    places = {"LIBRARY": f"{trained}/adapters", "RUN": f"{trained}"}
    for word, path in places.items():
        settings = [s.replace(f"={word}", f"={path}") for s in settings]
    direction = [] if any("direction=" in s for s in settings) else ["direction=en-de"]
    given = [f"input={tmp_path}/in.txt", f"output={tmp_path}/o", "device=cpu", *direction]
    if any(s.startswith("input=") for s in settings):
        given = given[1:]
    assert run(["translate", *given, *settings]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("polylect: ") and sentence in error


def test_plain_text_gets_no_name_of_a_compressed_file(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path / "in.txt", "We read.\n")
    settings = [f"input={tmp_path}/in.txt", f"output={tmp_path}/out.gz", "direction=en-de"]
    assert translate(trained, *settings) == 2
    assert "written as plain text: leave .gz out." in capsys.readouterr().err
    assert not (tmp_path / "out.gz").exists()


def test_a_start_beyond_the_input_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_text(tmp_path / "in.txt", "We read.\n")
    write_text(tmp_path / "out.txt", "one\ntwo\n")
    settings = [f"input={tmp_path}/in.txt", f"output={tmp_path}/out.txt", "direction=en-de"]
    assert translate(trained, *settings, "start=2") == 2
    assert "start=2 skips more lines than the input has: it has 1." in capsys.readouterr().err
    assert (tmp_path / "out.txt").read_text() == "one\ntwo\n"


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
        timeout=600,
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
        command(trained, *settings),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background, Ctrl-C is ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
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
