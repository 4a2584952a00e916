"""The scores that detection has measured, and which layers and neurons it chooses from them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from polylect.layers.neurons.awareness import AwarenessMeter
from polylect.layers.neurons.categories import categorise, choose_layers
from polylect.library.neurons.file import NeuronFile
from polylect.library.neurons.kinds import FFN, ModuleNeurons


def scores_of(
    meter: AwarenessMeter, kinds: Sequence[str], about: Mapping[str, Any]
) -> ModuleNeurons:
    """Return what was measured of these kinds of neurons; nothing is chosen yet.

    Args:
        about: see `NeuronFile`; "measured" names directions and base.
    """
    found = {FFN: _ffn_scores(meter, about)}
    for kind in kinds:
        found[kind] = found[kind] if kind == FFN else _row_scores(meter, kind, found[FFN])
    return ModuleNeurons({kind: found[kind] for kind in kinds})


def _ffn_scores(meter: AwarenessMeter, about: Mapping[str, Any]) -> NeuronFile:
    activation = meter.activation().float().cpu()
    directions, _, neurons = activation.shape
    return NeuronFile(
        directions=tuple(about["measured"]["directions"]),
        layers=(),
        selected=torch.zeros(0, directions, dtype=torch.bool),
        general=torch.zeros(0, neurons, dtype=torch.bool),
        specific=torch.zeros(0, directions, neurons, dtype=torch.bool),
        awareness={side: scores.float().cpu() for side, scores in meter.awareness().items()},
        relevance=meter.relevance().float().cpu(),
        activation=activation,
        base_fingerprint=about["measured"]["base_fingerprint"],
        about=about,
    )


def _row_scores(meter: AwarenessMeter, kind: str, ffn: NeuronFile) -> NeuronFile:
    """The scores of a module's rows; everything else is as for the neurons of the FFN."""
    scores = {side: t.float().cpu() for side, t in meter.row_awareness(kind).items()}
    directions, _, rows = next(iter(scores.values())).shape
    return replace(
        ffn,
        general=torch.zeros(0, rows, dtype=torch.bool),
        specific=torch.zeros(0, directions, rows, dtype=torch.bool),
        awareness=scores,
        activation=torch.zeros_like(scores["target"]),  # rows have no non-linearity
    )


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
