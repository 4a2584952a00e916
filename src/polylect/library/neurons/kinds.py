"""Neurons of several kinds in one file: of feed-forward networks, and output rows of any module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polylect.library.neurons.file import NeuronFile, read_tensors, write_tensors

FFN = "ffn"
"""The kind of neurons that are a row of the up and gate and a column of the down projection."""

_MODULES = "modules"
_COMMON = ("selected", "relevance")  # of the layers, whatever the kind


@dataclass(frozen=True)
class ModuleNeurons:
    """What detection has found of every kind of neurons, in the same layers.

    A file of FFN neurons alone is a plain `NeuronFile`.

    Attributes:
        kinds: by `FFN`, or the path in a layer of a module whose output rows (or elements) are
            meant, as in "self_attn.q_proj"; at least one.
    """

    kinds: Mapping[str, NeuronFile]

    @property
    def any(self) -> NeuronFile:
        """Return one of them, for what all have in common."""
        return next(iter(self.kinds.values()))

    def write(self, path: str | Path) -> None:
        """Write one safetensors file; raises as `NeuronFile.write`."""
        if list(self.kinds) == [FFN]:
            return self.any.write(path)
        tensors = {
            name if name in _COMMON else f"{kind}/{name}": tensor
            for kind, file in self.kinds.items()
            for name, tensor in file.tensors().items()
        }
        write_tensors(path, tensors, self.any.header() | {_MODULES: list(self.kinds)})

    @classmethod
    def read(cls, path: str | Path) -> "ModuleNeurons":
        """Read a file of this or of `NeuronFile.write`; raises as `NeuronFile.read`."""
        header, stored = read_tensors(path)
        if _MODULES not in header:
            return cls({FFN: NeuronFile.from_tensors(Path(path), header, stored)})
        common = {name: stored[name] for name in _COMMON if name in stored}
        own: dict[str, dict[str, Tensor]] = {kind: dict(common) for kind in header[_MODULES]}
        for name, tensor in stored.items():
            kind, _, what = name.rpartition("/")
            if kind in own:
                own[kind][what] = tensor
        return cls(
            {kind: NeuronFile.from_tensors(Path(path), header, t) for kind, t in own.items()}
        )

    def of_kinds(self, wanted: Sequence[str]) -> "ModuleNeurons":
        """Choose those of some kinds; raises ValueError where one is not there."""
        if missing := [kind for kind in wanted if kind not in self.kinds]:
            raise ValueError(
                f"the neuron file has no neurons of {missing[0]}, it has {', '.join(self.kinds)}: "
                "run `polylect detect` with neurons=…"
            )
        return ModuleNeurons({kind: self.kinds[kind] for kind in wanted})

    def difference(self, other: "ModuleNeurons") -> str | None:
        """Return in what categories differ, as "general"; None where they are the same."""
        for kind, file in self.kinds.items():
            for part in ("layers", "selected", "general", "specific"):
                here, there = (getattr(f, part, ()) for f in (file, other.kinds.get(kind)))
                if not torch.equal(torch.as_tensor(here), torch.as_tensor(there)):
                    return part
        return None

    def counts(self) -> dict[str, dict[str, int]]:
        """Return `NeuronFile.counts`, summed up over all kinds."""
        total: dict[str, dict[str, int]] = {}
        for file in self.kinds.values():
            for owner, row in file.counts().items():
                own = total.setdefault(owner, dict.fromkeys(row, 0))
                for what, number in row.items():
                    own[what] += number
        return total

    def structure(self) -> dict[str, Any]:
        """Return for checkpoints all that `from_structure` needs."""
        if list(self.kinds) == [FFN]:
            return {"neurons": dict(vars(self.any))}
        return {_MODULES: {kind: dict(vars(file)) for kind, file in self.kinds.items()}}

    @classmethod
    def from_structure(cls, structure: Mapping[str, Any]) -> "ModuleNeurons":
        """Build what a checkpoint holds; raises KeyError or TypeError where it holds none."""
        if _MODULES in structure:
            return cls({k: NeuronFile(**file) for k, file in structure[_MODULES].items()})
        return cls({FFN: NeuronFile(**structure["neurons"])})
