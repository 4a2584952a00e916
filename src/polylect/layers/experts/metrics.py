"""Metrics of a mixture's routers over one forward pass, and losses on their routing."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from polylect.layers.experts.losses import (
    assigned_shares,
    balance_loss,
    expert_shares,
    lm_prior_loss,
    routing_entropy,
    z_loss,
)
from polylect.layers.experts.routers import Routing
from polylect.layers.tokens import SIDES

Groups = Mapping[str, range]
"""Numbers of the experts by the name of their group, "lm" or "mt"; groups without experts lack."""


def router_losses(
    routing: Routing,
    groups: Groups,
    real: Bool[Tensor, " tokens"],
    monolingual: Bool[Tensor, " tokens"],
) -> dict[str, Float[Tensor, ""]]:
    """Return the auxiliary losses of one layer, without their factors.

    "balance" is the sum over groups of the Switch loss, 1 each if uniform; "z" that of the router
    z-loss; "lm_prior" pulls monolingual tokens to the LM experts, where there is a choice.

    Args:
        groups: whose routers learn; the balance of others is not to be changed by lower layers.
        real: tokens that are no padding.
        monolingual: those of monolingual text.
    """
    terms = {"balance": real.new_zeros((), dtype=routing.logits.dtype)}
    terms["z"] = terms["lm_prior"] = terms["balance"]
    for group in groups.values():
        logits = routing.logits[:, group.start : group.stop]
        share = assigned_shares(routing.indices, routing.weights, group)
        terms["balance"] = terms["balance"] + balance_loss(logits, share, real)
        terms["z"] = terms["z"] + z_loss(logits, real)
    if routing.gate is not None:
        terms["lm_prior"] = lm_prior_loss(routing.gate, monolingual & real)
    return terms


@torch.no_grad()
def shares(
    routing: Routing, groups: Groups, real: Bool[Tensor, " tokens"]
) -> dict[str, Float[Tensor, " experts"]]:
    """Return each expert's share of its group's tokens that are no padding, by group."""
    return {
        name: expert_shares(assigned_shares(routing.indices, routing.weights, group), real)
        for name, group in groups.items()
    }


@torch.no_grad()
def routing_metrics(
    routing: Routing,
    groups: Groups,
    real: Bool[Tensor, "rows length"],
    directions: Sequence[str],
) -> dict[str, float]:
    """Return the numbers of one layer for dashboards, all means over tokens that are no padding.

    `lm/0`, `mt/1`: an expert's share of its group's tokens; `entropy/lm`: of the group's softmax in
    nats; `gate/en-de`: weight of the MT group, 0 to 1, in this direction.

    Args:
        directions: one per row.
    """
    tokens = real.flatten()
    numbers: dict[str, Tensor] = {}
    for name, share in shares(routing, groups, tokens).items():
        numbers |= {f"{name}/{expert}": value for expert, value in enumerate(share)}
        group = groups[name]
        entropy = routing_entropy(routing.logits[:, group.start : group.stop])
        numbers[f"entropy/{name}"] = (entropy * tokens).sum() / tokens.sum().clamp(min=1)
    if routing.gate is not None:
        openness = (routing.gate.sigmoid().view_as(real) * real).sum(1)
        counts = real.sum(1)
        for direction in dict.fromkeys(directions):
            rows = [row for row, name in enumerate(directions) if name == direction]
            numbers[f"gate/{direction}"] = openness[rows].sum() / counts[rows].sum().clamp(min=1)
    if not numbers:
        return {}
    values = torch.stack([value.double() for value in numbers.values()]).tolist()
    return dict(zip(numbers, values, strict=True))


class RoutingTally:
    """Sums over many batches of what `routing_metrics` tells of one, by layer, direction and side.

    `add` waits for no GPU; `rows` does, once.

    Args:
        directions: those that may occur.
        groups: of the experts.
    """

    def __init__(self, directions: Sequence[str], groups: Groups) -> None:
        self.directions, self.groups = tuple(directions), dict(groups)
        self._sums: dict[str, Float[Tensor, "places columns"]] = {}

    @torch.no_grad()
    def add(
        self,
        layer: str,
        routing: Routing,
        real: Bool[Tensor, "rows length"],
        prompts: Int[Tensor, " rows"],
        directions: Sequence[str],
    ) -> None:
        """Count the tokens of one batch, padded on the right.

        Args:
            real: tokens that are no padding.
            prompts: how many of each row's tokens are the source's.
            directions: one per row.
        """
        columns = [real.flatten()[:, None]]
        for group in self.groups.values():
            columns.append(assigned_shares(routing.indices, routing.weights, group))
            logits = routing.logits[:, group.start : group.stop]
            columns.append(routing_entropy(logits)[:, None])
        if routing.gate is not None:
            columns.append(routing.gate.sigmoid()[:, None])
        values = torch.cat([column.to(torch.float32) for column in columns], dim=1)
        rows = torch.tensor([self.directions.index(d) for d in directions], device=real.device)
        behind = torch.arange(real.shape[1], device=real.device) >= prompts[:, None]
        places = len(SIDES) * rows[:, None] + behind
        if layer not in self._sums:
            zeros = values.new_zeros(len(SIDES) * len(self.directions), values.shape[1])
            self._sums[layer] = zeros
        values = values.masked_fill(~real.flatten()[:, None], 0)
        self._sums[layer].index_add_(0, places.flatten(), values)

    def rows(self) -> list[dict[str, Any]]:
        """Return the means over tokens, one dict for each layer, direction and side that had any.

        Keys: `layer`, `direction`, `side`, `tokens`; `lm` and `mt`, each expert's share of its
        group; `entropy/lm`, `entropy/mt` in nats; `gate`, the weight of the MT group. Groups and a
        gate that the layer does not have lack.
        """
        places = [(d, side) for d in self.directions for side in SIDES]
        return [
            {"layer": layer, "direction": direction, "side": side, **self._means(sums)}
            for layer, layer_sums in self._sums.items()
            for (direction, side), sums in zip(places, layer_sums.tolist(), strict=True)
            if sums[0]
        ]

    def _means(self, sums: list[float]) -> dict[str, Any]:
        tokens, *rest = sums
        means = iter(value / tokens for value in rest)
        row: dict[str, Any] = {"tokens": int(tokens)}
        for name, group in self.groups.items():
            shares = [next(means) for _ in group]
            row[name] = [share / max(sum(shares), 1e-12) for share in shares]
            row[f"entropy/{name}"] = next(means)
        if gate := list(means):
            row["gate"] = gate[0]
        return row
