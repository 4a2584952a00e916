"""Files held to the hashes of a passport, before anything in them is used."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from polylect.files import file_digest
from polylect.run.passport.file import PASSPORT, Passport
from polylect.run.passport.hashes import base_files, stored_tensors, tensor_digest
from polylect.run.verify.check import Check, first_of, not_checked, size


def check_files(passport: Passport, folder: Path) -> Check:
    """Compare every file that the passport of a folder names with its hash."""
    faults, nbytes = [], 0
    for name, entry in passport.files.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{path} is missing: copy the whole folder again.")
            continue
        nbytes += path.stat().st_size
        if file_digest(path) != entry["sha256"]:
            faults.append(f"{path} is not as it was written: {_change(path, entry['tensors'])}.")
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    later = len(there - passport.files.keys() - {PASSPORT})
    note = f"; {later} that came later not" if later else ""
    tensors = sum(len(entry["tensors"]) for entry in passport.files.values())
    compared = f"{len(passport.files)} files with {tensors} tensors, {size(nbytes)}{note}"
    return Check("files are as written", compared, tuple(faults))


def check_used(passport: Passport, there: Mapping[str, Path]) -> Check:
    """Compare files elsewhere, of libraries or of the run that was evaluated, with their hashes."""
    name = "files used are as then"
    if not passport.used:
        return not_checked(name, "all that it uses is in the folder, or in the base")
    faults = []
    for file, entry in passport.used.items():
        if file not in there:
            faults.append(f"{file}, which was used, is missing: copy it again.")
        elif file_digest(there[file]) != entry["sha256"]:
            change = _change(there[file], entry["tensors"])
            faults.append(f"{there[file]} is not as it was used: {change}.")
    faults += [f"{there[file]} was not there then." for file in there if file not in passport.used]
    return Check(name, f"{len(passport.used)} files", tuple(faults))


def check_base_files(passport: Passport, path: str) -> Check:
    """Compare the files of the base at `path` with those that the passport knows."""
    name = "base files are as before"
    expected = passport.base["files"]
    if not expected:
        return not_checked(name, "the base has none")
    files = base_files(path)
    if not files:
        return not_checked(name, f"{path} is not here; its tensors are compared once loaded")
    faults, nbytes = [], 0
    for file, digest in expected.items():
        if file not in files:
            faults.append(f"{file} of the base {path} is missing: copy the base again.")
            continue
        nbytes += files[file].stat().st_size
        if file_digest(files[file]) != digest:
            change = _change(files[file], passport.base["tensors"], passport.base["dtype"])
            faults.append(f"{files[file]} is not the base's file of then: {change}.")
    return Check(name, f"{len(expected)} files, {size(nbytes)}", tuple(faults))


def _change(path: Path, digests: Mapping[str, str], dtype: str | None = None) -> str:
    """Which tensors of a file have changed, in a clause."""
    try:
        tensors = stored_tensors(path)
    except (ValueError, OSError) as error:
        return f"it cannot be read any more ({str(error).rstrip('.')})"
    if not tensors:
        return "its bytes have changed"
    changed = list(_changed(tensors, digests, dtype))
    if not changed:
        return "what stands beside its tensors has changed"
    return f"tensor {first_of(changed)} has changed"


def _changed(
    tensors: Mapping[str, Tensor], digests: Mapping[str, str], dtype: str | None
) -> Iterator[str]:
    """Names of the tensors whose hash is another; those of a base in the precision it is used in.

    A base's file may name tensors otherwise than the model does, and lacks those that are tied.
    """
    for name, tensor in tensors.items():
        if dtype and tensor.is_floating_point():
            tensor = tensor.to(getattr(torch, dtype))
        if name not in digests and dtype:
            continue
        if digests.get(name) != tensor_digest(tensor):
            yield name
    if not dtype:
        yield from sorted(digests.keys() - tensors.keys())
