"""Selects the layers and neurons from the scores that detection has measured."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from polylect.layers.neurons.categories import categorise, choose_layers
from polylect.library.neurons.file import NeuronFile
from polylect.library.neurons.kinds import ModuleNeurons


def select_neurons(
    neurons: ModuleNeurons, layers: Mapping[str, Any], categories: Mapping[str, Any], seed: int
) -> ModuleNeurons:
    """Return the neurons with layers and categories chosen from their scores.

    The layers are the same for all kinds of neurons; each kind is sorted by itself.

    Args:
        layers, categories: as `polylect detect` has them.
    """
    generator = torch.Generator().manual_seed(seed)
    relevance = torch.tensor(neurons.any.about["relevance"][layers["form"]], dtype=torch.float64)
    k, count = layers["k"], relevance.shape[1]
    if k > count:
        print(f"layers.k={k}: the model has {count} layers.")
    used = choose_layers(relevance, min(k, count), layers["rule"], generator=generator)
    about = {"layers": dict(layers), "categories": dict(categories), "seed": seed}
    return ModuleNeurons(
        {
            kind: _select(
                replace(
                    file,
                    relevance=relevance.float(),
                    about={**file.about, "chosen": about},
                ),
                used,
                dict(categories),
                generator,
            )
            for kind, file in neurons.kinds.items()
        }
    )


def _select(
    file: NeuronFile, used: torch.Tensor, options: dict[str, Any], generator: torch.Generator
) -> NeuronFile:
    positions = used.any(1).nonzero().flatten().tolist()
    scores = file.scores(options.pop("positions"))
    by_layer = [
        categorise(
            scores[:, layer], activation=file.activation[:, layer], generator=generator, **options
        )
        for layer in positions
    ]
    return replace(
        file,
        layers=tuple(positions),
        selected=used[positions],
        general=torch.stack([categories.general for categories in by_layer]),
        specific=torch.stack([categories.specific for categories in by_layer]),
    )
