"""The interface of observers, which are called when adapters are selected."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, full_like

from polylect.layers.adapters.bank import AdapterBank
from polylect.layers.adapters.selection import Selection
from polylect.layers.tokens import TokenView

Place = tuple[str, str]
"""The name of a library, and the path of a layer in its model."""


@runtime_checkable
class Observer(Protocol):
    """Is told of every selection in a pass in which rows can be told."""

    def observe(
        self,
        place: Place,
        bank: AdapterBank,
        x: Float[Tensor, "tokens in"],
        view: TokenView,
        selection: Selection,
    ) -> None:
        """Takes note of what was selected for the tokens `x` of the view, and changes nothing."""
        ...


class Trace:
    """Keeps each token's strongest adapter in the last pass.

    Attributes:
        strongest: by place, (rows, length); positions in `names`, -1 on padding.
        names: of the adapters, by place.
    """

    def __init__(self) -> None:
        self.strongest: dict[Place, Int[Tensor, "rows length"]] = {}
        self.names: dict[Place, tuple[str, ...]] = {}

    def observe(
        self, place: Place, bank: AdapterBank, x: Tensor, view: TokenView, selection: Selection
    ) -> None:
        best = selection.weights.argmax(1, keepdim=True)
        strongest = full_like(view.real, -1, dtype=selection.indices.dtype)
        strongest[view.real] = selection.indices.gather(1, best).squeeze(1)
        self.strongest[place], self.names[place] = strongest, bank.names
