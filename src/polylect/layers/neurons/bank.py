"""The slices of a feed-forward network: their neurons, their owners, and the gate's openness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from polylect.layers.context import RoutingContext
from polylect.layers.neurons.sets import NeuronSet, NeuronSets

ALIGNMENT = 16
"""Widths are rounded up to a multiple: products of odd widths are slower by more than that adds."""


@dataclass(frozen=True)
class Plan:
    """Which slices a batch uses, and what the columns of the activations are:

        rest | zeros | own | added slices, replaced slices
        rest: the base's neurons without slices here; zeros: round the width up
        own: the base's neurons of the added slices, which rows of other directions use
        own and the slices have weights: those of a gate, or 1 and 0 by the row's direction

    Attributes:
        rows: by direction; None where one direction has all rows.
        added: slices that are multiplied beside the base's neurons.
        replaced: slices in the place of the base's neurons, which no row uses.
        index: neurons of all these slices, one after the other.
        order: by column, a neuron of the base; a slice's is the one that it is a copy of.
        zeros: first column that is nothing, and the first after it that is something.
        owned: weights of the columns without a gate: 1 or 0. 1 row if all are alike.
        start: their weights if the gate is closed (g = 0).
        slope: what g = 1 adds to these.
    """

    rows: Mapping[str, Tensor | None]
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    index: Int[Tensor, " n"]
    order: Int[Tensor, " width"]
    zeros: tuple[int, int]
    owned: Float[Tensor, "rows 1 weighted"]
    start: Float[Tensor, "rows 1 weighted"]
    slope: Float[Tensor, "rows 1 weighted"]

    @property
    def slices(self) -> tuple[str, ...]:
        """All slices, in the order of their columns."""
        return self.added + self.replaced

    @property
    def weighted_columns(self) -> int:
        """How many columns have weights: the last ones."""
        return self.owned.shape[-1]

    def reorder(self, tensor: Tensor, axis: int) -> Tensor:
        """Return a copy of a weight or bias of the base with an entry per column."""
        copied = tensor.index_select(axis, self.order)
        begin, end = self.zeros
        copied.narrow(axis, begin, end - begin).zero_()
        return copied


class NeuronBank(NeuronSets):
    """What the projections of one feed-forward network share: which neurons, whose, what gate.

    Args:
        sets: disjoint sets of neurons.
        neurons: of the network.
        gates: a gate by direction, or one under "shared"; empty for none.
        literal: the gate multiplies the slices' input, see `neuron_ffn`.
        context: names the rows' directions.
        name: of the layer, for messages and numbers.

    Attributes:
        openness: mean of g over the tokens of the last forward, by direction.
    """

    def __init__(
        self,
        sets: Sequence[NeuronSet],
        neurons: int,
        gates: Mapping[str, nn.Module],
        literal: bool,
        context: RoutingContext,
        name: str,
        device: torch.device,
    ) -> None:
        super().__init__(sets, neurons, context, name, device)
        self.gates = nn.ModuleDict(gates).to(device)
        self.literal = literal
        self.openness: dict[str, Tensor] = {}
        self._open: Tensor | None = None
        self._planned: tuple[Any, Plan | None] = (None, None)

    def plan(self, x: Float[Tensor, "rows length width"]) -> Plan | None:
        """Return the plan for a batch like x; None if no row owns anything here."""
        owners = tuple(s.owners for s in self.sets.values())
        key = (self.context.rows(len(x)), owners, x.device)
        if self._planned[0] != key:
            with torch.inference_mode(False), torch.no_grad():  # kept for passes with gradients
                self._planned = key, self._plan(key[0], x.device)
        return self._planned[1]

    def _plan(self, names: Sequence[str], device: torch.device) -> Plan | None:
        rows_of: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            rows_of.setdefault(name, []).append(row)
        single = len(rows_of) == 1
        used = [n for n, s in self.sets.items() if any(map(s.serves, rows_of))]
        if not used:
            return None
        weighed = bool(self.gates) and not self.literal
        replaced = [n for n in used if not weighed and all(map(self.sets[n].serves, rows_of))]
        added = [n for n in used if n not in replaced]

        def flags(rows: list[list[bool]]) -> Tensor:
            sizes = torch.tensor([len(self.index(n)) for n in added + replaced])
            each = torch.tensor(rows).repeat_interleave(sizes, 1)[:, None]
            return each.to(device, torch.float32)

        index = join([self.index(name) for name in added + replaced])
        own = index[: sum(len(self.index(name)) for name in added)]
        others = index.new_ones(self.neurons, dtype=torch.bool).index_fill_(0, index, False)
        rest = others.nonzero()[:, 0]
        width = len(rest) + len(own) + len(index)
        zeros = -width % ALIGNMENT if added else 0

        rows = names[:1] if single else names
        owned = flags([[self.sets[n].serves(d) for n in added + replaced] for d in rows])
        general = flags([[self.sets[n].general for n in added + replaced]])
        start, slope = owned * (1 - general), owned * (2 * general - 1)
        count = len(own)
        places = {d: torch.tensor(at, device=device) for d, at in rows_of.items()}
        return Plan(
            rows=dict.fromkeys(places) if single else places,
            added=tuple(added),
            replaced=tuple(replaced),
            index=index,
            order=torch.cat([rest, index.new_zeros(zeros), own, index]),
            zeros=(len(rest), len(rest) + zeros),
            owned=torch.cat([1 - owned[..., :count], owned], -1),
            start=torch.cat([1 - start[..., :count], start], -1),
            slope=torch.cat([-slope[..., :count], slope], -1),
        )

    def multiplies_in_place(self, plan: Plan) -> bool:
        """Return whether a kernel reads base and slices where they are, without a matrix of both.

        On a CUDA device in training, where slices take the place of neurons.
        """
        cuda = plan.index.is_cuda and torch.is_grad_enabled()
        return cuda and not plan.added and not self.literal

    # The gate.

    def compute_gates(self, x: Float[Tensor, "rows length hidden"]) -> None:
        """Work out the openness of this forward; the first projection calls it."""
        plan = self.plan(x)
        if not self.gates or plan is None:
            return
        openness: dict[str, Tensor] = {}
        for direction, rows in plan.rows.items():
            own = x if rows is None else x.index_select(0, rows)
            if self.serves(direction):
                gate = self.gates["shared" if "shared" in self.gates else direction]
                openness[direction] = gate(own)
            else:
                openness[direction] = own.new_zeros(*own.shape[:-1], 1)
        self._open = _batch_order(list(openness.values()), list(plan.rows.values()))
        self._observe(plan)

    def _observe(self, plan: Plan) -> None:
        """Keep means for dashboards, and the mean that a budget may hold to a value."""
        mask = self.context.mask_like(self.gate_values)
        means = {}
        for direction, rows in plan.rows.items():
            if not self.serves(direction):
                continue
            g = self.gate_values if rows is None else self.gate_values.index_select(0, rows)
            if mask is None:
                means[direction] = g.mean()
                continue
            # a product and no selection, whose size a GPU would have to be waited for
            of_text = (mask if rows is None else mask.index_select(0, rows)).unsqueeze(-1)
            count = of_text.sum() * g.shape[-1]
            means[direction] = (g * of_text).sum(dtype=torch.float32).div(count).to(g.dtype)
        self.openness = {direction: mean.detach() for direction, mean in means.items()}
        self.context.losses[self.name] = torch.stack(list(means.values())).mean()

    @property
    def gate_values(self) -> Float[Tensor, "rows length gates"]:
        """The openness of this forward: g."""
        if self._open is None:
            raise RuntimeError(f"{self.name}: the gate has not seen the layer's input.")
        return self._open

    def scale(self, plan: Plan) -> Float[Tensor, "rows length weighted"]:
        """Return the weights of the weighted columns; 1 long without a gate."""
        if not self.gates or self.literal:  # the literal gate has weighed the input
            return plan.owned
        return self._gate_weights(plan, plan.weighted_columns)

    def input_scale(self, plan: Plan) -> Float[Tensor, "rows length n"]:
        """Return what the literal gate multiplies the slices' input by."""
        return self._gate_weights(plan, len(plan.index))

    def _gate_weights(self, plan: Plan, columns: int) -> Tensor:
        """Return the weights of the last columns."""
        g, at = self.gate_values, slice(plan.weighted_columns - columns, None)
        if g.shape[-1] > 1:  # a gate per neuron
            g = g.index_select(-1, plan.order[-columns:])
        start, slope = plan.start[..., at].to(g.dtype), plan.slope[..., at].to(g.dtype)
        return torch.addcmul(start, g, slope)


def join(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return one tensor of several, without a copy if there is but one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)


def _batch_order(parts: Sequence[Tensor], rows: Sequence[Tensor | None]) -> Tensor:
    """Return the directions' rows in the order of the batch, padded to the widest."""
    if len(parts) == 1:
        return parts[0]
    width = max(y.shape[-1] for y in parts)
    order = torch.cat([at for at in rows if at is not None]).argsort()
    return torch.cat([y.expand(*y.shape[:-1], width) for y in parts]).index_select(0, order)
