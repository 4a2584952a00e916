"""Stages of recipes: what they are, and which were done before with the same inputs.

The inputs are the program, all of its settings, the stages that it takes from, the files that the
settings name, and the source of polylect and of the user's packages.
"""

import fcntl
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from polylect.config.folders import search_path_of_job
from polylect.config.overrides import compose_config, resolve_overrides
from polylect.config.roots import conf_folder
from polylect.files import write_json
from polylect.run.session import register_resolvers

LEDGER = "ledger.jsonl"  # of a recipe: a line for each stage that has ended
_FOLDER = ".stages"  # of all runs: a file for each stage that is done, with its folder
_WRITTEN = ("cache",)  # settings that name what runs write, and not what they read
_CHANGE_NOTHING = ("name", "runs", "resume", "out", "logger")  # of what a program computes


@dataclass(frozen=True)
class Stage:
    """A program and the overrides it is given; `{name}` in them is the folder of another stage."""

    program: str
    overrides: list[str]


def ledger_lines(folder: Path) -> list[dict[str, Any]]:
    """Return what the ledger of a recipe holds: stage, overrides, exit, seconds, folder."""
    ledger = folder / LEDGER
    lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.is_file() else []
    return [json.loads(line) for line in lines]


def finished_stages(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the ledger's lines about the stages that ended well, by name."""
    return {line["stage"]: line for line in ledger_lines(folder) if line["exit"] == 0}


def stage_identity(program: str, overrides: Sequence[str]) -> str:
    """Return a hash of a stage's inputs; for a folder of a stage before, it is given its identity.

    Raises:
        ConfigError: a setting that does not exist.
    """
    given = [*search_path_of_job(), *overrides]
    cfg = compose_config(program, resolve_overrides(program, given, conf_folder()), conf_folder())
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    register_resolvers(Path("RUN"))
    settings = OmegaConf.to_container(cfg, resolve=True)
    settings = {key: value for key, value in settings.items() if key not in _CHANGE_NOTHING}
    packages = ["polylect", *(name.partition(".")[0] for name in settings.get("packages") or ())]
    inputs = [program, settings, list(_files(settings)), [_source_hash(name) for name in packages]]
    text = json.dumps(inputs, sort_keys=True, default=str)
    return f"stage-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


@contextmanager
def one_at_a_time(runs: Path, identity: str) -> Iterator[None]:
    """Wait until no other recipe runs this stage, as other jobs of a sweep may."""
    folder = runs / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{identity}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def done_before(runs: Path, identity: str) -> Path | None:
    """Return the folder of the stage with these inputs; None if there is none, or no longer."""
    file = runs / _FOLDER / f"{identity}.json"
    if not file.is_file():
        return None
    folder = Path(json.loads(file.read_text(encoding="utf-8"))["folder"])
    return folder if folder.is_dir() else None


def note_done(runs: Path, identity: str, folder: Path) -> None:
    """Note the folder of a stage that has ended well."""
    write_json(runs / _FOLDER / f"{identity}.json", {"folder": str(folder)})


def _files(node: Any, root: str = "") -> Iterator[tuple[str, int, int]]:
    """Yield path, bytes and time of the files that settings name, those in folders as well."""
    if isinstance(node, Mapping):
        root = node.get("root") or root
        for key, value in node.items():
            if key not in _WRITTEN:
                yield from _files(value, root)
    elif isinstance(node, list):
        for value in node:
            yield from _files(value, root)
    elif isinstance(node, str) and node and "\0" not in node:
        pattern = re.sub(r"\{\w+\}", "*", node)
        for path in _named(pattern, root):
            stat = path.stat()
            yield str(path), stat.st_size, stat.st_mtime_ns


def _named(pattern: str, root: str) -> list[Path]:
    """Return the files of a path, in which * may stand for a language; none where it is no path."""
    whole = Path(root, pattern)
    if "*" in pattern:
        return sorted(p for p in _glob(whole) if p.is_file())
    try:
        found = sorted(whole.rglob("*")) if whole.is_dir() else [whole]
        return [path for path in found if path.is_file()]
    except OSError:  # a text too long for a path
        return []


def _glob(whole: Path) -> Iterator[Path]:
    anchor = Path(whole.anchor or ".")
    yield from anchor.glob(str(whole.relative_to(whole.anchor) if whole.anchor else whole))


def _source_hash(package: str) -> str:
    """Return a hash of a package's Python files, which are not imported for that."""
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for place in places for file in sorted(Path(place).rglob("*.py"))]
    if spec and not places and spec.origin:
        files = [Path(spec.origin)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
