"""Experts as neurons side by side in linear layers, all of them running or only the best."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from polylect.kernels.dispatch import Dispatch, dispatch
from polylect.kernels.expert_linear import expert_linear, gathered_expert_linears
from polylect.layers.experts.autograd import dense_experts_out, routed_experts_out

_AXES = {"gate": 0, "up": 0, "down": 1}
"""Where the neurons are in the weight of each linear layer."""

_SPARE = 1 << 23
"""Multiply-adds that an expert may do in vain where that makes one product of all experts'.

A product of its own for each expert starts the threads each time, which takes about as long: with
256 x 512 weights and 2 threads one product was the faster one with up to 64 rows of nobody more for
each of 4, 8 and 16 experts (128 to 1024 rows of its own each)."""


@dataclass(frozen=True)
class Experts:
    """Some experts of a layer, equally wide.

    Attributes:
        numbers: of these experts among all of the layer.
        gate: None in networks without one.
        order: neurons of the first of the experts, then of the next; None where they lie so.
    """

    numbers: range
    gate: nn.Linear | None
    up: nn.Linear
    down: nn.Linear
    order: Int[Tensor, " neurons"] | None = None

    def forward_dense(
        self,
        activation: nn.Module,
        x: Float[Tensor, "tokens d"],
        weights: Float[Tensor, "tokens all"],
    ) -> Float[Tensor, "tokens d"]:
        """Sum these experts' outputs times their weights, without the down projection's bias.

        Args:
            weights: of all experts of the layer.
        """
        rows = [_linear(x, layer) for layer in self._inward()]
        weights = weights[:, self.numbers.start : self.numbers.stop]
        members = None
        if self.order is not None:
            members = F.one_hot(self.owners(), len(self.numbers)).T.to(weights.dtype)
        return dense_experts_out(activation, rows, weights, self.down.weight.T, members=members)

    def forward_topk(
        self,
        activation: nn.Module,
        x: Float[Tensor, "tokens d"],
        indices: Int[Tensor, "tokens k"],
        weights: Float[Tensor, "tokens k"],
    ) -> Float[Tensor, "tokens d"]:
        """Return the same sum for the experts that each token has chosen, passing over others.

        With an `order` of its own the projections are copied into that order, in every pass.
        """
        first = self.numbers.start
        ours = (indices >= first) & (indices < self.numbers.stop)
        own, count = torch.where(ours, indices - first, -1), len(self.numbers)
        spare = _SPARE * count // self.up.weight.numel()
        routes = dispatch(own, weights, count, spare=spare)
        down = self.by_expert(self.down.weight, 1).permute(1, 2, 0)
        rows = self._rows(x, routes)
        return routed_experts_out(activation, rows, down, routes)

    def owners(self) -> Int[Tensor, " neurons"]:
        """Return which of these experts each neuron belongs to, from 0."""
        neurons = torch.arange(self.up.out_features, device=self.up.weight.device)
        by_place = neurons // (len(neurons) // len(self.numbers))
        if self.order is None:
            return by_place
        return torch.empty_like(by_place).scatter_(0, self.order, by_place)

    def by_expert(self, weight: Tensor, axis: int) -> Tensor:
        """Split the axis of neurons into two: expert, and neuron of the expert."""
        if self.order is not None:
            weight = weight.index_select(axis, self.order)
        return weight.unflatten(axis, (len(self.numbers), -1))

    def _inward(self) -> list[nn.Linear]:
        return [layer for layer in (self.gate, self.up) if layer is not None]

    def _rows(self, x: Tensor, routes: Dispatch) -> list[Tensor]:
        """Return the outputs of the input projections, on the tokens' rows sorted by expert."""
        layers = self._inward()
        weights = [self.by_expert(layer.weight, 0).mT.to(x.dtype) for layer in layers]
        rows = gathered_expert_linears(x, weights, routes)
        return [self._with_bias(y, layer, routes) for y, layer in zip(rows, layers, strict=True)]

    def _with_bias(self, y: Tensor, layer: nn.Linear, routes: Dispatch) -> Tensor:
        if layer.bias is None:
            return y
        # As a product with ones, whose gradient is a sum with one order.
        bias = self.by_expert(layer.bias, 0).unsqueeze(1).to(y.dtype)
        return y + expert_linear(y.new_ones(len(y), 1), bias, routes.offsets)


class AddedExperts(nn.Module):
    """Experts beside those of the base: a network of the same kind, in float32 or better.

    Its down projection has no bias. Weights are zero until `draw` or `copy`.
    """

    def __init__(self, neurons: int, base: Experts) -> None:
        super().__init__()
        like, has_bias = base.up.weight, base.up.bias is not None
        dtype = torch.promote_types(like.dtype, torch.float32)

        def linear(columns: int, rows: int, bias: bool) -> nn.Linear:
            options = {"bias": bias, "dtype": dtype, "device": like.device}
            layer = nn.utils.skip_init(nn.Linear, columns, rows, **options)
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
            return layer

        d = like.shape[1]
        self.gate = None if base.gate is None else linear(d, neurons, has_bias)
        self.up = linear(d, neurons, has_bias)
        self.down = linear(neurons, d, False)

    @torch.no_grad()
    def draw(self, generator: torch.Generator, *, down: bool, std: float = 0.02) -> None:
        """Draw random normal weights; the down projection stays zero unless `down`."""
        for layer in (self.gate, self.up, self.down if down else None):
            if layer is not None:
                random = torch.randn(layer.weight.shape, generator=generator)
                layer.weight.copy_(random * std)

    @torch.no_grad()
    def copy(self, sources: Sequence[Experts], experts: int) -> None:
        """Become copies of equally wide experts: the first, the second, …, then the first again.

        Args:
            experts: how many these are.
        """
        for name, axis in _AXES.items():
            mine = getattr(self, name)
            if mine is None:
                continue
            per_source = [s.by_expert(getattr(s, name).weight, axis) for s in sources]
            mine.weight.copy_(_repeat(per_source, axis, experts))
            if mine.bias is not None:
                per_source = [s.by_expert(getattr(s, name).bias, 0) for s in sources]
                mine.bias.copy_(_repeat(per_source, 0, experts))


def _repeat(by_expert: Sequence[Tensor], axis: int, experts: int) -> Tensor:
    every = torch.cat(list(by_expert), axis)
    numbers = torch.arange(experts, device=every.device) % every.shape[axis]
    return every.index_select(axis, numbers).flatten(axis, axis + 1)


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.linear(x, layer.weight.to(x.dtype), bias)
