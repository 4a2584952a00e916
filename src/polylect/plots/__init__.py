"""Pictures of neurons and gates, as matplotlib figures and PNG files.

They need matplotlib, an extra, and no screen: nothing here touches pyplot or its state.
"""

from polylect.plots.detection import jaccard, neuron_map, of_detection, overlap, specific_share
from polylect.plots.drawing import MissingMatplotlib, save, save_all
from polylect.plots.routing import gates, gates_over_steps, of_gates, openness

__all__ = [
    "MissingMatplotlib",
    "gates",
    "gates_over_steps",
    "jaccard",
    "neuron_map",
    "of_detection",
    "of_gates",
    "openness",
    "overlap",
    "save",
    "save_all",
    "specific_share",
]
