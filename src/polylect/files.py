"""Files that someone else wrote, read as what they should be; files of ours, written whole."""

import hashlib
import json
import os
import pickle
import re
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_LFS = b"version https://git-lfs.github.com/spec/"
_ZIP = b"PK\x03\x04"


def check_whole(path: Path, what: str) -> bytes:
    """Return the first bytes of a file that may be `what`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a folder, an empty file, one that may not be read, or what stands for a file
            that Git LFS has not fetched.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder and not {what}.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    if not head:
        raise ValueError(f"{path} is empty and not {what}: copy it again.")
    if head == _LFS:
        raise ValueError(
            f"{path} is only a pointer of Git LFS and not {what}: fetch the file with git lfs pull."
        )
    return head


def folders_meant(folder: Path, *names: str) -> str:
    """Return the end of a sentence that refuses a folder: which one in it has a file of a name, as
    runs/NAME has the folders of its runs.
    """
    within = sorted({path.parent for name in names for path in folder.glob(f"*/{name}")})
    return f": give one that is in it, such as {within[-1]}." if within else "."


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_saved(path: Path, what: str) -> Any:
    """Return what `torch.save` wrote, tensors mapped into memory; nothing in the file is executed.

    Raises:
        FileNotFoundError, ValueError: as `check_whole`; also for a file that is cut short, that
            torch.save did not write, or that holds more than tensors and plain values.
    """
    import torch

    head = check_whole(path, what)
    if not zipfile.is_zipfile(path):
        cut = "is cut short: copy it again" if head.startswith(_ZIP) else f"is not {what}"
        raise ValueError(f"{path} {cut}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        named = f" ({name[1]})" if name else ""
        raise ValueError(
            f"{path} is not read: it holds more than tensors and plain values{named}, and nothing "
            "from a file is executed."
        ) from error
    except Exception as error:  # whatever a damaged archive makes of torch's reader
        raise ValueError(f"{path} is damaged or not {what}: copy it again.") from error


def write_saved(path: Path, value: Any) -> None:
    """Write what `load_saved` reads, with `torch.save`, as `write_text` does."""
    import torch

    with whole_file(path) as partial, partial.open("wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:  # of its archive, which hides what the system said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def load_tensors(path: Path, what: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the tensors of a safetensors file by name, and its metadata.

    Raises as `check_whole`.
    """
    from safetensors import SafetensorError

    check_whole(path, what)
    try:
        with open_tensors(path) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged or no safetensors file ({error}): copy it again."
        ) from error
    except FileNotFoundError:  # taken away since it was looked at
        raise FileNotFoundError(f"{path} does not exist.") from None


def open_tensors(path: Path) -> Any:
    """Open a safetensors file as `safetensors.safe_open` does for torch, once and the same file.

    safetensors reads the header, then torch opens the path again for the tensors: what happens to
    the path in between would give a header with the tensors of another file.

    Raises:
        FileNotFoundError: there is none, or it was taken away meanwhile.
        ValueError: it was replaced meanwhile.
        OSError, SafetensorError: as `safe_open`.
    """
    from safetensors import safe_open

    before = os.stat(path)
    try:
        file = safe_open(path, "pt")
        after = os.stat(path)
    except RuntimeError as error:  # torch's word for a file that it cannot open
        if "No such file" not in str(error):
            raise
        raise FileNotFoundError(f"{path} does not exist.") from error
    if (before.st_ino, before.st_mtime_ns) != (after.st_ino, after.st_mtime_ns):
        raise ValueError(f"{path} was replaced while it was opened: read it again.")
    return file


def read_json(path: Path, what: str) -> Any:
    """Return the value of a JSON file; raises as `check_whole`."""
    check_whole(path, what)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:  # taken away since it was looked at
        raise FileNotFoundError(f"{path} does not exist.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is not read: it is nested too deeply.") from error


class Unwritable(RuntimeError):
    """A file cannot be written, as on a full disk; the message is a clause with its path."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path beside that of a file to write it under; at the end it takes the file's place.

    So a reader sees the old file or the whole new one, also where the machine stops meanwhile, and
    an error leaves the old one alone.

    Raises:
        Unwritable: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with _unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            _flush(partial)
            os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Do as `whole_file` for a folder, which is there, and empty, when the block begins.

    Args:
        path: must not exist, unless it is replaced.
        replace: whether a folder at `path` makes way, which then is gone.
    """
    with _unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    new, old = scratch / "new", scratch / "old"
    try:
        with _unwritable(path):
            new.mkdir()
            yield new
            for file in new.rglob("*"):
                if file.is_file():
                    _flush(file)
            if replace and path.exists():
                path.rename(old)
            try:
                new.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file so that it is either whole or not there; raises Unwritable."""
    content = text.encode("utf-8")  # before a file exists, so that bad text leaves none behind
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, value: Any, indent: int = 1) -> None:
    """Write a value as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=indent, default=str) + "\n")


@contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise Unwritable(f"{path} cannot be written ({error.strerror or error})") from error
    except SafetensorError as error:
        raise Unwritable(f"{path} cannot be written ({error})") from error


def _flush(path: Path) -> None:
    """Wait until a file is on the disk: one renamed before that may be empty after a crash."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_keys(path: str) -> list[str]:
    """Return the keys in a file, one on each line; lines that begin with # are comments.

    Raises:
        ValueError: it is no file of text, holds none, or a line with more than a key.
    """
    if not Path(path).is_file():
        raise ValueError(f"key_file={path} is no file: it has one key on each line.")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"key_file={path} is no text: it has one key on each line.") from None
    keys = []
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if not key or key.startswith("#"):
            continue
        if len(key.split()) > 1:  # a name beside a key would open the server, too
            raise ValueError(
                f"key_file={path}, line {number}, has a space in it: give one key on each line."
            )
        keys.append(key)
    if not keys:
        raise ValueError(f"key_file={path} holds no key: it has one on each line.")
    return keys
