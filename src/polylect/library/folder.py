"""A library of adapters: a folder with one plain PEFT folder for each."""

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

from torch import nn

from polylect.did_you_mean import did_you_mean
from polylect.files import read_json, whole_folder
from polylect.library.adapter import Adapter, incompatibility
from polylect.library.fields import ABOUT_FIELDS, check_fields
from polylect.library.fingerprint import base_fingerprint
from polylect.library.peft_format import CONFIG, WEIGHTS, read_peft, write_peft

ABOUT = "polylect.json"
_NAME = r"[A-Za-z0-9_-]+"
_ATTEMPTS = 3
_TICK_NS = 12_000_000  # file systems tell times apart in steps of up to 10 ms
_AWAY_MS = 250  # a folder is away for much less while another one takes its place
_CHANGED = slice(3, None, 4)  # of a stamp: when the file was last touched, which nobody can set


class AdapterLibrary:
    """Adapters by name, each in a sub-folder that PEFT reads and writes as well.

    Beside PEFT's files lies `polylect.json` with what `Adapter.about` holds. A folder without it,
    trained elsewhere and dropped in, serves the direction it is named after.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def names(self) -> list[str]:
        """The adapters' names, sorted; none where the folder does not exist yet."""
        return sorted(
            entry.parent.name
            for entry in self.path.glob(f"*/{CONFIG}")
            if not entry.parent.name.startswith(".")
        )

    @property
    def directions(self) -> dict[str, str]:
        """The name of the adapter that serves each direction.

        Raises:
            ValueError: two adapters serve the same.
        """
        serving: dict[str, str] = {}
        for name in self.names:
            for direction in self.about(name).get("directions", [name]):
                if direction in serving:
                    raise ValueError(
                        f"{serving[direction]!r} and {name!r} in {self.path} both serve "
                        f"{direction}: take it out of 'directions' in the {ABOUT} of one"
                    )
                serving[direction] = name
        return serving

    def folder(self, name: str) -> Path:
        """Return where an adapter is.

        Raises ValueError with the nearest name if there is none, or if its folder is to be renamed.
        """
        exists = re.fullmatch(_NAME, name) and (self.path / name / CONFIG).is_file()
        if not exists:
            names = self.names
            if name in names:
                raise ValueError(f"rename {self.path / name}: {_misnamed(name)}")
            hint = did_you_mean(name, names) if names else "it holds none."
            raise ValueError(f"no adapter {name!r} in {self.path}: {hint}")
        return self.path / name

    def about(self, name: str) -> dict[str, Any]:
        """Return what `polylect.json` says of an adapter; empty where there is none."""
        return read_about(self.folder(name))

    def nbytes(self, name: str) -> int:
        """Return the bytes of an adapter's tensors, from the file's length and its header alone."""
        path = self.folder(name) / WEIGHTS
        try:
            with path.open("rb") as file:
                header = int.from_bytes(file.read(8), "little")
                return os.fstat(file.fileno()).st_size - 8 - header
        except FileNotFoundError:
            raise FileNotFoundError(f"{path.parent} has no {WEIGHTS}") from None

    def version(self, name: str) -> tuple[int, ...] | None:
        """Return the version of an adapter, another one when a file is written after `load`.

        It is None where the adapter is gone.
        """
        return _stamp(self._place(name))

    def awaited_version(self, name: str) -> tuple[int, ...] | None:
        """Return `version`; None only where the adapter stays away for a quarter of a second."""
        for _ in range(_AWAY_MS):
            if version := self.version(name):
                return version
            time.sleep(1e-3)
        return None

    def digest(self, name: str) -> str:
        """SHA-256 of the weights, and of the configuration since the scaling is there."""
        total = hashlib.sha256()
        for part in (CONFIG, WEIGHTS):
            path = self.folder(name) / part
            try:
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
            except FileNotFoundError:
                raise FileNotFoundError(f"{path.parent} has no {part}") from None
        return total.hexdigest()

    def load(self, name: str) -> Adapter:
        """Reads an adapter, all of it or none; never one file of an older one than the others.

        Raises:
            ValueError: no adapter of this name, a kind that is not supported, or files that are
                replaced again and again.
            FileNotFoundError: it has no weights.
        """
        folder = self.folder(name)
        for _ in range(_ATTEMPTS):
            before = _stamp(folder)
            if before and abs(time.time_ns() - max(before[_CHANGED])) < _TICK_NS:
                time.sleep(_TICK_NS / 1e9)  # what is written after that has another time
            try:
                modules, config = read_peft(folder)
                adapter = Adapter(modules, self.about(name), config)
            except (ValueError, FileNotFoundError):
                if _stamp(folder) == before:
                    raise
                continue
            if _stamp(folder) == before:
                return adapter
        raise ValueError(f"{folder} changes while it is read: try again when it is written")

    def save(self, name: str, adapter: Adapter, *, overwrite: bool = False) -> Path:
        """Writes an adapter; a reader sees the old folder, none, or the whole new one.

        Args:
            name: letters, digits, "_" and "-".
            adapter: `about` must be JSON; its "base_model" goes into PEFT's configuration.
            overwrite: whether an adapter of this name is replaced.

        Raises:
            FileExistsError: the name is taken.
            ValueError: a value is NaN or infinite; nothing is written.
        """
        if not re.fullmatch(_NAME, name):
            raise ValueError(_misnamed(name))
        adapter.check_finite(name)
        folder = self.path / name
        if folder.exists() and not overwrite:
            raise FileExistsError(f"{folder} exists: choose another name or allow overwriting")
        with whole_folder(folder, replace=overwrite) as new:
            write_peft(new, adapter.modules, adapter.about.get("base_model") or "")
            about = json.dumps(dict(adapter.about), indent=2, ensure_ascii=False)
            (new / ABOUT).write_text(about + "\n", encoding="utf-8")
        return folder

    def remove(self, name: str) -> None:
        """Deletes an adapter's folder."""
        shutil.rmtree(self.folder(name))

    def check(self, model: nn.Module | None = None) -> list[tuple[str, str]]:
        """Return every adapter that cannot be used on this base, with the reason.

        Without a base only what is wrong in the files is found.
        """
        fingerprint = None
        wrong = []
        for name in self.names:
            try:
                adapter = self.load(name)
            except (ValueError, FileNotFoundError) as error:
                wrong.append((name, str(error)))
                continue
            if model is None:
                continue
            if fingerprint is None and "base_fingerprint" in adapter.about:
                fingerprint = base_fingerprint(model)
            reason = incompatibility(adapter, model, fingerprint)
            if reason:
                wrong.append((name, f"{self._place(name) / WEIGHTS}: {reason}"))
        return wrong

    def _place(self, name: str) -> Path:
        """Return the folder of an adapter of this name; it need not exist."""
        return self.path / name


