"""Routing among a library of adapters: scores, selection, and the layers that apply it."""

from polylect.layers.adapters.alignment import align
from polylect.layers.adapters.scores import arrow_scores, spectral_scores

__all__ = ["align", "arrow_scores", "spectral_scores"]
