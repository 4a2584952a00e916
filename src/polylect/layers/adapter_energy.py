"""How large the adapters' updates are on text of their own: what calibrated scores compare with."""

import torch
from jaxtyping import Float
from torch import Tensor

from polylect.layers.adapter_bank import AdapterBank
from polylect.layers.adapter_choice import Choice
from polylect.layers.spectral import spectral_scores


class EnergySums:
    """Mean and standard deviation of the energy of each adapter over the tokens it was given.

    As SEQR calibrates (arXiv 2509.18093): every adapter on data that it was trained on.
    """

    def __init__(self) -> None:
        self._sums: dict[AdapterBank, Tensor] = {}

    def add(self, bank: AdapterBank, x: Float[Tensor, "tokens in"], choice: Choice) -> None:
        """Counts tokens in that have one adapter each, those of weight zero left out."""
        empty = x.new_zeros(3, len(bank.names), dtype=torch.float64)
        sums = self._sums.setdefault(bank, empty)
        given = choice.weights[:, 0] > 0
        adapter = choice.indices[given, 0]
        for i in adapter.unique():
            one = i.unsqueeze(0)
            energy = spectral_scores(
                x[given][adapter == i],
                bank.factor("a", one),
                "energy",
                strengths=bank.strengths[one],
            ).double()
            sums[:, i] += torch.stack([torch.ones_like(energy), energy, energy**2]).sum((1, 2))

    def settle(self) -> None:
        """Gives the banks their means and deviations.

        Raises:
            ValueError: no tokens were counted, or fewer than two of an adapter.
        """
        if not self._sums:
            raise ValueError("adapters cannot be calibrated without text: give some batches")
        few = [
            name
            for bank, sums in self._sums.items()
            for name, count in zip(bank.names, sums[0].tolist(), strict=True)
            if count < 2
        ]
        if few:
            raise ValueError(
                f"adapter {few[0]!r} cannot be calibrated: give text of a direction that it serves"
            )
        for bank, (count, total, squares) in self._sums.items():
            mean = total / count
            bank.mean = mean.float()
            bank.std = (squares / count - mean**2).clamp(min=0).sqrt().float()
