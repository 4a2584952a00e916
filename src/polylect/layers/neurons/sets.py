"""Neurons as sets of parameters, and whose they are.

A neuron is whatever parameters of a layer stand or fall together: of a feed-forward network a row
of the up projection (and of the gate projection) with a column of the down projection; of any
linear layer an output row with its entry of the bias; of a norm one element. Sets of neurons that
the same languages or directions own are trained as slices: parameters of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from polylect.layers.context import RoutingContext

GENERAL = "general"
FROZEN = "frozen"


@dataclass(frozen=True)
class NeuronSet:
    """Neurons of one layer that the same languages or directions own.

    Attributes:
        owners: directions ("en-de") whose rows use and train the slice, or languages ("de"), which
            stand for all directions from and to them; none if nobody trains it.
        general: language-general, weighed by g; else specific, weighed by 1 - g.
        index: of the neurons, ascending.
    """

    owners: tuple[str, ...]
    general: bool
    index: Int[Tensor, " n"]

    @property
    def name(self) -> str:
        """Return the name of the slice's parameters."""
        if self.general:
            return GENERAL
        return "of_" + "+".join(self.owners) if self.owners else FROZEN

    def serves(self, direction: str) -> bool:
        """Return whether a direction, or the language on one of its sides, is among the owners."""
        return not {direction, *direction.split("-")}.isdisjoint(self.owners)


class NeuronSets(nn.Module):
    """The sets of neurons that the parameters of one layer are cut into.

    Args:
        sets: disjoint sets of neurons.
        neurons: how many the layer has.
        context: names the rows' directions.
        name: of the layer, for messages and numbers.
    """

    def __init__(
        self,
        sets: Sequence[NeuronSet],
        neurons: int,
        context: RoutingContext,
        name: str,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.sets = {s.name: s for s in sets}
        for s in sets:
            self.register_buffer(f"index_{s.name}", s.index.to(device))
        self.neurons = neurons
        self.context = context
        self.name = name

    def index(self, name: str) -> Int[Tensor, " n"]:
        """Return the neurons of a set."""
        return getattr(self, f"index_{name}")

    def serves(self, direction: str) -> bool:
        """Return whether a direction owns anything here."""
        return any(s.serves(direction) for s in self.sets.values())

    def used(self, direction: str) -> list[str]:
        """Return names of the sets that the rows of a direction go through."""
        return [name for name, s in self.sets.items() if s.serves(direction)]


def ownership(
    owners: Sequence[str],
    general: Bool[Tensor, " neurons"],
    specific: Bool[Tensor, "owners neurons"],
    selected: Bool[Tensor, " owners"],
) -> list[NeuronSet]:
    """Return the sets of one layer: the general neurons, and the specific ones by who owns them.

    Args:
        owners: directions or languages, the names of the first dimension of `specific`.
        selected: owners that use this layer; the others own nothing in it.
    """
    users = tuple(d for d, used in zip(owners, selected.tolist(), strict=True) if used)
    sets = []
    if users and general.any():
        sets.append(NeuronSet(users, True, general.nonzero()[:, 0]))
    owned = specific & selected[:, None] & ~general
    by_owner: dict[tuple[str, ...], list[int]] = {}
    for neuron in owned.any(0).nonzero()[:, 0].tolist():
        whose = tuple(d for d, own in zip(owners, owned[:, neuron].tolist(), strict=True) if own)
        by_owner.setdefault(whose, []).append(neuron)
    sets += [NeuronSet(o, False, torch.tensor(index)) for o, index in sorted(by_owner.items())]
    return sets


def rest_of(sets: Sequence[NeuronSet], neurons: int) -> list[NeuronSet]:
    """Return the neurons of a layer that are in none of the sets, as one set of nobody's."""
    left = torch.ones(neurons, dtype=torch.bool)
    for s in sets:
        left[s.index] = False
    return [NeuronSet((), False, left.nonzero()[:, 0])] if left.any() else []
