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


class RouteCounts:
    """Sums of weights over tokens, each of which adds one to its layer; padding adds nothing.

    Attributes:
        directions: those that occurred, in the order in which they did.
    """

    def __init__(self) -> None:
        self.directions: list[str] = []
        self._sums: dict[tuple[str, str], tuple[AdapterBank, Tensor]] = {}

    def clear(self) -> None:
        """Begins anew."""
        self.directions.clear()
        self._sums.clear()

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
        """Counts a choice.

        Args:
            cells: of each token the number of its direction times two, plus one on the target side.
        """
        adapters, size = len(bank.names), 2 * len(self.directions)
        places = cells.unsqueeze(1) * adapters + choice.indices
        new = torch.bincount(
            places.flatten(), choice.weights.flatten().double(), minlength=size * adapters
        ).view(-1, 2, adapters)
        held = self._sums.get((library, layer))
        if held is not None:
            new[: len(held[1])] += held[1]
        self._sums[library, layer] = (bank, new)

    def of(self, library: str, layer: str) -> Float[Tensor, "directions 2 adapters"]:
        """The sums of one layer; directions that came later than its last token are not there."""
        return self._sums[library, layer][1]

    def means(self) -> dict[str, float]:
        """Over all directions, by "<layer>/<library>/<side>/…".

        `share/<adapter>`, of those that were chosen at all, and `agreement`: the share of the
        adapter that serves the direction, over directions that one is known to serve.
        """
        found: dict[str, float] = {}
        for (library, layer), (bank, sums) in self._sums.items():
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
        found = []
        for (library, layer), (bank, sums) in self._sums.items():
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
