"""Files that are no lines of text: `polylect translate` keeps their form."""

import gzip
from pathlib import Path

import pytest
from helpers.small import write_adapters

from polylect import cli
from polylect.files import write_text

CONFIG = """
model: {_target_: polylect.models.backbone.tiny_backbone}
data: {directions: [en-de], template: tag}
generation: {_target_: polylect.strategies.generation.Generation, limit: 8}
"""
TIMES = "00:00:01,000 --> 00:00:02,000"
SRT = f"1\r\n{TIMES}\r\nWe read.\r\n\r\n2\n{TIMES}\nHi.\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_adapters(folder, ["en-de"])
    write_text(folder / "config.yaml", CONFIG)
    return folder


def translate(run: Path, *settings: str) -> int:
    return cli.run(["translate", f"run={run}", "device=cpu", *settings])


@pytest.mark.parametrize("name", ["a.srt", "a.srt.gz"])
def test_numbers_and_times_of_subtitles_stay(run: Path, tmp_path: Path, name: str) -> None:
    content = SRT.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    settings = ["direction=en-de", f"input={tmp_path / name}", f"output={tmp_path / 'b.srt'}"]
    assert translate(run, *settings) == 0
    lines = (tmp_path / "b.srt").read_bytes().decode().split("\n")
    kept = [number for number in range(9) if number not in (2, 6)]
    before = SRT.split("\n")
    assert [lines[n] for n in kept if n < 7] == [before[n] for n in kept if n < 7]
    assert lines[2] != before[2] and lines[2].endswith("\r") and lines[6] != before[6]


@pytest.mark.parametrize(
    ("name", "content", "settings", "sentence"),
    [
        ("a.md", b"# One\n", [], "is translated whole: give its direction="),
        ("a.md", b"# One\n", ["direction=en-de", "start=1"], "is translated whole, and start= is"),
        ("a.md", b"\xff\xfe#", ["direction=en-de"], "is no UTF-8: convert it"),
        ("a.srt", b"We read.\n", ["direction=en-de"], "no line of the file gives times"),
        ("a.tmx", b"We read.\n", ["direction=en-de"], "the file is no TMX"),
    ],
)
def test_what_cannot_be_translated_whole_is_a_sentence(
    run: Path, tmp_path: Path, name: str, content: bytes, settings: list[str], sentence: str, capsys
) -> None:
    (tmp_path / name).write_bytes(content)
    given = [f"input={tmp_path / name}", f"output={tmp_path / 'out'}", *settings]
    assert translate(run, *given) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
