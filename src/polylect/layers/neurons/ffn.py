"""Feed-forward networks in which chosen neurons have trainable copies: slices (LANDeRMT, step D).

A neuron is a row of the up projection (and of the gate projection) and a column of the down
projection. The base stays frozen; a slice holds the tuned rows and columns of the neurons that one
set of directions owns, as parameters of their own: only they have gradients and optimizer state,
and a slice that no row of a batch owns is not touched, by momentum and decay neither.

Slices take the place of the base's neurons where every row of the batch owns them and no gate
weighs them. Others are multiplied beside the base's, and both get weights (`NeuronBank.scale`):

- `FFN(x) + g D_G(x) + (1 - g) D_S(x)`, where D is what the tuned neurons of a set give, less what
  the base's own give. The function of the base at the start, whatever the gate.
- literally, as in equation 7 of LANDeRMT, where the gate multiplies the input of the slices:
  `FFN_G(g x) + FFN_S((1 - g) x) + FFN_rest(x)`.

The projections are changed in place and keep their weights' names, so the model's own code computes
the non-linearity between them, whatever the family.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polylect.kernels.neuron_linear import neuron_linear, neuron_linear_in, patched_linear
from polylect.layers.neurons.bank import NeuronBank, Plan, join


class PatchedWeight:
    """A matrix with slices written into it, and what of; a copy of its layer starts without."""

    def __init__(self) -> None:
        self.base: Any = None
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None

    def __reduce__(self) -> tuple:
        return PatchedWeight, ()


class NeuronLayer(nn.Module):
    """What a projection gains: slices of its rows (in) or columns (out), and their bank.

    One matrix with the slices in use is kept, which takes as much memory as the projection's
    weight. Once in every route slices that have changed are written to it in place, at a cost
    proportional to their size; other slices begin another matrix. In training on a CUDA device
    without a gate none is needed.
    """

    neuron_values: nn.ParameterDict
    neuron_bias: nn.ParameterDict
    bank: NeuronBank
    first: bool
    axis: int
    patched: PatchedWeight

    def values(self, plan: Plan) -> list[Tensor]:
        """Return the plan's slices: rows of a projection in, columns of a projection out."""
        return [self.neuron_values[name] for name in plan.slices]

    def biases(self, plan: Plan) -> list[Tensor]:
        """Return the slices' own biases, if the projection has them."""
        return [self.neuron_bias[name] for name in plan.slices] if len(self.neuron_bias) else []

    def patched_weight(self, plan: Plan, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias in the order of the plan's columns, the slices at the end."""
        patched, context = self.patched, self.bank.context
        own = [self.weight] if self.bias is None else [self.weight, self.bias]
        base = plan.added, plan.replaced, dtype, [(t.data_ptr(), t._version, t.device) for t in own]
        # ordinary tensors, as the next pass may have a gradient
        with torch.inference_mode(False), torch.no_grad():
            if patched.base != base:
                # new ones, as a backward pass may need the old ones
                context.forget(("written", id(self)))
                patched.base = None
                patched.weight = plan.reorder(self.weight, self.axis).to(dtype)
                if self.bias is not None:
                    bias = plan.reorder(self.bias, 0) if self.axis == 0 else self.bias
                    patched.bias = bias.to(dtype)
                patched.base = base
            context.remember(("written", id(self)), lambda: self._write(plan))
        return patched.weight, patched.bias

    def _write(self, plan: Plan) -> None:
        _write(self.patched.weight, self.values(plan), self.axis)
        if biases := self.biases(plan):
            _write(self.patched.bias, biases, 0)


def _write(matrix: Tensor, slices: Sequence[Tensor], axis: int) -> None:
    """Make the slices the last rows or columns, without touching those that are."""
    begin = matrix.shape[axis] - sum(s.shape[axis] for s in slices)
    for own in slices:
        place = matrix.narrow(axis, begin, own.shape[axis])
        own = own.to(matrix.dtype)
        if not torch.equal(place, own):  # versions would not do: fused optimizers leave them
            place.copy_(own)
        begin += own.shape[axis]


class NeuronIn(nn.Linear, NeuronLayer):
    """An up or gate projection; a neuron is a row."""

    axis = 0

    def forward(self, x: Tensor) -> Tensor:
        """Project (rows, length, hidden) to (rows, length, columns of the plan)."""
        bank = self.bank
        if self.first:
            bank.compute_gates(x)
        plan = bank.plan(x)
        if plan is None:
            return F.linear(x, self.weight, self.bias)
        values, biases = self.values(plan), self.biases(plan)
        if bank.multiplies_in_place(plan):
            own = join(biases) if biases else None
            return neuron_linear(x, self.weight, plan.index, join(values), self.bias, own)
        dtype = _dtype(x, self.weight)
        weight, bias = self.patched_weight(plan, dtype)
        if not bank.literal:
            return patched_linear(x.to(dtype), weight, values, self.axis, bias, biases)
        y = patched_linear(x.to(dtype), weight, values, self.axis)
        rest, own = y.split((len(plan.order) - len(plan.index), len(plan.index)), -1)
        y = torch.cat([rest, own * bank.input_scale(plan).to(dtype)], -1)
        if bias is None:
            return y
        return y + torch.cat([bias[: rest.shape[-1]], *(b.to(dtype) for b in biases)])


class NeuronOut(nn.Linear, NeuronLayer):
    """A down projection; a neuron is a column."""

    axis = 1

    def forward(self, h: Tensor) -> Tensor:
        """Project (rows, length, columns of the plan) to (rows, length, hidden)."""
        plan = self.bank.plan(h)
        if plan is None:
            return F.linear(h, self.weight, self.bias)
        values = self.values(plan)
        if self.bank.multiplies_in_place(plan):
            return neuron_linear_in(h, self.weight, plan.index, join(values, 1), self.bias)
        h = h.to(_dtype(h, self.weight))
        weight, bias = self.patched_weight(plan, h.dtype)
        if not plan.added:
            return patched_linear(h, weight, values, self.axis, bias)
        # the many neurons without weights are multiplied apart: not even read to be weighed
        rest = len(plan.order) - plan.weighted_columns
        plain, weighted = h.flatten(0, -2).split((rest, plan.weighted_columns), -1)
        y = F.linear(plain, weight[:, :rest], bias).view(*h.shape[:-1], self.out_features)
        scale = self.bank.scale(plan).to(h.dtype)
        weighted = weighted.view(*h.shape[:-1], plan.weighted_columns) * scale
        return y + patched_linear(weighted, weight[:, rest:], values, self.axis)


def _dtype(x: Tensor, weight: Tensor) -> torch.dtype:
    """What is computed in: the weight's precision, or that of autocast."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def attach_neurons(
    ffn: nn.Module, rows: Mapping[str, nn.Linear], down: nn.Linear, bank: NeuronBank
) -> None:
    """Give the projections of one feed-forward network their slices, in place.

    Args:
        ffn: gets the bank as `neuron_bank`.
        rows: up and, where there is one, gate projection, by name, in the order of computation.
        down: the down projection.

    Raises:
        ValueError: a projection is no ordinary linear layer in floating point.
    """
    for name, layer in (*rows.items(), ("down", down)):
        if type(layer) is not nn.Linear or not layer.weight.is_floating_point():
            raise ValueError(
                f"{bank.name}: the {name} projection is a {type(layer).__name__} in "
                f"{layer.weight.dtype}; slices need an unquantised torch.nn.Linear."
            )
    ffn.neuron_bank = bank
    for position, layer in enumerate(rows.values()):
        _convert_layer(NeuronIn, layer, bank, first=position == 0)
    _convert_layer(NeuronOut, down, bank, first=False)


@torch.no_grad()
def _convert_layer(
    kind: type[NeuronLayer], layer: nn.Linear, bank: NeuronBank, first: bool
) -> None:
    layer.__class__ = kind
    layer.__dict__["bank"] = bank  # not as a submodule: it hangs below the network, once
    layer.first, layer.patched = first, PatchedWeight()
    layer.neuron_values, layer.neuron_bias = nn.ParameterDict(), nn.ParameterDict()
    for name in bank.sets:
        index = bank.index(name)
        layer.neuron_values[name] = _master(layer.weight.index_select(kind.axis, index))
        if kind is NeuronIn and layer.bias is not None:
            layer.neuron_bias[name] = _master(layer.bias[index])


def _master(weight: Tensor) -> nn.Parameter:
    """Trainable, in float32 or better, whatever the precision of the base."""
    return nn.Parameter(weight.to(torch.promote_types(weight.dtype, torch.float32)).clone())


def neuron_banks(model: nn.Module) -> dict[str, NeuronBank]:
    """Return the banks of a model, by the name of their layer."""
    return {m.name: m for m in model.modules() if isinstance(m, NeuronBank)}
