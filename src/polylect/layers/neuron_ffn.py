"""Feed-forward networks in which chosen neurons have trainable copies: slices (LANDeRMT, step D).

A neuron is a row of the up projection (and of the gate projection) and a column of the down
projection. The base stays frozen; a slice holds the tuned rows and columns of the neurons that one
set of directions owns, as parameters of their own: only they have gradients and optimizer state,
and a slice that no row of a batch owns is not touched, by momentum and decay neither.

Without a gate, and with one direction in the batch, slices take the place of the base's neurons.
Otherwise they are multiplied beside them and every activation gets a weight (`NeuronBank.scale`):

- `FFN(x) + g D_G(x) + (1 - g) D_S(x)`, where D is what the tuned neurons of a set give, less what
  the base's own give. The function of the base at the start, whatever the gate.
- literally, as in equation 7 of LANDeRMT, where the gate multiplies the input of the slices:
  `FFN_G(g x) + FFN_S((1 - g) x) + FFN_rest(x)`.

The projections are changed in place and keep their weights' names, so the model's own code computes
the non-linearity between them, whatever the family.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polylect.kernels.neuron_linear import neuron_linear, neuron_linear_in
from polylect.layers.extended_linear import ExtendedLinear, extended
from polylect.layers.neuron_bank import NeuronBank, Plan, joined


class NeuronLayer(nn.Module):
    """What a projection gains: slices of its rows (in) or columns (out), and their bank."""

    neuron_values: nn.ParameterDict
    neuron_bias: nn.ParameterDict
    bank: NeuronBank
    first: bool
    axis: int

    def values(self, plan: Plan) -> Tensor:
        """The plan's slices joined: rows of a projection in, columns of a projection out."""
        return joined([self.neuron_values[name] for name in plan.slices], self.axis)

    def biases(self, plan: Plan) -> Tensor | None:
        """The slices' own biases, where the projection has them."""
        if not len(self.neuron_bias):
            return None
        return joined([self.neuron_bias[name] for name in plan.slices])

    def widened(self, x: Tensor, plan: Plan, bias: Tensor | None) -> Tensor:
        """The product with the weight and the slices behind it."""
        dtype = _dtype(x, self.weight)
        x, bias = x.to(dtype), None if bias is None else bias.to(dtype)
        if torch.is_grad_enabled():
            flat = x.reshape(-1, x.shape[-1])
            weight, values = self.weight.to(dtype), self.values(plan)
            y = ExtendedLinear.apply(flat, weight, values, bias, self.axis)
            return y.view(*x.shape[:-1], -1)
        whole = self._kept(plan, lambda: extended(self.weight, self.values(plan), self.axis))
        return F.linear(x, whole.to(dtype), bias)

    def replaced(self, x: Tensor, plan: Plan) -> Tensor:
        """The product with the weight in which the slices have taken the place of their neurons."""
        values, own = self.values(plan), self.biases(plan)
        if torch.is_grad_enabled():
            if self.axis == 0:
                return neuron_linear(x, self.weight, plan.index, values, self.bias, own)
            return neuron_linear_in(x, self.weight, plan.index, values, self.bias)
        weight, bias = self.weight, self.bias
        whole = self._kept(
            plan, lambda: weight.index_copy(self.axis, plan.index, values.to(weight.dtype))
        )
        if own is not None and bias is not None:
            bias = bias.index_copy(0, plan.index, own.to(bias.dtype))
        return F.linear(x, whole, bias)

    def _kept(self, plan: Plan, make: Callable[[], Tensor]) -> Tensor:
        """The matrix in use, kept until slices or weights change: translation makes it once."""
        tensors = [self.weight, *(self.neuron_values[name] for name in plan.slices)]
        state: list[Any] = [plan.slices, self.bank.replaces(plan)]
        state += [(t.data_ptr(), t._version, t.dtype, t.device) for t in tensors]
        kept = self.__dict__.get("_matrix")
        if kept is None or kept[0] != state:
            kept = self.__dict__["_matrix"] = (state, make())
        return kept[1]


class NeuronIn(nn.Linear, NeuronLayer):
    """An up or gate projection; a neuron is a row."""

    axis = 0

    def forward(self, x: Tensor) -> Tensor:
        """(rows, length, hidden) to (rows, length, neurons), and slices behind if not replacing."""
        bank = self.bank
        if self.first:
            bank.open_for(x)
        plan = bank.plan(x)
        if plan is None:
            return F.linear(x, self.weight, self.bias)
        if bank.replaces(plan):
            return self.replaced(x, plan)
        bias = self._bias(plan)
        if not bank.literal:
            return self.widened(x, plan, bias)
        y = self.widened(x, plan, None)
        own = y[..., bank.neurons :] * bank.input_scale(plan).to(y.dtype)
        y = torch.cat([y[..., : bank.neurons], own], -1)
        return y if bias is None else y + bias.to(y.dtype)

    def _bias(self, plan: Plan) -> Tensor | None:
        own = self.biases(plan)
        if own is None or self.bias is None:
            return None
        return torch.cat([self.bias, own.to(self.bias.dtype)])


class NeuronOut(nn.Linear, NeuronLayer):
    """A down projection; a neuron is a column."""

    axis = 1

    def forward(self, h: Tensor) -> Tensor:
        """Activations of the neurons, and of slices behind them, to (rows, length, hidden)."""
        plan = self.bank.plan(h)
        if plan is None:
            return F.linear(h, self.weight, self.bias)
        if self.bank.replaces(plan):
            return self.replaced(h, plan)
        return self.widened(h * self.bank.scale(plan).to(h.dtype), plan, self.bias)


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
        _become(NeuronIn, layer, bank, first=position == 0)
    _become(NeuronOut, down, bank, first=False)


@torch.no_grad()
def _become(kind: type[NeuronLayer], layer: nn.Linear, bank: NeuronBank, first: bool) -> None:
    layer.__class__ = kind
    layer.__dict__["bank"] = bank  # not as a submodule: it hangs below the network, once
    layer.first = first
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
    """The banks of a model, by the name of their layer."""
    return {m.name: m for m in model.modules() if isinstance(m, NeuronBank)}
