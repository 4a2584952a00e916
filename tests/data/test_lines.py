"""Lines of files that are not what they seem."""

import gzip
import io
import subprocess
import sys
from pathlib import Path

import pytest

from polylect.data.corpora import lines
from polylect.data.corpora.lines import decoded_lines, text_lines


def read(raw: bytes) -> list[str]:
    return list(decoded_lines(io.BytesIO(raw), "x"))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\nc\r\n", ["a", "b", "c"]),  # mixed
        (b"a\r\r\nb\n", ["a", "b"]),  # converted twice
        (b"a\rb\rc\r", ["a", "b", "c"]),
        (b"a\rb\rc", ["a", "b", "c"]),
        (b"\ra\r\rb", ["", "a", "", "b"]),
        (b"a\nb\rc\n", ["a", "b\rc"]),  # where LF ends lines, CR ends none
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "b"]),  # two files, one after the other
        ("a\u2028b\x85c\vd\n".encode(), ["a\u2028b\x85c\vd"]),
    ],
)
def test_what_ends_a_line(raw: bytes, expected: list[str]) -> None:
    assert read(raw) == expected


@pytest.mark.parametrize("piece", [1, 7, 64])
def test_lines_by_cr_do_not_depend_on_the_pieces_that_are_read(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 8 * piece)
    expected = [f"line {i}"[:piece] for i in range(50)]
    assert read("\r".join(expected).encode()) == expected


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", "x:1: the file is UTF-16; convert it to UTF-8"),
        ("utf-16-le", "x:1: byte 2 of the line is NUL.*UTF-16 without a byte order mark"),
        ("utf-16-be", "x:1: byte 1 of the line is NUL"),
        ("utf-32", "x:1: the file is UTF-32"),
        ("latin-1", "x:1: byte 0xfc at position 3 of the line is not UTF-8.*Latin-1"),
    ],
)
def test_other_encodings_are_refused_by_name(encoding: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read("Grüße\nund mehr\n".encode(encoding))


def test_utf_16_of_letters_that_look_like_ascii_is_refused() -> None:
    raw = "नमक".encode("utf-16-le")  # these bytes alone are valid UTF-8
    assert raw.decode()
    with pytest.raises(ValueError, match="x:2: byte 1 of the line is NUL"):
        read(raw + "\nनमक\n".encode("utf-16-le"))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            gzip.compress(b"a\n", mtime=0),
            r"x:1: the file is gzip-compressed, but its name does not end",
        ),
        (b"PK\3\4...", "x:1: the file is a zip archive; unpack it"),
        (b"\xfd7zXZ\0", "x:1: the file is xz-compressed"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"a\nb\0c\n", "x:2: byte 2 of the line is NUL"),
    ],
)
def test_what_is_no_text_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(raw)


@pytest.mark.parametrize("end", [b"\n", b"\r"])
def test_a_line_has_a_limit(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 2**20)
    assert len(read(b"a" + end + b"b" * (2**20 - 1) + end)) == 2
    with pytest.raises(ValueError, match=r"x:2: the line has more than 1 MiB"):
        read(b"a" + end + b"b" * (3 * 2**20) + end + b"c")


BOMB = """
import resource, sys
from pathlib import Path
from polylect.data.corpora.corpus import corpora
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[1:]:
    (corpus,) = corpora("train", {"kind": name, "path": f"x.{name}.gz"}, ["en-de"])["en-de"]
    try:
        list(corpus.rows())
    except ValueError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 2**10)
"""


def test_a_gzip_bomb_takes_little_memory(tmp_path: Path) -> None:
    begins = {
        "tsv": b"a\tb",
        "csv": b'en,de\n"',
        "jsonl": b'{"en": "',
        "tmx": b'<tmx><body><tu><tuv xml:lang="en"><seg>',
    }
    for kind, begin in begins.items():
        with gzip.open(tmp_path / f"x.{kind}.gz", "wb", compresslevel=1) as file:
            file.write(begin)
            for _ in range(150):
                file.write(b" " * 2**20)
    done = subprocess.run(
        [sys.executable, "-c", BOMB, *begins], cwd=tmp_path, capture_output=True, text=True
    )
    *printed, grown = done.stdout.splitlines()
    assert len(printed) == 4, done.stderr
    for line, name in zip(printed, begins, strict=True):
        assert f"x.{name}.gz:" in line and "more than 8 MiB" in line
    assert int(grown) < 100


def test_a_missing_gzip_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"a\n" * 99, mtime=0)[:-4])
    with pytest.raises(ValueError, match=r"x.gz:\d+: broken gzip data"):
        list(text_lines(path))
