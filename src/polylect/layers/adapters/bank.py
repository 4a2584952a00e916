"""The adapters of one library on one linear layer: arrows in memory, factors there or on disk."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from polylect.finite import all_finite
from polylect.lru import ByteBudgetLRU

Load = Callable[[str, str], Tensor]
"""From an adapter's name and "a" or "b" to A* (rank, in) or B* (out, rank) of the layer."""


Pages = ByteBudgetLRU[Hashable, Tensor]
"""Factors that batches needed. What a layer makes of them, side by side, is not in the budget."""


class AdapterBank(nn.Module):
    """Arrows and strengths of the adapters that change a layer, and where their factors come from.

    Nothing of it is in a state dict, which leaves the base's checkpoints and fingerprint alone.

    Args:
        names: of the adapters.
        arrows: first row of each A*.
        strengths: singular values; those of lower ranks are filled up with zeros.
        load: reads a factor.
        width: of the layer's output.
        pages: where factors are held that a batch needed; None reads all of them now.
        serving: position of the adapter that serves a direction, where that is known.

    Raises:
        ValueError: an adapter has values that are not finite; here, or where its factors are read.
            They would reach tokens that other adapters are chosen for.

    Attributes:
        position: of each adapter, by name.
        serving: see above, and `serve`.
        mean, std: of each adapter's energy on its own text, where it was measured.
        silenced: positions of adapters that change nothing where they are chosen: for measuring
            what they are good for.
        center: mean of the layer's inputs over the text of all adapters, where scores go by what
            differs from it.
    """

    def __init__(
        self,
        names: Sequence[str],
        arrows: Float[Tensor, "adapters in"],
        strengths: Float[Tensor, "adapters rank"],
        load: Load,
        width: int,
        pages: Pages | None = None,
        serving: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        if not (all_finite(arrows) and all_finite(strengths)):
            for name, *own in zip(names, arrows, strengths, strict=True):
                _check_finite(name, *own)
        self.names = tuple(names)
        self.position = {name: i for i, name in enumerate(self.names)}
        self.serving = dict(serving or {})
        self.silenced: frozenset[int] = frozenset()
        self.register_buffer("arrows", arrows, persistent=False)
        self.register_buffer("strengths", strengths, persistent=False)
        self.register_buffer("mean", None, persistent=False)
        self.register_buffer("std", None, persistent=False)
        self.register_buffer("center", None, persistent=False)
        self._load, self._pages = load, pages
        self._widths = {"a": arrows.shape[1], "b": width}
        if pages is None:
            for which in ("a", "b"):
                every = torch.stack([self._factor(which, i) for i in range(len(self.names))])
                self.register_buffer(which, every, persistent=False)

    def serve(self, direction: str, name: str | None) -> None:
        """Let this adapter serve a direction; none does if it does not change the layer."""
        self.serving.pop(direction, None)
        if name in self.position:
            self.serving[direction] = self.position[name]

    def centered(self, x: Float[Tensor, "tokens in"]) -> Float[Tensor, "tokens in"]:
        """The vectors that scores are computed of."""
        return x if self.center is None else x - self.center

    @property
    def is_paged(self) -> bool:
        """Whether factors are read when a batch needs them."""
        return self._pages is not None

    def factor(
        self, which: str, used: Int[Tensor, " used"] | None = None
    ) -> Float[Tensor, "adapters rank width"]:
        """Return A* ("a", width `in`) or transposed B* ("b", `out`) of these adapters, or all."""
        factors = self._read(which, used)
        if which == "a" or not self.silenced:
            return factors
        places = range(len(self.names)) if used is None else used.tolist()
        silent = torch.tensor([place in self.silenced for place in places], device=factors.device)
        return factors.masked_fill(silent.view(-1, 1, 1), 0)

    def _read(self, which: str, used: Int[Tensor, " used"] | None) -> Tensor:
        if self._pages is None:
            every = getattr(self, which)
            return every if used is None else every.index_select(0, used)
        places = range(len(self.names)) if used is None else used.tolist()
        like = self.arrows
        keys = [(id(self), which, i, like.device, like.dtype) for i in places]
        nbytes = self.strengths.shape[1] * self._widths[which] * like.element_size()
        return torch.stack(self._pages.get(keys, nbytes, lambda key: self._factor(which, key[2])))

    def unique_adapters(
        self, indices: Int[Tensor, "tokens k"]
    ) -> tuple[Int[Tensor, " used"] | None, Int[Tensor, "tokens k"]]:
        """Return the adapters in use, ascending, and the indices among these.

        The first is None if all adapters are there.
        """
        return torch.unique(indices, return_inverse=True) if self.is_paged else (None, indices)

    def blocks(self, size: int) -> list[Tensor | None]:
        """Return all adapters, a part at a time where they are on disk."""
        if not self.is_paged:
            return [None]
        every = torch.arange(len(self.names), device=self.arrows.device)
        return list(every.split(size))

    def _factor(self, which: str, i: int) -> Tensor:
        """Return an adapter's factor, padded with rows of zeros to the highest rank."""
        tensor = self._load(self.names[i], which)
        _check_finite(self.names[i], tensor)
        tensor = (tensor if which == "a" else tensor.T).to(self.arrows.device, self.arrows.dtype)
        missing = self.strengths.shape[1] - len(tensor)
        return functional.pad(tensor, (0, 0, 0, missing)).contiguous()


def _check_finite(name: str, *tensors: Tensor) -> None:
    if not all(map(all_finite, tensors)):
        raise ValueError(
            f"adapter {name!r} has NaN or infinite values in its aligned form: delete aligned."
            "safetensors in its folder, to have it made again"
        )
