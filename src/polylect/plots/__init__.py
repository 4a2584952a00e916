"""Pictures of runs, neurons, gates, experts and routed adapters: matplotlib figures, PNG files.

They need no screen: nothing here touches pyplot or its state, and matplotlib is imported when the
first figure is made.
"""

from polylect.plots.adapters import (
    adapter_shares,
    of_routing,
    routing_accuracy,
    similarity,
    token_choices,
    transfer,
    update_overlap,
)
from polylect.plots.curves import (
    directions,
    of_training,
    read_metrics,
    training,
    training_of_runs,
)
from polylect.plots.detection import (
    jaccard,
    neuron_map,
    of_detection,
    of_kinds,
    overlap,
    specific_share,
)
from polylect.plots.experts import (
    EXPERTS,
    by_language,
    expert_entropy,
    expert_metrics,
    expert_shares,
    gate_along,
    of_experts,
)
from polylect.plots.figures import save, save_all
from polylect.plots.gates import gates, gates_over_steps, of_gates, openness
from polylect.plots.interference import interference, responsibility
from polylect.plots.modules import alike, most_aware_overlap, of_modules, specific_rows
from polylect.plots.results import data, of_run, scores
from polylect.plots.studies import study

__all__ = [
    "EXPERTS",
    "adapter_shares",
    "alike",
    "by_language",
    "data",
    "directions",
    "expert_entropy",
    "expert_metrics",
    "expert_shares",
    "gate_along",
    "gates",
    "gates_over_steps",
    "interference",
    "jaccard",
    "most_aware_overlap",
    "neuron_map",
    "of_detection",
    "of_experts",
    "of_gates",
    "of_kinds",
    "of_modules",
    "of_routing",
    "of_run",
    "of_training",
    "openness",
    "overlap",
    "read_metrics",
    "responsibility",
    "routing_accuracy",
    "save",
    "save_all",
    "scores",
    "similarity",
    "specific_rows",
    "specific_share",
    "study",
    "token_choices",
    "training",
    "training_of_runs",
    "transfer",
    "update_overlap",
]
