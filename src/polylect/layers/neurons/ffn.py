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

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polylect.kernels.neuron_linear import neuron_linear, neuron_linear_in, patched_linear
from polylect.layers.neurons.bank import NeuronBank, Plan, join
from polylect.layers.neurons.layer import NeuronLayer, check_linear, compute_dtype, take_slices


class _Projection(NeuronLayer):
    """A projection of a feed-forward network with slices of its rows (in) or columns (out).

    In training on a CUDA device without a gate no matrix is kept.
    """

    bank: NeuronBank
    first: bool

    def values(self, plan: Plan) -> list[Tensor]:
        """Return the plan's slices: rows of a projection in, columns of a projection out."""
        return self.values_of(plan.slices)

    def biases(self, plan: Plan) -> list[Tensor]:
        """Return the slices' own biases, if the projection has them."""
        return self.biases_of(plan.slices)

    def patched_weight(self, plan: Plan, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias in the order of the plan's columns, the slices at the end."""
        parts = plan.added, plan.replaced
        return self.patched_matrix(parts, plan.slices, plan.reorder, at_end=True, dtype=dtype)


class NeuronIn(nn.Linear, _Projection):
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
        dtype = compute_dtype(x, self.weight)
        weight, bias = self.patched_weight(plan, dtype)
        if not bank.literal:
            return patched_linear(x.to(dtype), weight, values, self.axis, bias, biases)
        y = patched_linear(x.to(dtype), weight, values, self.axis)
        rest, own = y.split((len(plan.order) - len(plan.index), len(plan.index)), -1)
        y = torch.cat([rest, own * bank.input_scale(plan).to(dtype)], -1)
        if bias is None:
            return y
        return y + torch.cat([bias[: rest.shape[-1]], *(b.to(dtype) for b in biases)])


class NeuronOut(nn.Linear, _Projection):
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
        h = h.to(compute_dtype(h, self.weight))
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
        check_linear(f"{bank.name}: the {name} projection", layer)
    ffn.neuron_bank = bank
    for position, layer in enumerate(rows.values()):
        take_slices(layer, NeuronIn, bank)
        layer.first = position == 0
    take_slices(down, NeuronOut, bank)


def neuron_banks(model: nn.Module) -> dict[str, NeuronBank]:
    """Return the banks of a model, by the name of their layer."""
    return {m.name: m for m in model.modules() if isinstance(m, NeuronBank)}
