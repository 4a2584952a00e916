"""Sums of the inputs of layers with adapters, for each adapter over its own text."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.layers.lora.layer import LoRALayer


class InputMoments:
    """Sums over the inputs x of a layer, in float64.

    Attributes:
        count: of tokens.
        total: the sum of x, (in,).
        products: the sum of x xᵀ, (in, in); None where it is not wanted.
    """

    def __init__(self, width: int, device: torch.device, *, products: bool) -> None:
        like = {"dtype": torch.float64, "device": device}
        self.count = 0
        self.total = torch.zeros(width, **like)
        self.products = torch.zeros(width, width, **like) if products else None

    def add(self, x: Float[Tensor, "tokens in"]) -> None:
        x = x.double()
        self.count += len(x)
        self.total += x.sum(0)
        if self.products is not None:
            self.products.addmm_(x.T, x)

    @property
    def mean(self) -> Float[Tensor, " in"]:
        """The mean of the inputs; zero where there were none."""
        return self.total / max(self.count, 1)


class InputSums:
    """The moments of every layer's inputs, by the adapter of the row that a token belongs to.

    Layers that are given one and the same tensor, as the projections to queries, keys and values
    are, share their moments.

    Attributes:
        mask: (rows, length) of the batch that is running, zero on padding; set it before each.
        by_layer: moments by path of the layer, then by adapter.
    """

    def __init__(self, layers: Mapping[str, LoRALayer], *, products: bool) -> None:
        self.mask: Int[Tensor, "rows length"] | None = None
        self.by_layer: dict[str, dict[str, InputMoments]] = {}
        self._layers, self._products = layers, products
        self._latest: tuple[str, Tensor] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it every forward pass of the layers counts."""
        hooks = [
            layer.register_forward_pre_hook(
                lambda layer, given, path=path: self._see(path, layer, given[0])
            )
            for path, layer in self._layers.items()
        ]
        try:
            yield
        finally:
            self._latest = None
            for hook in hooks:
                hook.remove()

    def _see(self, path: str, layer: LoRALayer, x: Tensor) -> None:
        if self._latest is not None and self._latest[1] is x:
            self.by_layer[path] = self.by_layer[self._latest[0]]
            return
        self._latest = path, x
        if x.shape[:-1] != self.mask.shape:
            raise ValueError(
                f"{path} receives inputs of shape {tuple(x.shape)} for {tuple(self.mask.shape)} "
                "tokens, so that it cannot be told which adapter they are of: leave that layer out "
                "of strategy.targets"
            )
        names = layer.context.rows(len(x))
        own_moments = self.by_layer.setdefault(path, {})
        for name in dict.fromkeys(name for name in names if name in layer.lora_a):
            if name not in own_moments:
                width = layer.in_features
                own_moments[name] = InputMoments(width, x.device, products=self._products)
            own = torch.tensor([other == name for other in names], device=x.device)
            own_moments[name].add(x[own[:, None] & self.mask.bool()])
