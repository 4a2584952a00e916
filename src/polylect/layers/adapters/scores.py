"""Scores of adapters for a token, and selection by them: Arrow, SpectR and LAG.

All take what `align` makes of the adapters of one linear layer, and the layer's input. Scores are
computed in float32 or better, under autocast too.

- Arrow (arXiv 2405.11157): |v · x|, where v is the first row of A*.
- SpectR (COLM 2025): the length of A* x.
- LAG (arXiv 2507.05346): the best of SpectR among the k best of Arrow.

Scores that differ by no more than rounding are ties, which the lowest index wins; otherwise the
choice between copies of an adapter would depend on the batch's size.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.did_you_mean import did_you_mean
from polylect.kernels.lag_select import best_candidate
from polylect.kernels.lag_select.reference import TIE

FORMS = ("proj", "energy", "calibrated")


def arrow_scores(
    x: Float[Tensor, "tokens d"], arrows: Float[Tensor, "adapters d"]
) -> Float[Tensor, "tokens adapters"]:
    """Return |v · x| for the arrow v of each adapter; the arrow's sign does not matter.

    Args:
        x: the layer's input.
        arrows: the first row of each A*.
    """
    return _products(x, arrows).abs_()


def spectral_scores(
    x: Float[Tensor, "tokens d"],
    a_star: Float[Tensor, "adapters rank d"],
    form: str = "proj",
    *,
    strengths: Float[Tensor, "adapters rank"] | None = None,
    mean: Float[Tensor, " adapters"] | None = None,
    std: Float[Tensor, " adapters"] | None = None,
) -> Float[Tensor, "tokens adapters"]:
    """Return how much of each token lies in the directions of each adapter.

    - ``proj``: ‖Vᵀx‖, the score of SpectR's code and of LAG. It knows nothing of singular values:
      a weak direction counts as much as a strong one, and only one of strength zero for nothing,
      since its row of A* is zero (in the papers' code it counts as well, and is arbitrary).
    - ``energy``: ‖S Vᵀ x‖ = ‖B A x‖, the size of the update itself.
    - ``calibrated``: (energy - mean) / std (SEQR, arXiv 2509.18093), for adapters whose updates
      differ in size.

    Args:
        x: the layer's input.
        a_star: A* = Vᵀ of each adapter; lower ranks are filled up with zeros.
        form: one of the three above.
        strengths: S, as `singular_values` gives it; needed unless the form is ``proj``.
        mean: of an adapter's energy on the data it was trained on; by default zero.
        std: the standard deviation of the same; by default the square root of the sum of S²,
            which makes adapters of one shape but different strength equal.

    Raises:
        ValueError: the form is unknown or lacks its strengths.
    """
    _check_form(form, strengths)
    projections = _products(x, a_star.flatten(0, 1)).view(len(x), *a_star.shape[:2])
    strengths, mean, std = _statistics(form, strengths, mean, std)
    if strengths is None:
        return torch.linalg.vector_norm(projections, dim=2)
    energy = torch.linalg.vector_norm(projections.mul_(strengths), dim=2)
    energy = energy if mean is None else energy - mean
    return energy if std is None else energy / std


def retrieve(
    x: Float[Tensor, "tokens d"], arrows: Float[Tensor, "adapters d"], k: int
) -> Int[Tensor, "tokens candidates"]:
    """Return the first half of LAG: the k best adapters of each token by Arrow, in any order.

    Raises:
        ValueError: k is below 1.
    """
    if k >= arrows.shape[0]:
        return torch.arange(len(arrows), device=x.device).expand(len(x), -1)
    return top_scored(arrow_scores(x, arrows), k)


def best_candidate_of(
    x: Float[Tensor, "tokens d"],
    candidates: Int[Tensor, "tokens k"],
    a_star: Float[Tensor, "adapters rank d"],
    form: str = "proj",
    *,
    strengths: Float[Tensor, "adapters rank"] | None = None,
    mean: Float[Tensor, " adapters"] | None = None,
    std: Float[Tensor, " adapters"] | None = None,
) -> tuple[Int[Tensor, " tokens"], Float[Tensor, "tokens rank"]]:
    """Return the second half of LAG: the best of the candidates by `spectral_scores`, and its A* x.

    Args:
        candidates: distinct adapters of each token.

    Raises:
        ValueError: as in `spectral_scores`.
    """
    _check_form(form, strengths)
    with no_autocast(x):
        return best_candidate(x, candidates, a_star, *_statistics(form, strengths, mean, std))


def top_scored(scores: Float[Tensor, "tokens adapters"], k: int) -> Int[Tensor, "tokens chosen"]:
    """Return the k adapters with the highest scores (all if there are fewer), in any order.

    `torch.topk` takes any of those that tie for the last place, here it is the lowest index. On a
    GPU nothing waits for the scores.

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1 adapter to choose from, got {k}")
    tokens, adapters = scores.shape
    if k >= adapters:
        return torch.arange(adapters, device=scores.device).expand(tokens, -1)
    if not scores.is_cpu:
        return _first_of_ties(scores, scores.topk(k).values[:, k - 1 :], k)
    values, indices = scores.topk(k + 1)
    last, indices = values[:, k - 1], indices[:, :k]
    tied = values[:, k] >= _margin(last, -1)
    if tied.any():
        indices[tied] = _first_of_ties(scores[tied], last[tied].unsqueeze(1), k)
    return indices


def _first_of_ties(scores: Tensor, last: Tensor, k: int) -> Tensor:
    """Return the positions of the k highest scores; of those that tie, the first ones."""
    place = (scores >= _margin(last, -1)).long() + (scores > _margin(last, 1))
    keys = place * scores.shape[1] + torch.arange(scores.shape[1], device=scores.device).flip(0)
    return keys.topk(k).indices


def _margin(scores: Tensor, sign: int) -> Tensor:
    """Return the lowest (`sign` -1) or highest (1) value that ties with each score."""
    return torch.add(scores, scores.abs(), alpha=sign * TIE * torch.finfo(scores.dtype).eps)


def no_autocast(x: Tensor) -> AbstractContextManager:
    """Keep products in the precision of their factors inside the block, under autocast too."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):  # to enter this context takes as long as a small product
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def _check_form(form: str, strengths: Tensor | None) -> None:
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r} of spectral scores: {did_you_mean(form, FORMS)}")
    if form != "proj" and strengths is None:
        raise ValueError(
            f"spectral scores of the form {form!r} need strengths, since all rows of A* "
            "have length one: pass singular_values(b_star)"
        )


def _statistics(
    form: str, strengths: Tensor | None, mean: Tensor | None, std: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return strengths, mean and deviation as the form uses them: (‖S A* x‖ - mean) / std."""
    if form == "proj":
        return None, None, None
    if form == "energy":
        return strengths, None, None
    std = torch.linalg.vector_norm(strengths, dim=1) if std is None else std
    return strengths, mean, std.clamp_min(torch.finfo(std.dtype).tiny)


def _products(x: Tensor, rows: Tensor) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    with no_autocast(x):
        return x.to(dtype) @ rows.to(dtype).T
