"""A of an adapter drawn from the inputs of its layer, so that routers recognise these.

- ``data``: the right singular vectors of the inputs on the adapter's own text, those of the largest
  singular values. So begins EVA (arXiv 2410.07170); PEFT's subtracts the mean first, and counts the
  tokens that are learned alone.
- ``contrastive``: the directions in which the adapter's own inputs vary most for how much all
  adapters' inputs do, the mean of all removed: C_own v = λ C_all v, the largest λ.

Either way the rows of A are orthonormal, so that the score of SpectR, the length of x in the space
of A's rows, is as it was measured for as long as A stays.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from polylect.finite import all_finite
from polylect.layers.lora.inputs import InputMoments, InputSums
from polylect.layers.lora.layer import LoRALayer

RIDGE = 1e-3
"""Of the covariance of all inputs, in units of its mean eigenvalue, added to its diagonal.

Directions in which the few sentences hardly vary would else win by chance."""

_BUDGET = 2 << 30
"""Bytes of the sums of x xᵀ that are held together; what does not fit is another pass."""


def principal_directions(own: InputMoments, rank: int) -> Float[Tensor, "rank in"]:
    """Return the leading right singular vectors of the inputs, as orthonormal rows, float64."""
    return _positive(torch.linalg.eigh(own.products).eigenvectors[:, -rank:].flip(1).T)


@dataclass(frozen=True)
class Background:
    """What the inputs of all adapters have in common, against which each one's are held.

    Attributes:
        mean: of the inputs of all adapters.
        root: lower Cholesky factor of their covariance with the ridge added.
    """

    mean: Float[Tensor, " in"]
    root: Float[Tensor, "in in"]

    @classmethod
    def of(cls, every: Mapping[str, InputMoments]) -> "Background":
        """Pool the moments of all adapters of one layer."""
        count = sum(moments.count for moments in every.values())
        mean = sum(moments.total for moments in every.values()) / count
        pooled = sum(moments.count * _covariance(moments, mean) for moments in every.values())
        pooled /= count
        pooled.diagonal().add_(RIDGE * pooled.diagonal().mean())
        return cls(mean, torch.linalg.cholesky(pooled))


def contrastive_directions(
    own: InputMoments, background: Background, rank: int
) -> Float[Tensor, "rank in"]:
    """Return orthonormal rows that span the leading generalised eigenvectors, float64.

    Args:
        own: the adapter's moments.
        background: of all adapters, the adapter among them.
        rank: number of rows.
    """
    half = _solve(background.root, _covariance(own, background.mean))
    white = _solve(background.root, half.T)
    # Its eigenvalues lie between 0 and the count of all tokens over the adapter's, so that single
    # precision, which takes a third of the time, loses nothing.
    leading = torch.linalg.eigh(((white + white.T) / 2).float()).eigenvectors[:, -rank:].flip(1)
    directions = torch.linalg.solve_triangular(background.root.T, leading.double(), upper=True)
    return _positive(torch.linalg.qr(directions).Q.T)


def _solve(root: Float[Tensor, "in in"], x: Float[Tensor, "in in"]) -> Float[Tensor, "in in"]:
    return torch.linalg.solve_triangular(root, x, upper=False)


def _covariance(moments: InputMoments, mean: Float[Tensor, " in"]) -> Float[Tensor, "in in"]:
    """Return the covariance of the inputs about `mean`, which need not be their own mean."""
    shift = torch.outer(moments.mean, mean)
    return moments.products / moments.count - shift - shift.T + torch.outer(mean, mean)


def _positive(rows: Float[Tensor, "rank in"]) -> Float[Tensor, "rank in"]:
    """Return the rows with signs such that the largest entry of each is positive."""
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -rows, rows)


def directions_of_inputs(
    layers: Mapping[str, LoRALayer],
    how: str,
    read: Callable[[InputSums], None],
) -> Iterator[tuple[str, str, Float[Tensor, "rank in"]]]:
    """Yield for every layer and adapter the first rows of its A: (path, adapter, rows).

    Args:
        layers: by path.
        how: "data" or "contrastive".
        read: runs the adapters' text through the model, while the sums watch. It is called more
            than once if the layers are so large that they are read in parts.

    Raises:
        ValueError: an adapter has fewer tokens than its rank, or inputs are not finite.
    """
    for part in _parts(layers):
        sums = InputSums(part, products=True)
        with sums.watching():
            read(sums)
        found: dict[int, _Directions] = {}  # by what layers that share their inputs share
        for path, layer in part.items():
            every = sums.by_layer.get(path, {})
            for adapter, a in layer.lora_a.items():
                _check(path, adapter, every.get(adapter), len(a))
            for adapter, a in layer.lora_a.items():
                if id(every) not in found:
                    found[id(every)] = _directions_among(every, how)
                yield path, adapter, found[id(every)](adapter, len(a))


_Directions = Callable[[str, int], Float[Tensor, "rank in"]]


def _directions_among(every: Mapping[str, InputMoments], how: str) -> _Directions:
    """Return what gives the first rows of an adapter's A, by its name and rank, computed once."""
    if how == "data":
        return cache(lambda adapter, rank: principal_directions(every[adapter], rank))
    background = Background.of(every)
    return cache(lambda adapter, rank: contrastive_directions(every[adapter], background, rank))


def _check(path: str, adapter: str, own: InputMoments | None, rank: int) -> None:
    tokens = 0 if own is None else own.count
    if tokens < rank:
        raise ValueError(
            f"adapter {adapter} of rank {rank} has {tokens} tokens of text for {path} to begin "
            "with: give more with strategy.init_sentences, or a lower strategy.rank"
        )
    if not all_finite(own.products):
        raise ValueError(
            f"the inputs of {path} on the text of adapter {adapter} are not finite: take "
            "strategy.init=kaiming, or the base in another model.dtype"
        )


def _parts(layers: Mapping[str, LoRALayer]) -> Iterator[dict[str, LoRALayer]]:
    """Yield the layers in order, in parts whose sums fit into the budget."""
    part: dict[str, LoRALayer] = {}
    held = 0
    for path, layer in layers.items():
        needed = 8 * layer.in_features**2 * len(layer.lora_a)
        if part and held + needed > _BUDGET:
            yield part
            part, held = {}, 0
        part[path], held = layer, held + needed
    yield part
