"""Pictures of neurons, gates, experts and routed adapters, as matplotlib figures and PNG files.

They need matplotlib, an extra, and no screen: nothing here touches pyplot or its state.
"""

from polylect.plots.adapters import choices, chosen, of_routing, right, similarity
from polylect.plots.detection import jaccard, neuron_map, of_detection, overlap, specific_share
from polylect.plots.drawing import MissingMatplotlib, save, save_all
from polylect.plots.experts import (
    EXPERTS,
    by_language,
    expert_entropy,
    expert_numbers,
    expert_shares,
    gate_along,
    of_experts,
)
from polylect.plots.routing import gates, gates_over_steps, of_gates, openness

__all__ = [
    "EXPERTS",
    "MissingMatplotlib",
    "by_language",
    "choices",
    "chosen",
    "expert_entropy",
    "expert_numbers",
    "expert_shares",
    "gate_along",
    "gates",
    "gates_over_steps",
    "jaccard",
    "neuron_map",
    "of_detection",
    "of_experts",
    "of_gates",
    "of_routing",
    "openness",
    "overlap",
    "right",
    "save",
    "save_all",
    "similarity",
    "specific_share",
]
