"""LAG's choice for the tokens of one layer, from its two halves."""

from typing import Any

from torch import Tensor

from polylect.layers.adapters.scores import best_candidate_of, retrieve


def lag_project(
    x: Tensor, arrows: Tensor, a_star: Tensor, k: int, *form: str, **statistics: Any
) -> tuple[Tensor, Tensor]:
    """Of the k best by Arrow the best by SpectR, and its A* x."""
    return best_candidate_of(x, retrieve(x, arrows, k), a_star, *form, **statistics)


def lag_select(
    x: Tensor, arrows: Tensor, a_star: Tensor, k: int, *form: str, **statistics: Any
) -> Tensor:
    """The first of what `lag_project` returns: the adapter of each token."""
    return lag_project(x, arrows, a_star, k, *form, **statistics)[0]
