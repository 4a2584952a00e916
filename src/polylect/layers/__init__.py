"""Linear layers with adapters; here the functions that route among a library of them."""

from polylect.layers.alignment import align
from polylect.layers.spectral import arrow_scores, lag_select, spectral_scores

__all__ = ["align", "arrow_scores", "lag_select", "spectral_scores"]
