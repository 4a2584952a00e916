"""Passports for what a run leaves: its adapters, its model, its rows, and the run as a whole."""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

from polylect.data.cache.inputs import tokenizer_hash
from polylect.files import file_digest
from polylect.library.folder import read_about
from polylect.library.peft_format import CONFIG
from polylect.run.passport.file import PASSPORT, GoldenOutput, Passport
from polylect.run.passport.golden import decoding_of, record_outputs
from polylect.run.passport.hashes import base_files, file_entry, short
from polylect.run.record import advise_on_failure, environment


class PassportWriter:
    """Writes passports of what one trained or loaded strategy has made.

    Args:
        module: the strategy; golden outputs are what it translates now.
        directions: those that are translated for golden outputs.
        data: SHA-256 by split and direction, see `data_hashes`.
        scores: as `scores.json` has them.
        used: files elsewhere that the outputs come from, see `used_files`.
    """

    def __init__(
        self,
        module: Any,
        directions: Sequence[str],
        data: Mapping[str, Mapping[str, str | None]] | None = None,
        scores: Mapping[str, Mapping[str, Any]] | None = None,
        used: Mapping[str, Path] | None = None,
    ) -> None:
        self._module, self._directions = module, tuple(directions)
        self._data = data or {}
        self._scores = {d: _signed(row) for d, row in (scores or {}).items()}
        self._common = {
            "made": _made(),
            "base": _base_of(module),
            "tokenizer": tokenizer_hash(module.tokenizer),
            "template": module.template_name,
            "generation": decoding_of(module.generation),
            "used": {name: file_entry(path) for name, path in (used or {}).items()},
        }

    @cached_property
    def golden(self) -> list[GoldenOutput]:
        """What the strategy makes of the sentences."""
        return record_outputs(self._module, self._directions)

    def write(
        self,
        kind: str,
        folder: Path,
        directions: Collection[str] | None = None,
        golden: Sequence[GoldenOutput] | None = None,
    ) -> None:
        """Write the passport of a folder in which all files are.

        Args:
            directions: those that it serves; all by default.
            golden: its own outputs; by default those of the module.
        """
        served = [d for d in self._directions if directions is None or d in directions]
        data = {
            split: {d: own for d, own in by_direction.items() if d in served}
            for split, by_direction in self._data.items()
        }
        Passport(
            kind=kind,
            directions=served,
            data=data,
            scores={d: row for d, row in self._scores.items() if d in served},
            files=entries(folder),
            golden=[
                o for o in (self.golden if golden is None else golden) if o.direction in served
            ],
            **self._common,
        ).write(folder)

    def write_all(self, folder: Path) -> None:
        """Write the passports of all parts of a run folder, then that of the folder."""
        self.write_parts(folder)
        self.write("run", folder)

    def write_parts(self, folder: Path) -> None:
        """Write the passports of the adapters, the model and the rows in a run folder."""
        for config in sorted((folder / "adapters").glob(f"*/{CONFIG}")):
            self.write_adapter(config.parent)
        for part, kind in (("model", "model"), ("rows", "rows")):
            if (folder / part).is_dir():
                self.write(kind, folder / part)

    def write_adapter(self, folder: Path) -> None:
        """Write the passport of an adapter, with the directions that it says it serves."""
        self.write("adapter", folder, read_about(folder).get("directions"))


def write_passports(
    module: Any,
    data: Any,
    folder: Path,
    scores: Mapping[str, Mapping[str, Any]] | None,
    used: Mapping[str, Path] | None = None,
) -> None:
    """Write the passports of a finished run; nothing may be written into its folder after that.

    Raises Unwritable with what to do where one cannot be written.
    """
    is_trained = (folder / "checkpoints").is_dir()  # and need not be trained again
    again = f"polylect evaluate run={folder}" if is_trained else "the same command again"
    with advise_on_failure(f"give {again}"):
        passport_writer(module, data, scores, used).write_all(folder)


def passport_writer(
    module: Any,
    data: Any,
    scores: Mapping[str, Mapping[str, Any]] | None,
    used: Mapping[str, Path] | None = None,
) -> PassportWriter:
    """Return what writes the passports of a strategy that has learnt from or scored these data."""
    return PassportWriter(module, data.directions, data_hashes(data.report), scores, used)


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    """Return hashes of all files below a folder, by path, without its own passport."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: file_entry(path) for name, path in names.items() if name != PASSPORT}


def data_hashes(report: Mapping[str, Any]) -> dict[str, dict[str, str | None]]:
    """Return the hashes in what a data module reports, by split and direction."""
    return {
        split: {d: read.get("sha256") for d, read in by_direction.items()}
        for split, by_direction in report.items()
    }


def _base_of(module: Any) -> dict[str, Any]:
    name = getattr(module.backbone.config, "_name_or_path", "") or ""
    return {
        "name": PurePath(name).name,  # the folders above it are of this machine
        "fingerprint": module.base_fingerprint or None,
        "dtype": str(next(module.backbone.parameters()).dtype).removeprefix("torch."),
        "tensors": short(module.base_digests),
        "files": {file: file_digest(path) for file, path in base_files(name).items()},
    }


def _made() -> dict[str, Any]:
    here = environment()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": here["commit"],
        "dirty": here["dirty"],
        "device": here["device"],
        "versions": here["packages"],
    }


def _signed(row: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a direction that have a signature."""
    return {
        name: {"value": score["value"], "signature": score["signature"]}
        for name, score in row.items()
        if isinstance(score, Mapping) and "signature" in score and math.isfinite(score["value"])
    }
