"""Losses that spread tokens over experts, and numbers that show how they are spread.

Pure functions of one layer's routing. Experts are looked at by group (`range` of expert numbers),
since balance between groups would force translation experts on monolingual text.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def assigned_shares(
    indices: Int[Tensor, "tokens k"], weights: Float[Tensor, "tokens k"], group: range
) -> Float[Tensor, "tokens group"]:
    """Return how each token's weight is divided among the experts of a group.

    Rows sum to 1, or to 0 where no expert of the group works on the token. Where one expert of the
    group does, it is 1 for this one.

    Args:
        indices, weights: as in `Routing`.
        group: numbers of the group's experts.
    """
    inside = (indices >= group.start) & (indices < group.stop)
    totals = weights.new_zeros(len(indices), len(group)).scatter_add(
        1, (indices - group.start).clamp(0, len(group) - 1), weights * inside
    )
    return totals / totals.sum(dim=1, keepdim=True).clamp(min=torch.finfo(totals.dtype).tiny)


def expert_shares(
    assigned: Float[Tensor, "tokens experts"], mask: Bool[Tensor, " tokens"]
) -> Float[Tensor, " experts"]:
    """Return the share of the masked tokens that each expert of a group works on.

    The shares are zero if there are none.

    Args:
        assigned: what `assigned_shares` gives.
        mask: tokens to count: those of a language, the source side, all that are no padding.
    """
    totals = (assigned * mask[:, None]).sum(dim=0)
    return totals / totals.sum().clamp(min=torch.finfo(totals.dtype).tiny)


def balance_loss(
    logits: Float[Tensor, "tokens experts"],
    assigned: Float[Tensor, "tokens experts"],
    mask: Bool[Tensor, " tokens"],
) -> Float[Tensor, ""]:
    """Return the Switch loss E sum_e f_e P_e of one group (arXiv 2101.03961, eq. 4-6).

    It is 1 if the tokens are spread evenly.

    f_e is the expert's share of the tokens, without gradient, and P_e its mean probability. Where
    all experts work on all tokens f_e is the mean weight, so f = P.

    Args:
        logits: of the group's experts.
        assigned: of the group, what `assigned_shares` gives.
        mask: tokens that are no padding.
    """
    shares = expert_shares(assigned.detach(), mask)
    return logits.shape[1] * (shares * _mean(logits.softmax(dim=1), mask)).sum()


def z_loss(
    logits: Float[Tensor, "tokens experts"], mask: Bool[Tensor, " tokens"]
) -> Float[Tensor, ""]:
    """Return the mean of (log sum_e exp z_e)², which keeps logits small (ST-MoE,
    arXiv 2202.08906, eq. 5).
    """
    return _mean(logits.logsumexp(dim=1, keepdim=True).square(), mask).sum()


def lm_prior_loss(
    gate: Float[Tensor, " tokens"], mask: Bool[Tensor, " tokens"]
) -> Float[Tensor, ""]:
    """Return the mean of -log(1 - s): pulls tokens to the LM group (after MoE-LPR,
    arXiv 2408.11396).

    Args:
        gate: log odds of the MT group, s = sigmoid(gate).
        mask: tokens of monolingual text.
    """
    return _mean(F.softplus(gate)[:, None], mask).sum()


def routing_entropy(logits: Float[Tensor, "tokens experts"]) -> Float[Tensor, " tokens"]:
    """Return the entropy in nats of each token's softmax over the experts: 0 to log(experts)."""
    return torch.special.entr(logits.softmax(dim=1)).sum(dim=1)


def _mean(
    values: Float[Tensor, "tokens columns"], mask: Bool[Tensor, " tokens"]
) -> Float[Tensor, " columns"]:
    return (values * mask[:, None]).sum(dim=0) / mask.sum().clamp(min=1)


class CollapseAlarm:
    """Notices experts that hardly any token goes to, step after step.

    Args:
        threshold: share of its group's tokens, 0 to 1, under which an expert counts as unused.
        patience: steps in a row after which it is reported.
    """

    def __init__(self, threshold: float | int, patience: int) -> None:
        if not 0 < threshold < 1 or patience < 1:
            raise ValueError(
                f"threshold {threshold} and patience {patience} of the collapse alarm: "
                "take a share between 0 and 1 and at least 1 step"
            )
        self.threshold, self.patience = threshold, patience
        self._steps: dict[tuple[str, int], int] = {}

    def step(self, shares: Mapping[str, Float[Tensor, " experts"]]) -> list[tuple[str, int]]:
        """Note each layer's shares in a step; return the (layer, expert) that just collapsed.

        Each is reported once, and again only if it recovered in between. A layer, or a group, that
        no token went to says nothing about its experts and is passed over.
        """
        collapsed = []
        for layer, of_layer in shares.items():
            values = of_layer.tolist()
            if not any(values):
                continue
            for expert, share in enumerate(values):
                key = (layer, expert)
                self._steps[key] = self._steps.get(key, 0) + 1 if share < self.threshold else 0
                if self._steps[key] == self.patience:
                    collapsed.append(key)
        return collapsed
