"""Feed-forward networks in which chosen neurons have trainable copies: slices (LANDeRMT, step D).

A neuron is a row of the up projection (and of the gate projection) and a column of the down
projection. The base stays frozen; a slice holds the tuned rows and columns of the neurons that one
set of directions owns, as parameters of their own: only they have gradients and optimizer state,
and a slice that no row of a batch owns is not touched, by momentum and decay neither.

Two ways to put slices to use:

- replacing: a slice's neurons take the place of the base's. Without a gate; and with one in the
  literal form of LANDeRMT, equation 7, where the gate multiplies the input of the slices:
  `FFN_G(g x) + FFN_S((1 - g) x) + FFN_rest(x)`.
- beside the base: `FFN(x) + g D_G(x) + (1 - g) D_S(x)`, where D is what the tuned neurons of a set
  give, less what the base's own give. The function of the base at the start, whatever the gate.

The projections are changed in place and keep their weights' names, so the model's own code computes
the non-linearity between them, whatever the family.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polylect.kernels.neuron_linear import neuron_linear, neuron_linear_in
from polylect.layers.neuron_bank import NeuronBank, Part, joined, put_back, take


class NeuronLayer(nn.Module):
    """What a projection gains: slices of its rows (in) or columns (out), and their bank."""

    neuron_values: nn.ParameterDict
    neuron_bias: nn.ParameterDict
    first: bool

    @property
    def bank(self) -> NeuronBank:
        """Kept out of the module tree here: it hangs below the feed-forward network, once."""
        return self.__dict__["_bank"][0]

    def value(self, part: Part) -> Tensor:
        """The part's slices joined: rows of a projection in, columns of a projection out."""
        return joined([self.neuron_values[n] for n in part.slices], dim=self.axis)

    def bias_of(self, part: Part) -> Tensor | None:
        """The slices' own biases, where the projection has them."""
        if not len(self.neuron_bias):
            return None
        return joined([self.neuron_bias[name] for name in part.slices])


class NeuronIn(nn.Linear, NeuronLayer):
    """An up or gate projection; a neuron is a row."""

    axis = 0

    def forward(self, x: Tensor) -> Tensor:
        """(rows, length, hidden) to (rows, length, neurons), and slices behind if not replacing."""
        bank = self.bank
        if self.first:
            bank.open_for(x)
        parts = bank.parts(len(x))
        if not any(part.slices for part in parts):
            return F.linear(x, self.weight, self.bias)
        if bank.replaces:
            return self._replaced(x, bank, parts)
        base = F.linear(x, self.weight, self.bias)
        extra = [self._extra(take(x, part.rows), part) for part in parts]
        return torch.cat([base, put_back(_evened(extra), parts)], -1)

    def _replaced(self, x: Tensor, bank: NeuronBank, parts: Sequence[Part]) -> Tensor:
        gated = bool(bank.gates)
        found = []
        for part in parts:
            rows = take(x, part.rows)
            if part.slices:
                biases = (None, None) if gated else (self.bias, self.bias_of(part))
                found.append(
                    neuron_linear(rows, self.weight, bank.index(part), self.value(part), *biases)
                )
            else:
                found.append(F.linear(rows, self.weight, None if gated else self.bias))
        y = put_back(found, parts)
        return self._scaled(y, bank, parts) if gated else y

    def _scaled(self, y: Tensor, bank: NeuronBank, parts: Sequence[Part]) -> Tensor:
        """The slices' neurons as if their input had been multiplied by the gate."""
        general, specific = bank._members(parts, len(y), y.dtype)
        y = y * (1 - general - specific + bank.weight(parts, y.dtype))
        if self.bias is None:
            return y
        biases = []
        for part in parts:
            bias = self.bias
            if part.slices:
                own = self.bias_of(part).to(bias.dtype)
                bias = bias.index_copy(0, bank.index(part), own)
            count = len(y) if part.rows is None else len(part.rows)
            biases.append(bias.expand(count, 1, -1))
        return y + put_back(biases, parts)

    def _extra(self, x: Tensor, part: Part) -> Tensor:
        if not part.slices:
            return x.new_zeros(*x.shape[:-1], 0)
        bias = self.bias_of(part)
        return F.linear(x, self.value(part).to(x.dtype), None if bias is None else bias.to(x.dtype))


class NeuronOut(nn.Linear, NeuronLayer):
    """A down projection; a neuron is a column."""

    axis = 1

    def forward(self, h: Tensor) -> Tensor:
        """Activations of the neurons, and of slices behind them, to (rows, length, hidden)."""
        bank = self.bank
        parts = bank.parts(len(h))
        if not any(part.slices for part in parts):
            return F.linear(h, self.weight, self.bias)
        if bank.replaces:
            return put_back(
                [self._replaced(take(h, part.rows), bank, part) for part in parts], parts
            )
        base, extra = h.split([bank.neurons, h.shape[-1] - bank.neurons], -1)
        weight = bank.weight(parts, h.dtype)
        y = F.linear(base * (1 - weight), self.weight, self.bias)
        return y + put_back([self._extra(extra, weight, bank, part) for part in parts], parts)

    def _replaced(self, h: Tensor, bank: NeuronBank, part: Part) -> Tensor:
        if not part.slices:
            return F.linear(h, self.weight, self.bias)
        return neuron_linear_in(h, self.weight, bank.index(part), self.value(part), self.bias)

    def _extra(self, extra: Tensor, weight: Tensor, bank: NeuronBank, part: Part) -> Tensor:
        h = take(extra, part.rows)
        if not part.slices:
            return h.new_zeros(*h.shape[:-1], self.out_features)
        index = bank.index(part)
        h = h[..., : len(index)] * take(weight, part.rows).index_select(-1, index)
        return F.linear(h, self.value(part).to(h.dtype))


def attach_neurons(
    ffn: nn.Module, rows: Mapping[str, nn.Linear], down: nn.Linear, bank: NeuronBank
) -> None:
    """Give the projections of one feed-forward network their slices, in place.

    Args:
        ffn: gets the bank as `neurons`.
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
    layer.__dict__["_bank"] = [bank]
    layer.first = first
    layer.neuron_values, layer.neuron_bias = nn.ParameterDict(), nn.ParameterDict()
    for name in bank.sets:
        index = getattr(bank, f"index_{name}")
        layer.neuron_values[name] = _master(layer.weight.index_select(kind.axis, index))
        if kind is NeuronIn and layer.bias is not None:
            layer.neuron_bias[name] = _master(layer.bias[index])


def _master(weight: Tensor) -> nn.Parameter:
    """Trainable, in float32 or better, whatever the precision of the base."""
    return nn.Parameter(weight.to(torch.promote_types(weight.dtype, torch.float32)).clone())


def neuron_banks(model: nn.Module) -> dict[str, NeuronBank]:
    """The banks of a model, by the name of their layer."""
    return {m.name: m for m in model.modules() if isinstance(m, NeuronBank)}


def _evened(found: Sequence[Tensor]) -> list[Tensor]:
    """As wide as the widest; an activation of zero stays zero, and no slice reads it anyway."""
    width = max(y.shape[-1] for y in found)
    return [F.pad(y, (0, width - y.shape[-1])) if y.shape[-1] < width else y for y in found]
