"""Sizes of the adapters' updates on text of their own, which calibrated scores refer to."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.finite import find_nonfinite
from polylect.layers.adapters.bank import AdapterBank
from polylect.layers.adapters.observers import Place
from polylect.layers.adapters.scores import spectral_scores
from polylect.layers.adapters.selection import Selection
from polylect.layers.tokens import TokenView

_STATISTICS = ("mean", "std")


class EnergyStatistics:
    """Observes the energy of each adapter over the tokens it was given: mean and deviation.

    As SEQR calibrates (arXiv 2509.18093): every adapter on data that it was trained on.
    """

    def __init__(self) -> None:
        self._sums: dict[AdapterBank, Float[Tensor, "3 adapters"]] = {}

    def observe(
        self, place: Place, bank: AdapterBank, x: Tensor, view: TokenView, selection: Selection
    ) -> None:
        """Counts in tokens that have one adapter each; those of weight zero are left out."""
        empty = x.new_zeros(3, len(bank.names), dtype=torch.float64)
        sums = self._sums.setdefault(bank, empty)
        is_routed = selection.weights[:, 0] > 0
        adapter = selection.indices[is_routed, 0]
        for i in adapter.unique():
            one = i.unsqueeze(0)
            energy = spectral_scores(
                bank.centered(x[is_routed][adapter == i]),
                bank.factor("a", one),
                "energy",
                strengths=bank.strengths[one],
            ).double()
            sums[:, i] += torch.stack([torch.ones_like(energy), energy, energy**2]).sum((1, 2))

    def apply(self) -> None:
        """Gives the banks their means and deviations.

        Raises:
            ValueError: no tokens were counted, or fewer than two of an adapter, or what an adapter
                makes of them is not finite.
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
        for bank, sums in self._sums.items():
            if wrong := find_nonfinite(dict(zip(bank.names, sums.T, strict=True))):
                raise ValueError(f"adapters cannot be calibrated, on text of its own {wrong}")
        for bank, (count, total, squares) in self._sums.items():
            mean = total / count
            bank.mean = mean.float()
            bank.std = (squares / count - mean**2).clamp(min=0).sqrt().float()


def statistics_of(banks: Mapping[str, AdapterBank]) -> dict[str, Tensor]:
    """Return the statistics of a library's banks, by the names that a file keeps them under."""
    return {f"{path}.{s}": getattr(bank, s) for path, bank in banks.items() for s in _STATISTICS}


def put_statistics(banks: Mapping[str, AdapterBank], statistics: Mapping[str, Tensor]) -> None:
    """Gives the banks what `statistics_of` returned for banks of the same adapters."""
    for path, bank in banks.items():
        for statistic in _STATISTICS:
            setattr(bank, statistic, statistics[f"{path}.{statistic}"].to(bank.arrows.device))


def put_centers(
    banks: Mapping[str, AdapterBank],
    means: Mapping[str, Mapping[str, tuple[Float[Tensor, " in"], int]]] | None,
) -> None:
    """Gives each bank the mean of its layer's inputs over the text of all its adapters.

    Args:
        banks: of one library, by the path of their layer.
        means: by adapter and path the mean of its own inputs, and of how many tokens; None for
            banks without a center.

    Raises:
        ValueError: an adapter changes a layer whose inputs were not measured.
    """
    for path, bank in banks.items():
        if means is None:
            bank.center = None
            continue
        for name in bank.names:
            if path not in means[name]:
                raise ValueError(f"no mean of the inputs of {path} was measured for {name!r}")
        counts = torch.tensor([means[name][path][1] for name in bank.names]).double()
        every = torch.stack([means[name][path][0].double() for name in bank.names])
        pooled = (counts @ every) / counts.sum()
        bank.center = pooled.to(bank.arrows.device, bank.arrows.dtype)


def calibration_key(
    base: str,
    centered: bool,
    libraries: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]],
    texts: Iterable[tuple[Int[Tensor, "rows length"], Int[Tensor, "rows length"], Sequence[str]]],
) -> str:
    """Return a SHA-256 of all that decides what is measured.

    Args:
        base: fingerprint of the base model.
        centered: whether energies are those of centred inputs.
        libraries: by name the digest of each adapter, and the adapter that serves each direction.
        texts: token ids, attention mask and directions of each batch.
    """
    total = hashlib.sha256(base.encode() + b"centered" * centered)
    for name, (digests, serving) in libraries.items():
        total.update(repr((name, sorted(digests.items()), sorted(serving.items()))).encode())
    for ids, mask, directions in texts:
        total.update(repr((tuple(ids.shape), directions)).encode())
        for tensor in (ids, mask):
            total.update(tensor.cpu().numpy().tobytes())
    return total.hexdigest()