def _misnamed(name: str) -> str:
    return f"adapter name {name!r}: use letters, digits, '_' and '-' only"


def read_about(folder: Path) -> dict[str, Any]:
    """Return what `polylect.json` in an adapter's folder says.

    Raises ValueError where it is nonsense.
    """
    path = folder / ABOUT
    if not path.is_file():
        return {}
    about = read_json(path, "what is noted of an adapter")
    if not isinstance(about, dict):
        raise ValueError(f"{path} must hold one JSON object")
    check_fields(path, about, ABOUT_FIELDS)
    return about


def _stamp(folder: Path) -> tuple[int, ...] | None:
    """Return sizes, inodes and times of an adapter's files; None where a needed one is missing."""
    stamp: list[int] = []
    for part, needed in ((CONFIG, True), (WEIGHTS, True), (ABOUT, False)):
        try:
            status = (folder / part).stat()
        except OSError:
            if needed:
                return None
            stamp += [0, 0, 0, 0]
        else:
            stamp += [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
    return tuple(stamp)


def open_library(folder: str | Path) -> AdapterLibrary:
    """Return the library that the setting `strategy.library` names.

    Raises:
        FileNotFoundError: it holds no adapter.
    """
    library = AdapterLibrary(folder)
    if not library.names:
        raise FileNotFoundError(f"strategy.library={folder} {what_is_no_library(library.path)}")
    return library


def what_is_no_library(path: Path) -> str:
    """Return in words what a folder without adapters is, and which one may have been meant."""
    if (path / CONFIG).is_file():
        return f"is an adapter: give the folder that holds it, {path.parent}."
    if (path / "adapters").is_dir():
        return f"is a run folder: its adapters are in {path / 'adapters'}."
    return f"holds no adapter: it must be a folder of PEFT folders, each with {CONFIG}."
