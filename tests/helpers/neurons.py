"""Neuron files with random owners."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from polylect.library import base_fingerprint
from polylect.library.neurons.file import NeuronFile


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
