"""Lines into a file or standard output: a file ends in a whole line, whatever happens."""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TextIO

from polylect.config.roots import ConfigError


class Output:
    """Where a program writes one line for each line it reads, and goes on after an interruption.

    As a context it opens the file, and leaves it with the lines of whole `write` calls only: what
    an error, a signal or a full disk has cut short is taken away, and a file without lines as well.
    How to go on is said on standard error.

    Args:
        name: of a file, or "-" for standard output.
        start: lines that are there already; 0 for a new file.

    Attributes:
        lines: written so far, those that were there already included.

    Raises:
        ConfigError: the file exists, or does not end where `start` says: lines would be lost or
            doubled; it has the name of a compressed file; and on entering, where it cannot be
            opened.
    """

    def __init__(self, name: str, start: int) -> None:
        self.name, self.lines, self._start = name, start, start
        self._path = None if name == "-" else Path(name)
        self._bytes, self._is_broken, self._is_stream = 0, False, False
        if self._path is not None:
            self._check(self._path)

    def _check(self, path: Path) -> None:
        if path.is_dir():
            raise ConfigError(f"output={path} is a folder: name a file in it.")
        if path.suffix in (".gz", ".xz", ".bz2", ".zst"):
            raise ConfigError(
                f"output={path}: translations are written as plain text: leave {path.suffix} out."
            )
        if path.exists() and not path.is_file():  # a device or a pipe is not overwritten
            self._is_stream = True
            return
        if not path.parent.is_dir():
            raise ConfigError(f"output={path}: there is no folder {path.parent}: make it first.")
        if self._start == 0:
            if path.exists():
                raise ConfigError(f"output={path} exists already and is not overwritten.")
            return
        if not path.is_file():
            raise ConfigError(
                f"start={self._start} goes on with output={path}, which does not exist."
            )
        whole, torn = 0, b""
        with path.open("rb") as file:
            for line in file:
                torn = b"" if line.endswith(b"\n") else line
                whole += not torn
                self._bytes += len(line) - len(torn)
        if whole != self._start:
            rest = " and a torn one" if torn else ""
            raise ConfigError(f"output={path} has {whole} lines{rest}: go on with start={whole}.")
        if torn:
            print(f"{path}: line {whole + 1} is torn and is made again.", file=sys.stderr)

    def __enter__(self) -> "Output":
        if self._path is None:
            sys.stdout.reconfigure(encoding="utf-8")
            self._stream: TextIO = sys.stdout
            return self
        mode = "a" if self._start or self._is_stream else "x"
        try:
            if self._start and not self._is_stream:
                os.truncate(self._path, self._bytes)
            self._stream = self._path.open(mode, encoding="utf-8", newline="\n")
        except OSError as error:
            raise ConfigError(f"{self._unwritable(error)}.") from error
        return self

    def write(self, lines: Sequence[str]) -> None:
        """Write the lines, all of them or none.

        Raises:
            BrokenPipeError: whoever reads standard output has ended.
            RuntimeError: it cannot be written, as on a full disk.
        """
        try:
            self._stream.write("".join(f"{line}\n" for line in lines))
            self._stream.flush()
        except OSError as error:
            self._is_broken = True
            if isinstance(error, BrokenPipeError):
                raise
            raise RuntimeError(f"{self._unwritable(error)}: make room, then go on.") from error
        self.lines += len(lines)
        self._bytes += sum(len(line.encode("utf-8")) + 1 for line in lines)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._path is not None:
            with suppress(OSError) if kind else nullcontext():
                self._stream.close()  # writes once more what could not be written
        elif self._is_broken:
            # Python would complain again when it flushes standard output at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if kind is not None:
            self._keep_whole_lines()
            self._say_how_to_go_on(isinstance(error, Exception))

    def _keep_whole_lines(self) -> None:
        if self._path is None or self._is_stream:
            return
        if self.lines == 0:
            self._path.unlink(missing_ok=True)
        else:
            os.truncate(self._path, self._bytes)

    def _say_how_to_go_on(self, has_failed: bool) -> None:
        if self.lines > (0 if self._path else self._start):
            same = "" if self._path is None else " and the same output"
            how = f"stopped after {self.lines} whole lines; go on with start={self.lines}{same}."
            print(f"\npolylect translate: {how}", file=sys.stderr)
        elif not has_failed:  # else the error says it all
            print("\npolylect translate: stopped before the first line.", file=sys.stderr)

    def _unwritable(self, error: OSError) -> str:
        return f"output={self.name} cannot be written ({error.strerror})"
