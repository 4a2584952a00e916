"""A layer of a base model some of whose neurons are slices: parameters of their own."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polylect.layers.neurons.sets import NeuronSets


class PatchedWeight:
    """A matrix with slices written into it, and what of; a copy of its layer starts without."""

    def __init__(self) -> None:
        self.base: Any = None
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def __reduce__(self) -> tuple:
        return PatchedWeight, ()


class NeuronLayer(nn.Module):
    """What a layer gains in place: slices of its weight (and bias), and what says whose they are.

    The base's own weight stays as it is and is frozen. Where slices take the place of its neurons,
    one matrix with the slices in use is kept, which takes as much memory as the layer's weight.
    Once in every route slices that have changed are written to it in place, at a cost proportional
    to their size; other slices begin another matrix.

    Attributes:
        neuron_values: by set, rows (`axis` 0) or columns (1) of the weight.
        neuron_bias: by set, entries of the bias; empty if no slice has any.
        bank: the sets, shared by the layers whose parameters make up a neuron together.
        plain_class: of the layer before.
        patched: the matrix.
    """

    neuron_values: nn.ParameterDict
    neuron_bias: nn.ParameterDict
    bank: Any
    plain_class: type[nn.Module]
    axis: int
    patched: PatchedWeight

    def values_of(self, names: Sequence[str]) -> list[Tensor]:
        """Return slices of the weight."""
        return [self.neuron_values[name] for name in names]

    def biases_of(self, names: Sequence[str]) -> list[Tensor]:
        """Return the slices' own biases, if the layer has them."""
        return [self.neuron_bias[name] for name in names] if len(self.neuron_bias) else []

    def patched_matrix(
        self,
        plan: Hashable,
        names: Sequence[str],
        base: Callable[[Tensor, int], Tensor],
        at_end: bool,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the kept matrix with slices in it, and the bias.

        Args:
            plan: what `base` and `names` depend on; another one begins another matrix.
            names: of the slices.
            base: makes, of the base's weight or bias and an axis, what the slices are written to.
            at_end: the slices are the last rows or columns, one after the other; else each of them
                has the places of its neurons.
        """
        patched, context = self.patched, self.bank.context
        own = [self.weight] if self.bias is None else [self.weight, self.bias]
        key = plan, dtype, [(t.untyped_storage()._cdata, t._version, t.device) for t in own]
        # ordinary tensors, as the next pass may have a gradient
        with torch.inference_mode(False), torch.no_grad():
            if patched.base != key:
                # new ones, as a backward pass may need the old ones
                context.forget(("written", id(self)))
                patched.base = None
                patched.weight = base(self.weight, self.axis).to(dtype)
                if self.bias is not None:
                    bias = base(self.bias, 0) if self.axis == 0 else self.bias
                    patched.bias = bias.to(dtype)
                patched.base = key
            context.remember(("written", id(self)), lambda: self._write(names, at_end))
        return patched.weight, patched.bias

    def _write(self, names: Sequence[str], at_end: bool) -> None:
        index = None if at_end else [self.bank.index(name) for name in names]
        _write(self.patched.weight, self.values_of(names), self.axis, index)
        if biases := self.biases_of(names):
            _write(self.patched.bias, biases, 0, index)


def _write(
    matrix: Tensor, slices: Sequence[Tensor], axis: int, index: Sequence[Tensor] | None
) -> None:
    """Write slices to their places, without touching those that are there."""
    begin = matrix.shape[axis] - sum(s.shape[axis] for s in slices)
    for number, own in enumerate(slices):
        own = own.to(matrix.dtype)
        if index is not None:
            if not torch.equal(matrix.index_select(axis, index[number]), own):
                matrix.index_copy_(axis, index[number], own)
            continue
        place = matrix.narrow(axis, begin, own.shape[axis])
        if not torch.equal(place, own):  # versions would not do: fused optimizers leave them
            place.copy_(own)
        begin += own.shape[axis]


@torch.no_grad()
def take_slices(layer: nn.Module, kind: type, bank: NeuronSets) -> None:
    """Make a layer one of `kind`, with the slices of the sets; they begin as the base's own."""
    bias = getattr(layer, "bias", None)
    layer.__dict__["plain_class"] = type(layer)
    layer.__class__ = kind
    layer.__dict__["bank"] = bank  # not as a submodule: it hangs below its network, once
    layer.patched = PatchedWeight()
    layer.neuron_values, layer.neuron_bias = nn.ParameterDict(), nn.ParameterDict()
    for name in bank.sets:
        index = bank.index(name)
        layer.neuron_values[name] = _master(layer.weight.index_select(layer.axis, index))
        if layer.axis == 0 and bias is not None:
            layer.neuron_bias[name] = _master(bias[index])


def _master(weight: Tensor) -> nn.Parameter:
    """Return a trainable copy of the weight, in float32 or better."""
    return nn.Parameter(weight.to(torch.promote_types(weight.dtype, torch.float32)).clone())


def check_linear(name: str, layer: nn.Module) -> None:
    """Raises ValueError where a layer is no ordinary linear one in floating point."""
    if type(layer) is not nn.Linear or not layer.weight.is_floating_point():
        raise ValueError(
            f"{name} is a {type(layer).__name__} in {layer.weight.dtype}; slices need an "
            "unquantised torch.nn.Linear."
        )


def compute_dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """Return what is computed in: the weight's precision, or that of autocast."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
