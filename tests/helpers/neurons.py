"""Neuron files with random owners."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from polylect.layers.neurons.row_layer import row_layers
from polylect.library import base_fingerprint
from polylect.library.neurons.file import NeuronFile
from polylect.library.neurons.kinds import ModuleNeurons
from polylect.models.families import family_of


def write_neurons(folder: Path, model: Any, directions: Sequence[str]) -> Path:
    """A file for this base; every neuron of it may be general, specific or nobody's."""
    layers, neurons = model.config.num_hidden_layers, model.config.intermediate_size
    generator = torch.Generator().manual_seed(0)
    shape = (layers, len(directions), neurons)
    specific = torch.rand(shape, generator=generator) < 0.3
    general = (torch.rand(layers, neurons, generator=generator) < 0.3) & ~specific.any(1)
    scores = torch.rand(len(directions), layers, neurons, generator=generator)
    file = NeuronFile(
        directions=tuple(directions),
        layers=tuple(range(layers)),
        selected=torch.ones(layers, len(directions), dtype=torch.bool),
        general=general,
        specific=specific,
        awareness={"source": scores, "target": scores.flip(0)},
        relevance=torch.rand(len(directions), layers, generator=generator),
        activation=scores.clone(),
        base_fingerprint=base_fingerprint(model),
        about={"tokens": {side: [100] * len(directions) for side in ("source", "target")}},
    )
    file.write(folder / "neurons.safetensors")
    return folder / "neurons.safetensors"


def write_rows(folder: Path, model: Any, owners: Sequence[str], kinds: Sequence[str] = ()) -> Path:
    """A file for output rows of modules (all, by default); every row is general or one owner's."""
    family = family_of(model.config)
    blocks = model.get_submodule(family.layers)
    generator = torch.Generator().manual_seed(0)
    files = {}
    for kind in kinds or row_layers(blocks[0]):
        rows = len(blocks[0].get_submodule(kind).weight)
        owner = torch.randint(-1, len(owners), (len(blocks), rows), generator=generator)
        specific = torch.stack([owner == i for i in range(len(owners))], 1)
        scores = torch.rand(len(owners), len(blocks), rows, generator=generator)
        files[kind] = NeuronFile(
            directions=tuple(owners),
            layers=tuple(range(len(blocks))),
            selected=torch.ones(len(blocks), len(owners), dtype=torch.bool),
            general=owner == -1,
            specific=specific,
            awareness={"source": scores, "target": scores.clone()},
            relevance=torch.rand(len(owners), len(blocks), generator=generator),
            activation=torch.zeros_like(scores),
            base_fingerprint=base_fingerprint(model),
            about={"tokens": {side: [100] * len(owners) for side in ("source", "target")}},
        )
    common = {name: getattr(next(iter(files.values())), name) for name in ("selected", "relevance")}
    path = folder / "rows.safetensors"
    ModuleNeurons({kind: replace(file, **common) for kind, file in files.items()}).write(path)
    return path
