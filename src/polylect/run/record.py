"""The record of a run: configuration, environment, data, metrics and how it ended, as JSON."""

import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from polylect.files import Unwritable, folders_meant, read_json, write_json

PACKAGES = ("polylect", "torch", "transformers", "lightning", "sacrebleu", "peft", "triton")


def new_folder(parent: Path, name: str | None = None) -> Path:
    """Make and return a folder that did not exist: `parent/<name or time>`, numbered if taken."""
    stem = name or time.strftime("%Y-%m-%d_%H-%M-%S")
    for attempt in range(1, 1000):
        folder = parent / (stem if attempt == 1 else f"{stem}_{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{parent}/{stem} and 998 numbered folders beside it exist already.")


@contextmanager
def advise_on_failure(how: str) -> Iterator[None]:
    """Add to a file that cannot be written what to do when it can be."""
    try:
        yield
    except Unwritable as error:
        if isinstance(error.__cause__, Unwritable):  # it says so already
            raise
        raise Unwritable(f"{error}: make room, then {how}.") from error


def environment() -> dict[str, Any]:
    """Return machine, versions and commit, as far as they can be told."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device,
        "threads": torch.get_num_threads(),
        "commit": _git("rev-parse", "HEAD"),
        "dirty": _git("status", "--porcelain", "--", ":/", *_NO_RECORDS) not in ("", None),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# What was published of the runs before this one changes nothing that it computes.
_NO_RECORDS = [f":(top,exclude)experiments/*/{what}/*" for what in ("results", "outputs")]


def _git(*arguments: str) -> str | None:
    """Return git's output in the checkout of this package; None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    completed = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
    return completed.stdout.strip() if completed.returncode == 0 else None


@dataclass
class Record:
    """One run. `status` is "running", "done", "failed", "diverged" or "interrupted".

    A run from a changed working tree or without a commit is marked `scratch`; tables leave it out.
    """

    run: str
    config: dict[str, Any]
    command: list[str] = field(default_factory=lambda: [Path(sys.argv[0]).name, *sys.argv[1:]])
    environment: dict[str, Any] = field(default_factory=environment)
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    status: str = "running"
    started: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    seconds: float | None = None

    @property
    def scratch(self) -> bool:
        """Whether the working tree was changed or the commit is unknown."""
        return bool(self.environment.get("dirty")) or not self.environment.get("commit")

    def write(self, folder: Path) -> None:
        """Write `folder/record.json`."""
        write_json(folder / "record.json", asdict(self) | {"scratch": self.scratch})

    @contextmanager
    def saved_to(self, folder: Path, begin: float) -> Iterator[None]:
        """Write `folder/record.json` when the block ends; takes what `timed` takes.

        A mistake of the user's that shows before anything was written leaves nothing behind.
        """
        try:
            with self.timed(begin):
                yield
        except (ValueError, FileNotFoundError):
            if any(folder.iterdir()):
                self.write(folder)
            raise
        except BaseException:
            self.write(folder)
            raise
        self.write(folder)

    @contextmanager
    def timed(self, begin: float) -> Iterator[None]:
        """Note how the block ended, and the seconds since the run's `begin` (`time.monotonic`)."""
        try:
            yield
            self.status = "done"
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt | SystemExit)
            self.status = "interrupted" if interrupted else "failed"
            raise
        finally:
            self.seconds = round(time.monotonic() - begin, 1)

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read `folder/record.json`; raises FileNotFoundError with the path."""
        path = folder / "record.json"
        if not path.is_file():
            meant = folders_meant(folder, "record.json")
            raise FileNotFoundError(f"{path} does not exist: {folder} is not a run folder{meant}")
        value = read_json(path, "the record of a run")
        if not isinstance(value, dict):
            raise ValueError(f"{path} is no record of a run: it is no JSON object.")
        known = {f.name for f in fields(cls)}
        lacking = [name for name in ("run", "config") if name not in value]
        if lacking:
            raise ValueError(f"{path} is no record of a run: it lacks {' and '.join(lacking)}.")
        if unknown := sorted(value.keys() - known - {"scratch"}):
            raise ValueError(
                f"{path} has {', '.join(unknown)}, which the records of this version of polylect "
                "have not: read it with the version that wrote it."
            )
        return cls(**{key: value[key] for key in value if key != "scratch"})
