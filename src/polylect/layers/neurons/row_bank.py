"""The slices of a layer's output rows, and how much each row of a batch teaches them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.layers.context import RoutingContext
from polylect.layers.neurons.sets import NeuronSet, NeuronSets


@dataclass(frozen=True)
class Part:
    """A slice that some rows of a batch go through and others do not.

    Attributes:
        name: of the set.
        rows: of the batch.
        index: of its neurons.
        scale: as of `RowPlan`, for these rows.
    """

    name: str
    rows: Int[Tensor, " some"]
    index: Int[Tensor, " n"]
    scale: Float[Tensor, "some n"] | None


@dataclass(frozen=True)
class RowPlan:
    """Which slices a batch goes through.

    Attributes:
        replaced: slices that stand in the place of the base's neurons for all rows.
        learning: those of them that some row teaches.
        parts: the other slices.
        index: neurons of the replaced slices, one after the other.
        scale: what the gradients of these are multiplied by, for each row of the batch or one line
            for all; None if by 1.
        rows: by direction; None where one direction has all rows.
    """

    replaced: tuple[str, ...]
    learning: frozenset[str]
    parts: tuple[Part, ...]
    index: Int[Tensor, " n"]
    scale: Float[Tensor, "rows n"] | None
    rows: Mapping[str, Int[Tensor, " some"] | None]


class RowBank(NeuronSets):
    """The output rows of one linear layer, or the elements of a norm; no gate weighs them.

    A direction's rows of a batch go through the sets that serve it, and through the base's own
    neurons elsewhere.

    Args:
        sets, neurons, context, name: see `NeuronSets`.
        shared: all rows go through all slices, as in one model for all directions, and a direction
            trains those that serve it.
        whole: with `shared`, gradients of all rows reach all slices: see `strategies.landermt` on
            masks at the step.
        awareness: by owner, a score for each neuron that gradients are multiplied by: of a
            direction from s to t, those of general neurons by the mean of the scores for s and t,
            those of specific ones by the sum over the owners among s and t.
    """

    def __init__(
        self,
        sets: Sequence[NeuronSet],
        neurons: int,
        context: RoutingContext,
        name: str,
        device: torch.device,
        *,
        shared: bool = False,
        whole: bool = False,
        awareness: Mapping[str, Float[Tensor, " neurons"]] | None = None,
    ) -> None:
        super().__init__(sets, neurons, context, name, device)
        self.shared, self.whole = shared, whole
        self.scored = tuple(awareness or ())
        for owner, scores in (awareness or {}).items():
            self.register_buffer(f"awareness_{owner}", scores.float().to(device), persistent=False)
        self._planned: tuple[Any, RowPlan | None] = (None, None)

    def used(self, direction: str) -> list[str]:
        return list(self.sets) if self.shared and direction else super().used(direction)

    def weight(self, direction: str, name: str) -> Float[Tensor, " n"] | None:
        """Return what a direction multiplies the gradients of a set by; None if by 0."""
        own, index = self.sets[name], self.index(name)
        if not own.serves(direction):
            return None
        if not self.scored:
            return torch.ones(len(index), device=index.device)
        known = [o for o in (direction, *direction.split("-")) if o in self.scored]
        scores = [self._awareness(o, index) for o in known if own.general or o in own.owners]
        total = sum(scores[1:], scores[0])
        return total / len(scores) if own.general else total

    def _awareness(self, owner: str, index: Tensor) -> Tensor:
        return getattr(self, f"awareness_{owner}").index_select(0, index)

    def plan(self, x: Float[Tensor, "rows length ..."]) -> RowPlan | None:
        """Return the plan for a batch like x; None if its rows all go through the base alone."""
        names = self.context.rows(len(x))
        names = names if len(set(names)) > 1 else names[:1]  # the plan of one direction
        key = (names, x.device, tuple(s.owners for s in self.sets.values()))
        if self._planned[0] != key:
            with torch.inference_mode(False), torch.no_grad():  # kept for passes with gradients
                self._planned = key, self._plan(names, x.device)
        return self._planned[1]

    def _plan(self, names: Sequence[str], device: torch.device) -> RowPlan | None:
        rows_of: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            rows_of.setdefault(name, []).append(row)
        used = {direction: self.used(direction) for direction in rows_of}
        some = [name for name in self.sets if any(name in own for own in used.values())]
        if not some:
            return None
        replaced = [name for name in some if all(name in own for own in used.values())]
        shown = names[:1] if len(rows_of) == 1 else names
        index = [self.index(name) for name in replaced]
        none = torch.zeros(0, dtype=torch.long, device=device)
        return RowPlan(
            replaced=tuple(replaced),
            learning=frozenset(n for n in replaced if self._learns(n, rows_of)),
            parts=tuple(
                self._part(name, [row for row, d in enumerate(names) if name in used[d]], names)
                for name in some
                if name not in replaced
            ),
            index=torch.cat([none, *index]),
            scale=self._scale(replaced, shown),
            rows={
                direction: None if len(rows_of) == 1 else torch.tensor(at, device=device)
                for direction, at in rows_of.items()
            },
        )

    def _learns(self, name: str, directions: Mapping[str, Any]) -> bool:
        return self.whole or any(map(self.sets[name].serves, directions))

    def _part(self, name: str, rows: list[int], names: Sequence[str]) -> Part:
        index = self.index(name)
        scale = self._scale([name], [names[row] for row in rows])
        return Part(name, torch.tensor(rows, device=index.device), index, scale)

    def _scale(self, sets: Sequence[str], directions: Sequence[str]) -> Tensor | None:
        """Return the factors of the slices for each row, (rows, neurons); None if all are 1."""
        plain = not self.scored and all(
            self.sets[name].serves(d) for name in sets for d in set(directions)
        )
        if plain or self.whole or not sets:
            return None
        lines = {d: torch.cat([self._line(d, name) for name in sets]) for d in set(directions)}
        return torch.stack([lines[d] for d in directions])

    def _line(self, direction: str, name: str) -> Tensor:
        weight = self.weight(direction, name)
        return (
            self.index(name).new_zeros(len(self.index(name)), dtype=torch.float32)
            if (weight is None)
            else weight
        )
