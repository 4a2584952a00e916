"""The adapters of a library in aligned form, worked out once and kept beside them.

What A* and B* of an adapter are says `polylect.layers.align`, which is handed in: a library reads
and writes, it does not compute.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from polylect.library.adapter import Adapter, LowRank
from polylect.library.folder import AdapterLibrary
from polylect.library.peft_format import CONFIG, WEIGHTS, read_config

FILE = "aligned.safetensors"
FACTORS = ("a_star", "b_star")

EQUAL = 0.999
"""From this ratio of the two largest singular values on, the arrow is taken to be arbitrary.

A relative change of the update of about one minus this ratio can turn it by any angle."""

_VERSION = "1"
_OPEN_FILES = 64

Align = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


class AlignedLibrary:
    """A*, B* and singular values of every adapter, read tensor by tensor.

    Each adapter's folder gets an `aligned.safetensors`, written whole or not at all, with the hash
    of the adapter's two PEFT files; when they change, it is made again. Where the folder cannot be
    written, the aligned form stays in memory.

    Args:
        library: the adapters.
        align: from A, B and the scaling of an update to A* and B*.

    Attributes:
        library: the adapters.
    """

    def __init__(self, library: AdapterLibrary, align: Align) -> None:
        self.library = library
        self._align = align
        self._held: dict[str, tuple[dict[str, Tensor], dict[str, str]]] = {}
        self._strengths: dict[str, dict[str, Tensor]] = {}
        self._open = functools.lru_cache(_OPEN_FILES)(_opened)
        self._scaling = functools.lru_cache(_OPEN_FILES)(self._read_scaling)

    def state(self, name: str) -> str:
        """Whether an adapter's file is "current", "stale" or "missing"."""
        about = self._about(name)
        if about is None:
            return "missing"
        return "current" if self._fits(name, about) else "stale"

    def prepare(self, name: str) -> bool:
        """Sees to it that the aligned form of an adapter can be read; true if it had to be made.

        Call it before anything below.

        Raises:
            ValueError: no such adapter, one that cannot be read, or values that are not finite.
        """
        if self._fits(name, self._about(name)):
            return False
        tensors, scaling = {}, {}
        for path, update in self.library.load(name).modules.items():
            try:
                a_star, b_star = self._align(update.a, update.b, update.scaling)
            except ValueError as error:
                raise ValueError(f"adapter {name!r}, {path}: {error}") from error
            tensors[f"{path}.a_star"], tensors[f"{path}.b_star"] = a_star, b_star
            tensors[f"{path}.strengths"] = torch.linalg.vector_norm(b_star, dim=0)
            scaling[path] = update.scaling
        about = {"version": _VERSION, "adapter": self.digest(name), "scaling": json.dumps(scaling)}
        self._keep(name, tensors, about)
        return True

    def outline(self, name: str) -> Adapter:
        """The adapter with tensors that have shapes and nothing else, to see whether it fits."""
        modules = {}
        for path in self.paths(name):
            a, b = (
                torch.empty(*_shape(self._entry(name, f"{path}.{factor}")), device="meta")
                for factor in FACTORS
            )
            modules[path] = LowRank(a, b, 1.0)
        return Adapter(modules, self.library.about(name), read_config(self._folder(name)))

    def paths(self, name: str) -> list[str]:
        """The modules that an adapter updates, sorted."""
        held = name in self._held
        keys = self._held[name][0] if held else self._open(self._path(name)).keys()
        return sorted(key.removesuffix(".a_star") for key in keys if key.endswith(".a_star"))

    def arrow(self, name: str, path: str) -> Float[Tensor, " in"]:
        """The first row of A*, of which no more is read."""
        return self._entry(name, f"{path}.a_star")[:1].flatten()

    def strengths(self, name: str) -> dict[str, Float[Tensor, " rank"]]:
        """Singular values of the update of each module, largest first; read once."""
        if name not in self._strengths:
            self._strengths[name] = {
                path: self._entry(name, f"{path}.strengths")[:] for path in self.paths(name)
            }
        return self._strengths[name]

    def factor(self, name: str, path: str, factor: str) -> Float[Tensor, "rows columns"]:
        """A factor of one module: "a_star" (rank, in) or "b_star" (out, rank)."""
        return self._entry(name, f"{path}.{factor}")[:]

    def trained(self, name: str, path: str, factor: str) -> Float[Tensor, "rows columns"]:
        """As `factor`, but as it was trained; B is multiplied by the scaling.

        Read from PEFT's file, and in at least float32.
        """
        letter = factor[0].upper()
        file = self._open(self._folder(name) / WEIGHTS)
        tensor = file.get_tensor(f"base_model.model.{path}.lora_{letter}.weight")
        tensor = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
        return tensor if letter == "A" else tensor * self._scaling(name)[path]

    def weakness(self, name: str) -> str | None:
        """Of what in an adapter the arrow tells little or nothing, in one clause."""
        strengths = self.strengths(name)
        zero = [path for path, s in strengths.items() if not s[0]]
        equal = [path for path, s in strengths.items() if len(s) > 1 and s[1] > EQUAL * s[0] > 0]
        found = []
        if zero:
            found.append(f"does nothing in {_some(zero, strengths)}")
        if equal:
            found.append(f"has no single strongest direction in {_some(equal, strengths)}")
        return " and ".join(found) or None

    def _keep(self, name: str, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
        path = self._path(name)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            save_file(tensors, temporary, metadata=about)
            os.replace(temporary, path)
            self._held.pop(name, None)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            if not self._held:
                print(f"{path} cannot be written ({error}): aligned adapters stay in memory.")
            self._held[name] = (tensors, about)
        self._strengths.pop(name, None)
        self._open.cache_clear()
        self._scaling.cache_clear()

    def _read_scaling(self, name: str) -> dict[str, float]:
        return json.loads(self._about(name)["scaling"])

    def _entry(self, name: str, key: str) -> Any:
        """A tensor, or what reads one when it is indexed."""
        if name in self._held:
            return self._held[name][0][key]
        return self._open(self._path(name)).get_slice(key)

    def _about(self, name: str) -> dict[str, str] | None:
        """What is noted with the aligned form; None where there is none, empty where damaged."""
        if name in self._held:
            return self._held[name][1]
        try:
            return safe_open(self._path(name), framework="pt").metadata() or {}
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError):
            return {}

    def _fits(self, name: str, about: Mapping[str, str] | None) -> bool:
        known = about is not None and about.get("version") == _VERSION
        return known and about.get("adapter") == self.digest(name)

    def digest(self, name: str) -> str:
        """SHA-256 of the weights, and of the configuration since the scaling is there."""
        total = hashlib.sha256()
        for part in (CONFIG, WEIGHTS):
            path = self._folder(name) / part
            if not path.is_file():
                raise FileNotFoundError(f"{path.parent} has no {part}")
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()

    def _path(self, name: str) -> Path:
        return self._folder(name) / FILE

    def _folder(self, name: str) -> Path:
        return self.library.path / name


def _opened(path: Path) -> Any:
    return safe_open(path, framework="pt")


def _shape(entry: Any) -> tuple[int, ...]:
    return tuple(entry.shape if isinstance(entry, Tensor) else entry.get_shape())


def _some(paths: list[str], of: Mapping[str, Any]) -> str:
    return f"{len(paths)} of {len(of)} modules (such as {paths[0]})"
