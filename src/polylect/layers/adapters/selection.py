"""Selects the adapters of a bank for each token, with weights: routers and their settings."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.did_you_mean import check_known
from polylect.layers.adapters.bank import AdapterBank
from polylect.layers.adapters.scores import (
    FORMS,
    arrow_scores,
    best_candidate_of,
    retrieve,
    spectral_scores,
    top_scored,
)

ROUTERS = ("lag", "arrow", "spectr", "uniform", "oracle")
WEIGHTS = ("softmax", "uniform")
MIXINGS = ("output", "aligned", "trained")
LEVELS = ("token", "prompt", "sentence", "model", "last")

_BLOCK = 64
"""Adapters whose factors are read together where all of them must be scored."""


@dataclass(frozen=True)
class RouterSettings:
    """How adapters are chosen and what is done with those chosen.

    Attributes:
        router: "lag" (arXiv 2507.05346: of the `k` best by Arrow the best by SpectR), "arrow"
            (arXiv 2405.11157: the `k` best by Arrow), "spectr" (COLM 2025: the `k` best by
            SpectR), "uniform" (all alike) or "oracle" (the one that serves the row's direction).
        k: see router.
        form: of the spectral scores: "proj", "energy" or "calibrated".
        weights: of the k adapters of arrow and spectr: "softmax" of their scores over
            `temperature`, or "uniform".
        temperature: see weights.
        mixing: "output" adds up the adapters' updates. Or their factors are averaged before they
            are multiplied: "aligned" those that SpectR's code takes, "trained" those that Arrow's
            code takes, which are the adapters' own.
        level: "token"; "prompt": in each layer all tokens of a prompt get what its last token
            chooses, and those of the translation choose for themselves; "sentence": in each layer
            all tokens of a row get the adapter with the most weight over the tokens of its prompt;
            "model": all layers together, one adapter for a row, by a pass of the base alone over
            the prompts; or "last": the same, and only the last token of a prompt votes, which has
            read all of it. But for the first, a token of the prompt then depends on later ones of
            the prompt, and no token on the translation.
        center: whether the mean of a layer's inputs, over the text of all adapters of the library,
            is subtracted from a token before it is scored.

    Raises:
        ValueError: an unknown name, or a number out of its range; by the name of the setting.
    """

    router: str = "lag"
    k: int = 20
    form: str = "proj"
    weights: str = "softmax"
    temperature: float | int = 1.0
    mixing: str = "output"
    level: str = "token"
    center: bool = False

    def __post_init__(self) -> None:
        choices_by_setting = (
            ("router", ROUTERS),
            ("form", FORMS),
            ("weights", WEIGHTS),
            ("mixing", MIXINGS),
            ("level", LEVELS),
        )
        for name, choices in choices_by_setting:
            check_known(f"strategy.{name}", getattr(self, name), choices)
        if self.k < 1:
            raise ValueError(f"strategy.k must be at least 1 adapter, got {self.k}.")
        if self.temperature <= 0:
            raise ValueError(f"strategy.temperature must be positive, got {self.temperature}.")
        if self.mixing == "trained" and self.router in ("lag", "spectr"):
            raise ValueError(
                f"strategy.mixing=trained cannot be routed by {self.router}, whose scores need the "
                "aligned factors: take mixing=aligned or output."
            )


@dataclass(frozen=True)
class Selection:
    """The adapters of each token.

    Attributes:
        indices: positions in the bank.
        weights: of each.
        projected: A* x, where one adapter was chosen and its product is there already.
    """

    indices: Int[Tensor, "tokens k"]
    weights: Float[Tensor, "tokens k"]
    projected: Float[Tensor, "tokens rank"] | None = None


def select(x: Float[Tensor, "tokens in"], bank: AdapterBank, settings: RouterSettings) -> Selection:
    """Return what the router of the settings chooses for each token; "oracle" has no say here.

    Args:
        x: the layer's input, in at least float32.
    """
    x = bank.centered(x)
    if settings.router == "lag":
        return _lag(x, bank, settings)
    adapters = len(bank.names)
    if settings.router == "uniform":
        every = torch.arange(adapters, device=x.device).expand(len(x), -1)
        return Selection(every, x.new_full(every.shape, 1 / adapters))
    if settings.router == "arrow":
        scores = arrow_scores(x, bank.arrows)
    else:
        scores = _spectral(x, bank, settings)
    indices = top_scored(scores, settings.k)
    if settings.weights == "uniform":
        return Selection(indices, x.new_full(indices.shape, 1 / indices.shape[1]))
    weights = (scores.gather(1, indices) / settings.temperature).softmax(dim=1)
    return Selection(indices, weights.to(x.dtype))


def _lag(x: Tensor, bank: AdapterBank, settings: RouterSettings) -> Selection:
    used, candidates = bank.unique_adapters(retrieve(x, bank.arrows, settings.k))
    strengths, mean, std = _statistics(bank, used)
    best, projected = best_candidate_of(
        x,
        candidates,
        bank.factor("a", used),
        settings.form,
        strengths=strengths,
        mean=mean,
        std=std,
    )
    best = best if used is None else used[best]
    if bank.center is not None:  # of what was scored, which is not what the adapter is applied to
        projected = None
    return Selection(best.unsqueeze(1), x.new_ones(x.shape[0], 1), projected)


def _spectral(x: Tensor, bank: AdapterBank, settings: RouterSettings) -> Tensor:
    scores = []
    for block in bank.blocks(_BLOCK):
        strengths, mean, std = _statistics(bank, block)
        a_star = bank.factor("a", block)
        scores.append(
            spectral_scores(x, a_star, settings.form, strengths=strengths, mean=mean, std=std)
        )
    return torch.cat(scores, dim=1)


def _statistics(
    bank: AdapterBank, used: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return strengths, means and deviations of these adapters, or of all."""
    every = bank.strengths, bank.mean, bank.std
    return every if used is None else tuple(t if t is None else t[used] for t in every)


def tally(
    selection: Selection, rows: Int[Tensor, " tokens"], count: int, counted: Tensor, adapters: int
) -> Float[Tensor, "rows adapters"]:
    """Return the weight of each adapter over the counted tokens of each row."""
    votes = selection.weights.new_zeros(count, adapters)
    weights = selection.weights * counted.unsqueeze(1)
    return votes.index_put_((rows.unsqueeze(1), selection.indices), weights, accumulate=True)
