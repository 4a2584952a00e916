"""One adapter for a whole row: the votes of all layers, counted before any adapter acts."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from polylect.layers.spectral import top_scored


class Election:
    """Sums up how much weight each layer gave to the adapters of each library, by row.

    A layer that an adapter does not change has no vote on it.
    """

    def __init__(self) -> None:
        self._votes: dict[tuple[str, tuple[str, ...]], Tensor] = {}

    def add(
        self, library: str, names: Sequence[str], votes: Float[Tensor, "rows adapters"]
    ) -> None:
        """The votes of one layer, in the order of the names of its adapters."""
        key = library, tuple(names)
        self._votes[key] = self._votes[key] + votes if key in self._votes else votes

    def winners(self) -> dict[str, list[str]]:
        """By library the adapter of each row; where several have as many votes, the first of them.

        First is who comes first in the layer that voted first.
        """
        found = {}
        for library in dict.fromkeys(library for library, _ in self._votes):
            of = {names: votes for (own, names), votes in self._votes.items() if own == library}
            every = list(dict.fromkeys(name for names in of for name in names))
            position = {name: i for i, name in enumerate(every)}
            first = next(iter(of.values()))
            total = first.new_zeros(len(first), len(every))
            for names, votes in of.items():
                total[:, [position[name] for name in names]] += votes
            best = top_scored(total, 1).squeeze(1)
            found[library] = [every[i] for i in best.tolist()]
        return found
