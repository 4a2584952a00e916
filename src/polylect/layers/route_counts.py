"""How often each adapter of a library was chosen, by layer, direction and side of the sentence."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.layers.adapter_bank import AdapterBank
from polylect.layers.adapter_choice import Choice

SIDES = ("source", "target")

_NOTED = 1 << 20
"""Choices that may wait to be counted, about 16 bytes each."""


class RouteCounts:
    """Sums of weights over tokens, each of which adds one to its layer; padding adds nothing.

    Attributes:
        directions: those that occurred, in the order in which they did.
    """

    def __init__(self) -> None:
        self.directions: list[str] = []
        self._banks: dict[tuple[str, str], AdapterBank] = {}
        self._sums: dict[tuple[str, str], Tensor] = {}
        self._noted: dict[tuple[str, str], list[tuple[Tensor, Tensor, Tensor]]] = {}
        self._slots = 0

    def clear(self) -> None:
        """Begins anew."""
        self.directions.clear()
        self._banks.clear()
        self._sums.clear()
        self._noted.clear()
        self._slots = 0

    def number(self, directions: Sequence[str]) -> list[int]:
        """The numbers under which directions are counted."""
        for direction in directions:
            if direction not in self.directions:
                self.directions.append(direction)
        return [self.directions.index(direction) for direction in directions]

    def add(
        self,
        library: str,
        layer: str,
        bank: AdapterBank,
        cells: Int[Tensor, "tokens"],
        choice: Choice,
    ) -> None:
        """Notes a choice; to count it takes longer, so that is done for many at a time.

        Args:
            cells: of each token the number of its direction times two, plus one on the target side.
        """
        self._banks[library, layer] = bank
        noted = (cells, choice.indices, choice.weights)
        self._noted.setdefault((library, layer), []).append(noted)
        self._slots += choice.indices.numel()
        if self._slots > _NOTED:
            self._count()

    def _count(self) -> None:
        size = 2 * len(self.directions)
        for key, noted in self._noted.items():
            adapters = len(self._banks[key].names)
            places = [(cells.unsqueeze(1) * adapters + of).flatten() for cells, of, _ in noted]
            weights = torch.cat([weights.flatten() for *_, weights in noted]).double()
            new = torch.bincount(torch.cat(places), weights, minlength=size * adapters)
            new = new.view(-1, 2, adapters)
            if key in self._sums:
                held = self._sums[key]
                new[: len(held)] += held
            self._sums[key] = new
        self._noted.clear()
        self._slots = 0

    def of(self, library: str, layer: str) -> Float[Tensor, "directions 2 adapters"]:
        """The sums of one layer; directions that came after its last token may not be there."""
        self._count()
        return self._sums[library, layer]

    def means(self) -> dict[str, float]:
        """Over all directions, by "<layer>/<library>/<side>/…".

        `share/<adapter>`, of those that were chosen at all, and `agreement`: the share of the
        adapter that serves the direction, over directions that one is known to serve.
        """
        self._count()
        found: dict[str, float] = {}
        for (library, layer), sums in self._sums.items():
            bank = self._banks[library, layer]
            right = {i: bank.serving.get(d) for i, d in enumerate(self.directions[: len(sums)])}
            known = {i: own for i, own in right.items() if own is not None}
            for place, side in enumerate(SIDES):
                prefix, of_side = f"{layer}/{library}/{side}", sums[:, place]
                for name, weight in zip(bank.names, of_side.sum(0).tolist(), strict=True):
                    if weight:
                        found[f"{prefix}/share/{name}"] = weight / float(of_side.sum())
                if tokens := float(of_side[list(known)].sum()):
                    hits = sum(float(of_side[i, own]) for i, own in known.items())
                    found[f"{prefix}/agreement"] = hits / tokens
        return found

    def rows(self) -> list[dict[str, Any]]:
        """One entry per library, layer, direction and side that occurred; plain numbers for JSON.

        "shares" has the adapters that were chosen at all; "agreement" is the share of the one that
        serves the direction, None where none is known to.
        """
        self._count()
        found = []
        for (library, layer), sums in self._sums.items():
            bank = self._banks[library, layer]
            for direction, of_direction in zip(self.directions, sums.tolist(), strict=False):
                for side, weights in zip(SIDES, of_direction, strict=True):
                    if tokens := sum(weights):
                        own = bank.serving.get(direction)
                        found.append(
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
        return found


def agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Share of the right adapter over all layers and tokens, by library and side.

    Args:
        rows: of `RouteCounts.rows`; those without a right adapter do not count.
    """
    sums: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["agreement"] is not None:
            of = sums.setdefault(row["library"], {}).setdefault(row["side"], [0.0, 0.0])
            of[0] += row["tokens"] * row["agreement"]
            of[1] += row["tokens"]
    return {
        library: {side: hits / tokens for side, (hits, tokens) in of.items()}
        for library, of in sums.items()
    }


def by_layer(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of `RouteCounts.rows` with all directions taken together."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["library"], row["layer"], row["side"]), []).append(row)
    found = []
    for (library, layer, side), of in groups.items():
        tokens = sum(row["tokens"] for row in of)
        weights: Counter[str] = Counter()
        for row in of:
            for name, share in row["shares"].items():
                weights[name] += share * row["tokens"]
        found.append(
            {
                "library": library,
                "layer": layer,
                "side": side,
                "tokens": tokens,
                "shares": {name: weight / tokens for name, weight in weights.most_common()},
                "agreement": agreement(of).get(library, {}).get(side),
            }
        )
    return found
