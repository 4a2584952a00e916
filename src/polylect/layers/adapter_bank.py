"""The adapters of one library on one linear layer: arrows in memory, factors there or on disk."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

Load = Callable[[str, str], Tensor]
"""From an adapter's name and "a" or "b" to A* (rank, in) or B* (out, rank) of the layer."""


class Pages:
    """Tensors that can be read again: those used last, as many as a budget of bytes allows.

    What a layer makes of them for one batch, side by side, comes on top of the budget.

    Attributes:
        loads, hits, evictions: how often a tensor was read, was there already, was let go.
        bytes: of the tensors held.
    """

    def __init__(self, budget_bytes: int) -> None:
        if budget_bytes < 1:
            raise ValueError(f"the byte budget for adapters must be positive, got {budget_bytes}")
        self.budget_bytes = budget_bytes
        self.loads = self.hits = self.evictions = self.bytes = 0
        self._held: OrderedDict[Hashable, Tensor] = OrderedDict()

    def get(
        self, keys: Sequence[Hashable], nbytes: int, load: Callable[[Hashable], Tensor]
    ) -> list[Tensor]:
        """The tensors of all keys, each of `nbytes`.

        Raises:
            ValueError: together they are larger than the budget.
        """
        if len(keys) * nbytes > self.budget_bytes:
            raise ValueError(
                f"a layer needs {len(keys)} adapters of {nbytes} bytes at once, the budget is "
                f"{self.budget_bytes}: raise it or translate fewer rows together"
            )
        for key in keys:
            if key in self._held:
                self._held.move_to_end(key)
                self.hits += 1
        for key in keys:
            if key not in self._held:
                self._make_room(nbytes)
                self._held[key] = load(key)
                self.bytes += nbytes
                self.loads += 1
        return [self._held[key] for key in keys]

    def _make_room(self, nbytes: int) -> None:
        # Those of the present call are the youngest and fit, so that none of them goes.
        while self.bytes + nbytes > self.budget_bytes:
            self.bytes -= self._held.popitem(last=False)[1].nbytes
            self.evictions += 1


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

    Attributes:
        mean, std: of each adapter's energy on its own text, where it was measured.
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
        self.names = tuple(names)
        self.serving = dict(serving or {})
        self.register_buffer("arrows", arrows, persistent=False)
        self.register_buffer("strengths", strengths, persistent=False)
        self.register_buffer("mean", None, persistent=False)
        self.register_buffer("std", None, persistent=False)
        self._load, self._pages = load, pages
        self._widths = {"a": arrows.shape[1], "b": width}
        if pages is None:
            for which in ("a", "b"):
                every = torch.stack([self._factor(which, i) for i in range(len(self.names))])
                self.register_buffer(which, every, persistent=False)

    @property
    def paged(self) -> bool:
        """Whether factors are read when a batch needs them."""
        return self._pages is not None

    def factor(
        self, which: str, used: Int[Tensor, " used"] | None = None
    ) -> Float[Tensor, "adapters rank width"]:
        """A* ("a", of width `in`) or the transpose of B* ("b", `out`) of these adapters, or all."""
        if self._pages is None:
            every = getattr(self, which)
            return every if used is None else every.index_select(0, used)
        places = range(len(self.names)) if used is None else used.tolist()
        like = self.arrows
        keys = [(id(self), which, i, like.device, like.dtype) for i in places]
        nbytes = self.strengths.shape[1] * self._widths[which] * like.element_size()
        return torch.stack(self._pages.get(keys, nbytes, lambda key: self._factor(which, key[2])))

    def compact(
        self, indices: Int[Tensor, "tokens k"]
    ) -> tuple[Int[Tensor, " used"] | None, Int[Tensor, "tokens k"]]:
        """The adapters in use, ascending, and the indices among these; None if all are there."""
        return torch.unique(indices, return_inverse=True) if self.paged else (None, indices)

    def blocks(self, size: int) -> list[Tensor | None]:
        """All adapters, a part at a time where they are on disk."""
        if not self.paged:
            return [None]
        every = torch.arange(len(self.names), device=self.arrows.device)
        return list(every.split(size))

    def _factor(self, which: str, i: int) -> Tensor:
        """Rows of zeros fill up a lower rank."""
        tensor = self._load(self.names[i], which)
        tensor = (tensor if which == "a" else tensor.T).to(self.arrows.device, self.arrows.dtype)
        missing = self.strengths.shape[1] - len(tensor)
        return functional.pad(tensor, (0, 0, 0, missing)).contiguous()
