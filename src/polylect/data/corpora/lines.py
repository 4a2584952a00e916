"""Files as lines of text: opened plain or gzip-compressed, decoded, and bounded in memory.

A line ends with LF, with or without CR before it. In a file without any LF in its first line, CR
alone ends a line. Every error says file and line.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from difflib import get_close_matches
from functools import partial
from io import BufferedIOBase
from itertools import chain, islice
from pathlib import Path

MAX_LINE_BYTES = 8 * 2**20
"""A longer line is an error: without a bound a small gzip file could fill the memory."""

_SHOWN_FILES = 4
"""So many of the files are named that a path with wildcards may mean."""

# What a file is, by its first bytes, and what to do.
_NO_TEXT = {
    b"\xff\xfe\0\0": "is UTF-32; convert it to UTF-8",
    b"\xff\xfe": "is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "is UTF-16; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\x1f\x8b": "is gzip-compressed, but its name does not end in .gz; rename it",
    b"PK\3\4": "is a zip archive; unpack it",
    b"BZh": "is bzip2-compressed; unpack it, or compress it with gzip",
    b"\xfd7zXZ\0": "is xz-compressed; unpack it, or compress it with gzip",
    b"\x28\xb5\x2f\xfd": "is zstd-compressed; unpack it, or compress it with gzip",
    b"version https://git-lfs.github.com/spec/": (
        "is a Git LFS pointer instead of the file; fetch it (git lfs pull)"
    ),
}


def text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file, without their ends, decompressed if its name ends in .gz.

    Raises:
        FileNotFoundError: there is no such file; the sentence names the nearest one beside it.
        ValueError: as `decoded_lines`.
    """
    with open_binary(path) as file:
        yield from decoded_lines(file, path)


def open_binary(path: Path) -> BufferedIOBase:
    """Return the file, decompressed as it is read if its name ends in .gz.

    Raises:
        FileNotFoundError: there is no such file; the sentence names the nearest one beside it.
    """
    check_exists(path)
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def decoded_lines(file: BufferedIOBase, name: str | Path) -> Iterator[str]:
    """Yield the lines of an open file in UTF-8, without their ends and byte order marks.

    Raises:
        ValueError: with `name` and line: bytes that are not UTF-8 or are NUL, a line of more than
            MAX_LINE_BYTES, a broken gzip stream, or a file that is known to be no text.
    """
    number = 0
    try:
        for number, raw in enumerate(_raw_lines(file), 1):
            if number == 1:
                _check_is_text(raw, name)
            yield _decode(raw, f"{name}:{number}")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{name}:{number + 1}: broken gzip data ({error})") from None


def _raw_lines(file: BufferedIOBase) -> Iterator[bytes]:
    """Return lines with their ends; of a too long one a little more than is allowed."""
    first = file.readline(MAX_LINE_BYTES + 1)
    if not first:
        return iter(())
    if not first.endswith(b"\n") and b"\r" in first:
        return _lines_by_cr(first, file)
    return chain([first], iter(partial(file.readline, MAX_LINE_BYTES + 1), b""))


def _lines_by_cr(begin: bytes, file: BufferedIOBase) -> Iterator[bytes]:
    more = begin
    rest = b""
    while more and len(rest) <= MAX_LINE_BYTES:
        *whole, rest = (rest + more).split(b"\r")
        yield from whole
        more = file.read(MAX_LINE_BYTES)
    if rest:
        yield rest


def _check_is_text(first: bytes, name: str | Path) -> None:
    for begin, what in _NO_TEXT.items():
        if first.startswith(begin):
            raise ValueError(f"{name}:1: the file {what}")


def _decode(raw: bytes, where: str) -> str:
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(
            f"{where}: the line has more than {MAX_LINE_BYTES // 2**20} MiB, which no sentence "
            "has; split it into lines"
        )
    if (place := raw.find(b"\0")) >= 0:
        raise ValueError(
            f"{where}: byte {place + 1} of the line is NUL, which text does not have; the file may "
            "be UTF-16 without a byte order mark: convert it to UTF-8 (iconv -f UTF-16LE or "
            "UTF-16BE -t UTF-8)"
        )
    try:
        return raw.decode().removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: byte 0x{raw[error.start]:02x} at position {error.start + 1} of the line is "
            "not UTF-8; convert the file to UTF-8 (from Latin-1, if it is that: iconv -f LATIN1 "
            "-t UTF-8)"
        ) from None


def check_no_pattern(path: Path) -> None:
    """Raise FileNotFoundError where a path that is no file is an address or has wildcards."""
    if (scheme := path.parts[:1]) and re.fullmatch(r"\w{2,}:", scheme[0]):
        raise FileNotFoundError(f"{path} is an address and no file: download it and name the file")
    if not any(letter in str(path) for letter in "*?"):
        return
    below, pattern = (Path("/"), path.relative_to("/")) if path.is_absolute() else (Path(), path)
    found = sorted(map(str, islice(below.glob(str(pattern)), _SHOWN_FILES)))
    like = f", as in [{', '.join(found)}]" if found else ""
    raise FileNotFoundError(
        f"{path} does not exist: a path names one file, and several stand in a list{like}"
    )


def check_exists(path: Path) -> None:
    """Raise FileNotFoundError in one sentence unless `path` is a file."""
    if path.is_file():
        return
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder, not a file: name one in it")
    check_no_pattern(path)
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    if folder != path.parent:
        raise FileNotFoundError(f"{path} does not exist: {folder} has no {_step(path, folder)!r}")
    near = get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1)
    hint = f"; the nearest name there is {near[0]!r}" if near else ""
    raise FileNotFoundError(f"{path} does not exist{hint}")


def _step(path: Path, folder: Path) -> str:
    return path.relative_to(folder).parts[0]
