"""The adapters of a library in aligned form, worked out once and kept beside them.

`polylect.layers.adapters.alignment` says what A* and B* of an adapter are, and is handed in: a
library reads and writes, it does not compute.
"""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from polylect.files import Unwritable, open_tensors, whole_file
from polylect.library.adapter import Adapter, LowRank
from polylect.library.folder import AdapterLibrary
from polylect.library.peft_format import WEIGHTS, read_config

FILE = "aligned.safetensors"
FACTORS = ("a_star", "b_star")

EQUAL = 0.999
"""From this ratio of the two largest singular values on, the arrow is taken to be arbitrary.

A relative change of the update of about one minus this ratio can turn it by any angle."""

_VERSION = "2"
_OPEN_FILES = 64
_ATTEMPTS = 3

Align = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


class AlignedLibrary:
    """A*, B* and singular values of every adapter, read tensor by tensor.

    Each adapter's folder gets an `aligned.safetensors`, written whole or not at all, with the hash
    of the adapter's two PEFT files; when they change, it is made again. Where the folder cannot be
    written, the aligned form stays in memory. What is read is always of the adapter that was there
    when it was prepared: an adapter that has been replaced since is refused.

    Args:
        library: the adapters.
        align: from A, B and the scaling of an update to A* and B*.

    Attributes:
        library: the adapters.
        prepared: `digest` of each adapter as it was prepared.
    """

    def __init__(self, library: AdapterLibrary, align: Align) -> None:
        self.library = library
        self.prepared: dict[str, str] = {}
        self._align = align
        self._versions: dict[str, tuple[int, ...] | None] = {}
        self._in_memory: dict[str, tuple[dict[str, Tensor], dict[str, str]]] = {}
        self._strengths: dict[str, dict[str, Tensor]] = {}
        self._aligned_file = functools.lru_cache(_OPEN_FILES)(self._open_aligned)
        self._weights_file = functools.lru_cache(_OPEN_FILES)(self._open_weights)
        self._scaling = functools.lru_cache(_OPEN_FILES)(self._read_scaling)

    def state(self, name: str) -> str:
        """Return whether an adapter's file is "current", "stale" or "missing"."""
        about = self._about(name)
        if about is None:
            return "missing"
        return "current" if _fits(about, self.digest(name)) else "stale"

    def prepare(self, name: str) -> bool:
        """Sees to it that the aligned form of an adapter can be read; true if it had to be made.

        Call it before anything below.

        Raises:
            ValueError: no such adapter, one that cannot be read or changes meanwhile, or values
                that are not finite.
        """
        was_aligned = False
        for _ in range(_ATTEMPTS):
            version, digest = self.library.version(name), self.digest(name)
            if self.prepared.get(name) != digest:
                self._forget(name)
            if _fits(self._about(name), digest):
                self.prepared[name], self._versions[name] = digest, version
                return was_aligned
            tensors, scaling = self._align_modules(name)
            if self.digest(name) == digest:  # else it is not sure what was read
                about = {"version": _VERSION, "adapter": digest, "scaling": json.dumps(scaling)}
                self._keep(name, tensors, about)
                was_aligned = True
        raise ValueError(
            f"{self.library.folder(name)} changes while it is aligned: try again when it is written"
        )

    def _align_modules(self, name: str) -> tuple[dict[str, Tensor], dict[str, float]]:
        tensors: dict[str, Tensor] = {}
        scaling: dict[str, float] = {}
        for path, update in self.library.load(name).modules.items():
            try:
                a_star, b_star = self._align(update.a, update.b, update.scaling)
            except ValueError as error:
                raise ValueError(f"adapter {name!r}, {path}: {error}") from error
            tensors[f"{path}.a_star"], tensors[f"{path}.b_star"] = a_star, b_star
            tensors[f"{path}.strengths"] = torch.linalg.vector_norm(b_star, dim=0)
            scaling[path] = update.scaling
        return tensors, scaling

    def outline(self, name: str) -> Adapter:
        """Return the adapter with tensors that have shapes alone, to see whether it fits."""
        modules = {}
        for path in self.paths(name):
            a, b = (
                torch.empty(*_shape(self._entry(name, f"{path}.{factor}")), device="meta")
                for factor in FACTORS
            )
            modules[path] = LowRank(a, b, 1.0)
        about, config = self.library.about(name), read_config(self.library.folder(name))
        self._check_unchanged(name)
        return Adapter(modules, about, config)

    def paths(self, name: str) -> list[str]:
        """Return the modules that an adapter updates, sorted."""
        held = name in self._in_memory
        keys = self._in_memory[name][0] if held else self._aligned_file(name).keys()
        return sorted(key.removesuffix(".a_star") for key in keys if key.endswith(".a_star"))

    def arrow(self, name: str, path: str) -> Float[Tensor, " in"]:
        """Return the first row of A*, of which no more is read."""
        return self._entry(name, f"{path}.a_star")[:1].flatten()

    def strengths(self, name: str) -> dict[str, Float[Tensor, " rank"]]:
        """Return the singular values of the update of each module, largest first; read once."""
        if name not in self._strengths:
            self._strengths[name] = {
                path: self._entry(name, f"{path}.strengths")[:] for path in self.paths(name)
            }
        return self._strengths[name]

    def factor(self, name: str, path: str, factor: str) -> Float[Tensor, "rows columns"]:
        """Return a factor of one module: "a_star" (rank, in) or "b_star" (out, rank)."""
        return self._entry(name, f"{path}.{factor}")[:]

    def trained_factor(self, name: str, path: str, factor: str) -> Float[Tensor, "rows columns"]:
        """Return a factor as it was trained, "a" or "b"; B is multiplied by the scaling.

        Read from PEFT's file, and in at least float32.
        """
        letter = factor[0].upper()
        key = f"base_model.model.{path}.lora_{letter}.weight"
        tensor = self._weights_file(name).get_tensor(key)
        tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        return tensor if letter == "A" else tensor * self._scaling(name)[path]

    def weakness(self, name: str) -> str | None:
        """Return in one clause where the arrow of an adapter says little or nothing; else None."""
        strengths = self.strengths(name)
        zero = [path for path, s in strengths.items() if not s[0]]
        equal = [path for path, s in strengths.items() if len(s) > 1 and s[1] > EQUAL * s[0] > 0]
        clauses = []
        if zero:
            clauses.append(f"does nothing in {_count_of(zero, strengths)}")
        if equal:
            clauses.append(f"has no single strongest direction in {_count_of(equal, strengths)}")
        return " and ".join(clauses) or None

    def _keep(self, name: str, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
        path = self._path(name)
        try:
            with whole_file(path) as partial:
                save_file(tensors, partial, metadata=about)
            self._in_memory.pop(name, None)
        except Unwritable as error:
            if not self._in_memory:
                print(f"{error}: aligned adapters stay in memory.")
            self._in_memory[name] = (tensors, about)
        self._forget(name)

    def _forget(self, name: str) -> None:
        """Clear everything that was read of an adapter before."""
        self._strengths.pop(name, None)
        for cache in (self._aligned_file, self._weights_file, self._scaling):
            cache.cache_clear()

    def _read_scaling(self, name: str) -> dict[str, float]:
        return json.loads(self._about(name)["scaling"])

    def _entry(self, name: str, key: str) -> Any:
        """Return a tensor, or an object that reads one when it is indexed."""
        if name in self._in_memory:
            return self._in_memory[name][0][key]
        return self._aligned_file(name).get_slice(key)

    def _about(self, name: str) -> dict[str, str] | None:
        """Return the metadata of the aligned form; None without one, empty where damaged."""
        if name in self._in_memory:
            return self._in_memory[name][1]
        try:
            return open_tensors(self._path(name)).metadata() or {}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, SafetensorError):
            return {}

    def _open_aligned(self, name: str) -> Any:
        try:
            file = open_tensors(self._path(name))
        except (OSError, ValueError, SafetensorError) as error:
            raise self._replaced_error(name) from error
        if not _fits(file.metadata(), self.prepared[name]):
            raise self._replaced_error(name)
        return file

    def _open_weights(self, name: str) -> Any:
        file = open_tensors(self.library.folder(name) / WEIGHTS)
        self._check_unchanged(name)
        return file

    def _check_unchanged(self, name: str) -> None:
        """Raises ValueError if an adapter is another than the one that was prepared."""
        changed = self.library.version(name) != self._versions[name]
        if changed and self.digest(name) != self.prepared[name]:
            raise self._replaced_error(name)

    def _replaced_error(self, name: str) -> ValueError:
        return ValueError(
            f"{self.library.folder(name)} has been replaced since it was read: start again with "
            "the new adapter"
        )

    def digest(self, name: str) -> str:
        """Return the digest of an adapter: see `AdapterLibrary.digest`."""
        return self.library.digest(name)

    def _path(self, name: str) -> Path:
        return self.library.folder(name) / FILE


def _fits(about: Mapping[str, str] | None, digest: str) -> bool:
    """Say whether an aligned form with these notes is that of the adapter with this digest."""
    is_current = about is not None and about.get("version") == _VERSION
    return is_current and about.get("adapter") == digest


def _shape(entry: Any) -> tuple[int, ...]:
    return tuple(entry.shape if isinstance(entry, Tensor) else entry.get_shape())


def _count_of(paths: list[str], modules: Mapping[str, Any]) -> str:
    return f"{len(paths)} of {len(modules)} modules (such as {paths[0]})"
