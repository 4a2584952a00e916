"""Linear layers with trainable copies of chosen output rows, and norms with such elements.

The base stays frozen; a slice holds the tuned rows (and their entries of the bias) that the same
owners have, as parameters of their own: only they have gradients and optimizer state, and a slice
that no row of a batch goes through is not touched, by momentum and decay neither. The output has
the order that it had, so that it does not matter what the rows are (heads, queries, keys and values
in one layer, neurons of a feed-forward network).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from polylect.kernels.neuron_linear import neuron_linear, patched_linear
from polylect.layers.neurons.bank import join
from polylect.layers.neurons.layer import NeuronLayer, check_linear, compute_dtype, take_slices
from polylect.layers.neurons.row_bank import Part, RowBank, RowPlan


class _Rows(NeuronLayer):
    axis = 0
    bank: RowBank

    def taught(self, plan: RowPlan) -> tuple[list[Tensor], list[Tensor]]:
        """Return values and biases of the replaced slices; constants where nobody teaches."""

        def known(tensors: list[Tensor]) -> list[Tensor]:
            pairs = zip(plan.replaced, tensors, strict=bool(tensors))
            return [t if name in plan.learning else t.detach() for name, t in pairs]

        return known(self.values_of(plan.replaced)), known(self.biases_of(plan.replaced))


class RowLinear(nn.Linear, _Rows):
    """A linear layer; a neuron is a row of its weight and an entry of its bias."""

    def forward(self, x: Tensor) -> Tensor:
        """Project (rows, length, in) to (rows, length, out)."""
        plan = self.bank.plan(x)
        if plan is None:
            return F.linear(x, self.weight, self.bias)
        x = x.to(compute_dtype(x, self.weight))
        y = self._replaced(x, plan)
        for part in plan.parts:
            y = self._with_part(y, x, part)
        return y

    def _replaced(self, x: Tensor, plan: RowPlan) -> Tensor:
        values, biases = self.taught(plan)
        if not values:
            return F.linear(x, self.weight.to(x.dtype), _to(self.bias, x.dtype))
        if x.is_cuda and torch.is_grad_enabled() and plan.scale is None:  # where base and rows are
            own = join(biases) if biases else None
            return neuron_linear(x, self.weight, plan.index, join(values), self.bias, own)
        weight, bias = self.patched_matrix(
            plan.replaced, plan.replaced, lambda t, _: t.clone(), at_end=False, dtype=x.dtype
        )
        return patched_linear(x, weight, values, 0, bias, biases, plan.index, plan.scale)

    def _with_part(self, y: Tensor, x: Tensor, part: Part) -> Tensor:
        """Return the output in which some rows have their own values of some neurons."""
        values, biases = self.values_of([part.name]), self.biases_of([part.name])
        bias = biases[0].detach().to(x.dtype) if biases else None
        weight = values[0].detach().to(x.dtype)
        mine = x.index_select(0, part.rows)
        own = patched_linear(mine, weight, values, 0, bias, biases, None, part.scale)
        changed = y.index_select(0, part.rows).index_copy(-1, part.index, own)
        return y.index_copy(0, part.rows, changed)


class RowNorm(_Rows):
    """A norm, or whatever multiplies by a vector; a neuron is an element.

    The norm's own code runs, once for the rows of each direction, on a copy of its vectors.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (rows, length, …, size) to the same shape."""
        plan = self.bank.plan(x)
        if plan is None:
            return self.plain_class.forward(self, x)
        outputs = [
            self._of_direction(x if rows is None else x.index_select(0, rows), direction)
            for direction, rows in plan.rows.items()
        ]
        if len(outputs) == 1:
            return outputs[0]
        order = torch.cat([rows for rows in plan.rows.values() if rows is not None]).argsort()
        return torch.cat(outputs).index_select(0, order)

    def _of_direction(self, x: Tensor, direction: str) -> Tensor:
        vectors = {"weight": self.weight, "bias": getattr(self, "bias", None)}
        for name in self.bank.used(direction):
            index, learned = self.bank.index(name), {"weight": self.neuron_values[name]}
            if len(self.neuron_bias):
                learned["bias"] = self.neuron_bias[name]
            for vector, own in learned.items():
                own = self._scaled(own, direction, name).to(vectors[vector].dtype)
                vectors[vector] = vectors[vector].index_copy(0, index, own)
        given = {key: vector for key, vector in vectors.items() if vector is not None}
        return functional_call(_Plain(self), {f"norm.{k}": v for k, v in given.items()}, (x,))

    def _scaled(self, own: Tensor, direction: str, name: str) -> Tensor:
        bank = self.bank
        if bank.whole:
            return own
        weight = bank.weight(direction, name)
        if weight is None:
            return own.detach()
        return _ScaledGradient.apply(own, weight) if bank.scored else own


class _Plain(nn.Module):
    """Calls a norm's own code, with whatever vectors it has been given."""

    def __init__(self, norm: RowNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm.plain_class.forward(self.norm, x)


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return grad * scale.to(grad.dtype), None


def attach_rows(layer: nn.Module, bank: RowBank) -> None:
    """Give a linear layer or a norm its slices, in place; it gets the bank as `neuron_bank`.

    Raises:
        ValueError: it is neither, or not in floating point.
    """
    if _is_norm(layer):
        kind: type = type(f"Row{type(layer).__name__}", (RowNorm, type(layer)), {})
    else:
        check_linear(bank.name, layer)
        kind = RowLinear
    layer.neuron_bank = bank
    take_slices(layer, kind, bank)


def mask_gradients(model: nn.Module, direction: str) -> None:
    """Multiply the gradients of all slices by what a direction has for them; by 0 drops them."""
    for layer in (m for m in model.modules() if isinstance(m, _Rows)):
        for name in layer.bank.sets:
            weight = layer.bank.weight(direction, name)
            for parameters in (layer.neuron_values, layer.neuron_bias):
                if name not in parameters or parameters[name].grad is None:
                    continue
                grad = parameters[name].grad
                if weight is None:
                    parameters[name].grad = None
                else:
                    grad.mul_(weight.to(grad.dtype).view(-1, *[1] * (grad.dim() - 1)))


def fill_gradients(model: nn.Module) -> None:
    """Give all slices without a gradient one of zero, so that an optimizer steps them as well."""
    for layer in (m for m in model.modules() if isinstance(m, _Rows)):
        for own in (*layer.neuron_values.values(), *layer.neuron_bias.values()):
            if own.grad is None:
                own.grad = torch.zeros_like(own)


def row_layers(block: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a block whose outputs have neurons, by path: linear ones and norms."""
    return {
        path: layer
        for path, layer in block.named_modules()
        if isinstance(layer, nn.Linear) or _is_norm(layer)
    }


def _is_norm(layer: nn.Module) -> bool:
    weight = layer._parameters.get("weight")
    return weight is not None and weight.dim() == 1


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)
