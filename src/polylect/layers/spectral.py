"""Which adapter of a library suits a token: scores and choices of Arrow, SpectR and LAG.

All take what `align` makes of the adapters of one linear layer, and the layer's input. Scores are
computed in float32 or better, under autocast too.

- Arrow (arXiv 2405.11157): |v · x|, where v is the first row of A*.
- SpectR (COLM 2025): the length of A* x.
- LAG (arXiv 2507.05346): the best of SpectR among the k best of Arrow.

Scores that differ by no more than rounding are ties, which the lowest index wins; otherwise the
choice between copies of an adapter would depend on the batch's size.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.hints import nearest
from polylect.layers.adapter_products import projected

FORMS = ("proj", "energy", "calibrated")

_TIE = 32
"""Relative differences up to this many times machine epsilon are ties.

Copies of an adapter were up to 27 apart in one float32 product with d = 4096.
"""


def arrow_scores(
    x: Float[Tensor, "tokens d"], arrows: Float[Tensor, "adapters d"]
) -> Float[Tensor, "tokens adapters"]:
    """|v · x| for the arrow v of each adapter; the arrow's sign does not matter.

    Args:
        x: the layer's input.
        arrows: the first row of each A*.
    """
    return _products(x, arrows).abs()


def spectral_scores(
    x: Float[Tensor, "tokens d"],
    a_star: Float[Tensor, "adapters rank d"],
    form: str = "proj",
    *,
    strengths: Float[Tensor, "adapters rank"] | None = None,
    mean: Float[Tensor, "adapters"] | None = None,
    std: Float[Tensor, "adapters"] | None = None,
) -> Float[Tensor, "tokens adapters"]:
    """How much of each token lies in the directions of each adapter.

    - ``proj``: ‖Vᵀx‖, the score of SpectR's code and of LAG. It knows nothing of singular values:
      a weak direction counts as much as a strong one, and one of strength zero as well.
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
    return _lengths(projections, form, strengths, mean, std)


def lag_select(
    x: Float[Tensor, "tokens d"],
    arrows: Float[Tensor, "adapters d"],
    a_star: Float[Tensor, "adapters rank d"],
    k: int,
    form: str = "proj",
    *,
    strengths: Float[Tensor, "adapters rank"] | None = None,
    mean: Float[Tensor, "adapters"] | None = None,
    std: Float[Tensor, "adapters"] | None = None,
) -> Int[Tensor, "tokens"]:
    """The adapter of each token: the best by `spectral_scores` among the k best by Arrow.

    k = 1 is Arrow alone, k = adapters (or more) SpectR alone. Arguments as in `lag_project`.
    """
    return lag_project(x, arrows, a_star, k, form, strengths=strengths, mean=mean, std=std)[0]


def lag_project(
    x: Float[Tensor, "tokens d"],
    arrows: Float[Tensor, "adapters d"],
    a_star: Float[Tensor, "adapters rank d"],
    k: int,
    form: str = "proj",
    *,
    strengths: Float[Tensor, "adapters rank"] | None = None,
    mean: Float[Tensor, "adapters"] | None = None,
    std: Float[Tensor, "adapters"] | None = None,
) -> tuple[Int[Tensor, "tokens"], Float[Tensor, "tokens rank"]]:
    """`lag_select` and the product A* x of the chosen adapter, which its update needs anyway.

    Costs about n d + k r d multiplications per token for n adapters of rank r.

    Args:
        x: the layer's input.
        arrows: the first row of each A*.
        a_star: A* of each adapter; lower ranks are filled up with zeros.
        k: how many adapters Arrow leaves to choose from, at least 1.
        form: of `spectral_scores`, like all that follows.

    Raises:
        ValueError: k is below 1, or as in `spectral_scores`.
    """
    _check_form(form, strengths)
    candidates = top_scored(arrow_scores(x, arrows), k)
    dtype = _score_dtype(x)
    projections = projected(x.to(dtype), a_star.to(dtype), candidates)
    of_candidates = (None if of is None else of[candidates] for of in (strengths, mean, std))
    best = top_scored(_lengths(projections, form, *of_candidates), 1)
    rank = best.unsqueeze(2).expand(-1, -1, a_star.shape[1])
    return candidates.gather(1, best).squeeze(1), projections.gather(1, rank).squeeze(1)


def top_scored(scores: Float[Tensor, "tokens adapters"], k: int) -> Int[Tensor, "tokens chosen"]:
    """The k adapters with the highest scores (all if there are fewer), in order of their index.

    `torch.topk` takes any of those that tie for the last place, here it is the lowest index.

    Raises:
        ValueError: k is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1 adapter to choose from, got {k}")
    tokens, adapters = scores.shape
    if k >= adapters:
        return torch.arange(adapters, device=scores.device).expand(tokens, -1)
    values, chosen = scores.topk(k + 1)
    last, next_ = values[:, k - 1 : k], values[:, k:]
    margin = last.abs() * (_TIE * torch.finfo(scores.dtype).eps)
    tied = (last - next_ <= margin).squeeze(1)
    chosen = chosen[:, :k]
    if tied.any():
        rest, last, margin = scores[tied], last[tied], margin[tied]
        place = (rest >= last - margin).int() + (rest > last + margin)
        chosen[tied] = place.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return chosen.sort(dim=1).values


def _check_form(form: str, strengths: Tensor | None) -> None:
    if form not in FORMS:
        raise ValueError(f"unknown form {form!r} of spectral scores: {nearest(form, FORMS)}")
    if form != "proj" and strengths is None:
        raise ValueError(
            f"spectral scores of the form {form!r} need strengths, since all rows of A* "
            "have length one: pass singular_values(b_star)"
        )


def _lengths(
    projections: Tensor,
    form: str,
    strengths: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
) -> Tensor:
    """Scores from A* x, (tokens, adapters, rank); the rest by adapter, or by token and adapter."""
    if form == "proj":
        return torch.linalg.vector_norm(projections, dim=2)
    energy = torch.linalg.vector_norm(projections * strengths, dim=2)
    if form == "energy":
        return energy
    std = torch.linalg.vector_norm(strengths, dim=-1) if std is None else std
    centred = energy if mean is None else energy - mean
    return centred / std.clamp_min(torch.finfo(std.dtype).tiny)


def _products(x: Tensor, rows: Tensor) -> Tensor:
    dtype = _score_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        return x.to(dtype) @ rows.to(dtype).T


def _score_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
