"""Selects the layers that matter to directions, and sorts their neurons by owners.

LANDeRMT (ACL 2024) sorts the FFN neurons of the relevant layers by how much their awareness varies
between directions: what varies little is general and learns from all, the rest is specific to the
directions that are most aware of it. The threshold's form is the paper's; the values are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from polylect.did_you_mean import check_known
from polylect.finite import all_finite

RULES = ("std", "cv", "sum", "entropy", "random", "rotated")
LAYER_RULES = ("relevant", "per_direction", "random", "last", "all")


@dataclass(frozen=True)
class Categories:
    """Owners of the neurons of one layer; a neuron in neither set belongs to nobody."""

    general: Bool[Tensor, " neurons"]
    specific: Bool[Tensor, "directions neurons"]


def categorise(
    scores: Float[Tensor, "directions neurons"],
    rule: str = "std",
    *,
    rho: float | int = 0.9,
    own: float | int = 0.9,
    share: float | int = 1.0,
    per_language_normalisation: bool = True,
    activation: Float[Tensor, "directions neurons"] | None = None,
    generator: torch.Generator | None = None,
) -> Categories:
    """Sort neurons into general ones, and specific ones with their owners.

    Rows are first divided by their means, or directions with a high loss decide alone. Of
    the n neurons that take part floor(rho n) are general; each of the others is specific to every
    direction within `own` of its largest score. Ties go to the lower index, and the order of the
    directions is of no consequence.

    Args:
        scores: awareness, not negative.
        rule: which are general. "std": smallest standard deviation over directions; "cv": smallest
            standard deviation over mean; "sum": largest sum (Xie et al., ACL 2021); "entropy":
            highest entropy over directions of the activation shares, which also decide who owns
            the others (after LAPE, Tang et al., ACL 2024); "random", the placebo: what "std" gives,
            dealt out to neurons at random; "rotated", another: what "std" gives, each direction's
            neurons given to the next one.
        rho: share of general neurons among those that take part.
        own: share of a neuron's largest score from which on a direction owns it.
        share: of all neurons, the floor(share m) most aware take part (by their largest score in
            any direction), and the others belong to nobody.
        per_language_normalisation: whether rows are divided by their means.
        activation: share of tokens with a positive activation, for rule "entropy".
        generator: for rule "random".

    Raises:
        ValueError: a bad setting, or scores that are negative, not finite or zero in a whole
            direction.
    """
    check_categories(rule, rho, own, share)
    if rule in ("random", "rotated"):
        options = {"per_language_normalisation": per_language_normalisation}
        owners = categorise(scores, "std", rho=rho, own=own, share=share, **options)
        if rule == "rotated":
            return Categories(owners.general, owners.specific.roll(1, 0))
        permutation = torch.randperm(scores.shape[1], generator=generator)
        return Categories(owners.general[permutation], owners.specific[:, permutation])
    even = _normalise(scores, "awareness")
    if not per_language_normalisation:
        even = scores.double()
    normalised = even
    if rule == "entropy":
        if activation is None:
            raise ValueError("rule entropy needs the activation shares of the neurons.")
        normalised = _normalise(activation, "activation shares")
    neurons = scores.shape[1]
    best_scores = even.max(0).values
    candidates = _smallest(-best_scores, torch.arange(neurons), _part(share, neurons))
    spread = _spread(normalised, rule)
    general_indices = _smallest(spread, candidates, _part(rho, len(candidates)))
    general = torch.zeros(neurons, dtype=torch.bool)
    general[general_indices] = True
    others = torch.zeros(neurons, dtype=torch.bool)
    others[candidates] = True
    specific = (normalised >= own * normalised.max(0).values) & others & ~general
    return Categories(general, specific)


def choose_layers(
    relevance: Float[Tensor, "directions layers"],
    k: int,
    rule: str | Sequence[int] = "relevant",
    *,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "layers directions"]:
    """Return which layers each direction uses.

    Args:
        relevance: D_l, not negative; that of the last layer is not defined and counts for least.
        k: how many.
        rule: "relevant", the k of smallest average rank over directions, the same for all;
            "per_direction", the k most relevant of each; "random" k, the last k, "all"; or the
            layers themselves, from 0. Ties go to the lower layer.
        generator: for rule "random".

    Raises:
        ValueError: an unknown rule, a layer that does not exist, or fewer than k of them; or
            relevance that is not finite.
    """
    check_layers(k, rule)
    directions, layers = relevance.shape
    if not all_finite(relevance):
        raise ValueError("the relevance of layers must be finite: does the model give such losses?")
    if isinstance(rule, str) and rule != "all" and k > layers:
        raise ValueError(f"layers.k={k}, and the model has {layers} layers.")
    if rule == "per_direction":
        return (_ranks(relevance) < k).T.contiguous()
    if rule == "relevant":
        numbers = _smallest(_ranks(relevance).sum(0), torch.arange(layers), k)
    elif rule == "random":
        numbers = torch.randperm(layers, generator=generator)[:k]
    elif rule == "last":
        numbers = torch.arange(layers - k, layers)
    else:
        numbers = torch.arange(layers) if rule == "all" else torch.tensor(list(rule))
        if int(numbers.max()) >= layers:
            raise ValueError(
                f"layers.rule names layer {int(numbers.max())}, and the model has layers 0 to "
                f"{layers - 1}."
            )
    used = torch.zeros(layers, directions, dtype=torch.bool)
    used[numbers] = True
    return used


def check_categories(rule: str, rho: float | int, own: float | int, share: float | int) -> None:
    """Raises ValueError for settings that `categorise` would refuse."""
    check_known("categories.rule", rule, RULES)
    for name, value in (("rho", rho), ("own", own), ("share", share)):
        if not 0 <= value <= 1:
            raise ValueError(f"categories.{name} must be from 0 to 1, got {value}.")


def check_layers(k: int, rule: object) -> None:
    """Raises ValueError for settings that `choose_layers` would refuse for every model."""
    if k < 1:
        raise ValueError(f"layers.k must be at least 1, got {k}.")
    if isinstance(rule, str):
        check_known("layers.rule", rule, LAYER_RULES)
        return
    listed = list(rule) if isinstance(rule, Sequence) else []
    numbers = all(type(layer) is int and layer >= 0 for layer in listed)
    if not listed or not numbers or len(set(listed)) < len(listed):
        raise ValueError(
            f"layers.rule must be a rule or a list of distinct layers from 0 on, got {rule}."
        )


def _normalise(
    scores: Float[Tensor, "directions neurons"], what: str
) -> Float[Tensor, "directions neurons"]:
    rows = [row / row.mean() for row in scores.double()]
    even = torch.stack(rows)
    if not even.isfinite().all() or (even < 0).any():
        raise ValueError(
            f"the {what} of neurons must be finite, not negative and not zero in a whole "
            "direction: does the model give finite losses?"
        )
    return even


def _spread(even: Float[Tensor, "directions neurons"], rule: str) -> Float[Tensor, " neurons"]:
    """Return the spread of each neuron's awareness over directions, small for general neurons.

    Sums are taken over sorted values and one direction after the other, so that directions in
    another order give the same number to the last bit, and equal columns tie.
    """
    rows = list(even.sort(0).values)
    count = len(rows)
    total = sum(rows[1:], rows[0])
    if rule == "sum":
        return -total
    if rule == "entropy":
        shares = [row / total.clamp(min=1e-300) for row in rows]
        return sum(torch.special.xlogy(p, p) for p in shares)
    mean = total / count
    deviation = (sum((row - mean).square() for row in rows) / count).sqrt()
    return deviation / mean.clamp(min=1e-300) if rule == "cv" else deviation


def _smallest(
    values: Float[Tensor, " items"] | Int[Tensor, " items"],
    among: Int[Tensor, " candidates"],
    count: int,
) -> Int[Tensor, " count"]:
    """Return the indices of the `count` smallest values among candidates, in ascending order."""
    among = among.sort().values
    order = torch.sort(values[among], stable=True).indices[:count]
    return among[order].sort().values


def _ranks(relevance: Float[Tensor, "directions layers"]) -> Int[Tensor, "directions layers"]:
    """Return each layer's rank, 0 for a direction's most relevant one; the last layer is last."""
    defined = relevance[:, :-1]
    order = torch.sort(defined, dim=1, descending=True, stable=True).indices
    ranks = order.argsort(1)
    return torch.cat([ranks, torch.full_like(relevance[:, -1:], defined.shape[1]).long()], 1)


def _part(share: float | int, count: int) -> int:
    """Return floor(share x count) of the decimal number as written: 0.29 x 100 is 29."""
    return int(Fraction(str(share)) * count)
