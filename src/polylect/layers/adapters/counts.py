"""Counts how often each adapter was selected, by layer, direction and side of the sentence."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.layers.adapters.bank import AdapterBank
from polylect.layers.adapters.observers import Place
from polylect.layers.adapters.selection import Selection
from polylect.layers.tokens import SIDES, TokenView

_NOTED = 1 << 20
"""Choices that may wait to be counted, about 16 bytes each."""


class RouteCounts:
    """Observes selections and sums up their weights; padding adds nothing.

    Each token adds one to the sums of its layer.

    Attributes:
        directions: those that occurred, in the order in which they did.
    """

    def __init__(self) -> None:
        self.directions: list[str] = []
        self._banks: dict[tuple[str, str], AdapterBank] = {}
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._pending: dict[tuple[str, str], list[tuple[Tensor, Tensor, Tensor]]] = {}
        self._slots = 0
        self._last_view: tuple[TokenView, Tensor] | None = None  # all layers of a pass share it

    def clear(self) -> None:
        """Begins anew."""
        self.directions.clear()
        self._banks.clear()
        self._sums.clear()
        self._pending.clear()
        self._slots = 0
        self._last_view = None

    def number(self, directions: Sequence[str]) -> list[int]:
        """Return the numbers under which directions are counted."""
        for direction in directions:
            if direction not in self.directions:
                self.directions.append(direction)
        return [self.directions.index(direction) for direction in directions]

    def observe(
        self, place: Place, bank: AdapterBank, x: Tensor, view: TokenView, selection: Selection
    ) -> None:
        """Notes the selection of each token under its direction and side."""
        if self._last_view is None or self._last_view[0] is not view:
            numbers = torch.tensor(self.number(view.directions), device=x.device)
            self._last_view = view, 2 * numbers[view.rows] + ~view.in_prompt
        self.add(*place, bank, self._last_view[1], selection)

    def add(
        self,
        library: str,
        layer: str,
        bank: AdapterBank,
        cells: Int[Tensor, " tokens"],
        selection: Selection,
    ) -> None:
        """Notes a selection; to count it takes longer, so that is done for many at a time.

        Args:
            cells: of each token the number of its direction times two, plus one on the target side.
        """
        self._banks[library, layer] = bank
        noted = (cells, selection.indices, selection.weights)
        self._pending.setdefault((library, layer), []).append(noted)
        self._slots += selection.indices.numel()
        if self._slots > _NOTED:
            self._count()

    def _count(self) -> None:
        size = 2 * len(self.directions)
        for key, noted in self._pending.items():
            adapters = len(self._banks[key].names)
            places = [(cells.unsqueeze(1) * adapters + i).flatten() for cells, i, _ in noted]
            weights = torch.cat([weights.flatten() for *_, weights in noted]).double()
            new = torch.bincount(torch.cat(places), weights, minlength=size * adapters)
            new = new.view(-1, 2, adapters)
            if key in self._sums:
                earlier = self._sums[key]
                new[: len(earlier)] += earlier
            self._sums[key] = new
        self._pending.clear()
        self._slots = 0

    def sums(self) -> tuple[list[str], dict[tuple[str, str], Tensor]]:
        """Return the directions and, by library and layer, their sums: what `take` takes."""
        self._count()
        return list(self.directions), {key: sums.cpu() for key, sums in self._sums.items()}

    def take(self, parts: Sequence[tuple[list[str], dict[tuple[str, str], Tensor]]]) -> None:
        """Replaces the sums by those of several processes together."""
        for directions, _ in parts:
            self.number(directions)
        for key, own in self._sums.items():
            total = own.new_zeros(len(self.directions), *own.shape[1:])
            for directions, sums in parts:
                if key in sums:
                    rows = torch.tensor(self.number(directions[: len(sums[key])]))
                    total.index_add_(0, rows.to(own.device), sums[key].to(own.device))
            self._sums[key] = total

    def layer_sums(self, library: str, layer: str) -> Float[Tensor, "directions 2 adapters"]:
        """Return the sums of one layer.

        Directions that came after its last token may not be there.
        """
        self._count()
        return self._sums[library, layer]

    def means(self) -> dict[str, float]:
        """Return means over all directions, by "<layer>/<library>/<side>/…".

        `share/<adapter>`, of those that were chosen at all, and `agreement`: the share of the
        adapter that serves the direction, over directions that one is known to serve.
        """
        self._count()
        means: dict[str, float] = {}
        for (library, layer), sums in self._sums.items():
            bank = self._banks[library, layer]
            right = {i: bank.serving.get(d) for i, d in enumerate(self.directions[: len(sums)])}
            own_index = {i: own for i, own in right.items() if own is not None}
            for place, side in enumerate(SIDES):
                prefix, sums_of_side = f"{layer}/{library}/{side}", sums[:, place]
                for name, weight in zip(bank.names, sums_of_side.sum(0).tolist(), strict=True):
                    if weight:
                        means[f"{prefix}/share/{name}"] = weight / float(sums_of_side.sum())
                if tokens := float(sums_of_side[list(own_index)].sum()):
                    hits = sum(float(sums_of_side[i, own]) for i, own in own_index.items())
                    means[f"{prefix}/agreement"] = hits / tokens
        return means

    def rows(self) -> list[dict[str, Any]]:
        """Return one entry per library, layer, direction and side that occurred.

        The numbers are plain ones, for JSON.

        "shares" has the adapters that were chosen at all; "agreement" is the share of the one that
        serves the direction, None where none is known to.
        """
        self._count()
        rows = []
        for (library, layer), sums in self._sums.items():
            bank = self._banks[library, layer]
            for direction, sides in zip(self.directions, sums.tolist(), strict=False):
                for side, weights in zip(SIDES, sides, strict=True):
                    if tokens := sum(weights):
                        own = bank.serving.get(direction)
                        rows.append(
                            {
                                "library": library,
                                "layer": layer,
                                "direction": direction,
                                "side": side,
                                "tokens": round(tokens),
                                "shares": {
                                    name: weight / tokens
                                    for name, weight in zip(bank.names, weights, strict=True)
                                    if weight
                                },
                                "agreement": None if own is None else weights[own] / tokens,
                            }
                        )
        return rows


def agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the share of the right adapter over all layers and tokens, by library and side.

    Args:
        rows: of `RouteCounts.rows`; those without a right adapter do not count.
    """
    sums: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["agreement"] is not None:
            library = sums.setdefault(row["library"], {})
            hits_and_tokens = library.setdefault(row["side"], [0.0, 0.0])
            hits_and_tokens[0] += row["tokens"] * row["agreement"]
            hits_and_tokens[1] += row["tokens"]
    return {
        library: {side: hits / tokens for side, (hits, tokens) in sides.items()}
        for library, sides in sums.items()
    }


def by_layer(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of `RouteCounts.rows` with all directions taken together."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["library"], row["layer"], row["side"]), []).append(row)
    sums = []
    for (library, layer, side), group in groups.items():
        tokens = sum(row["tokens"] for row in group)
        weights: Counter[str] = Counter()
        for row in group:
            for name, share in row["shares"].items():
                weights[name] += share * row["tokens"]
        sums.append(
            {
                "library": library,
                "layer": layer,
                "side": side,
                "tokens": tokens,
                "shares": {name: weight / tokens for name, weight in weights.most_common()},
                "agreement": agreement(group).get(library, {}).get(side),
            }
        )
    return sums
