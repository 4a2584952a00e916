"""Which neurons of a feed-forward network have slices, whose they are, and how far a gate opens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from polylect.layers.routing import RoutingContext

GENERAL = "general"


@dataclass(frozen=True)
class NeuronSet:
    """Neurons of one layer that the same directions own.

    Attributes:
        owners: directions whose rows use and train the slice.
        general: language-general, weighed by g; else specific, weighed by 1 - g.
        index: of the neurons, ascending.
    """

    owners: tuple[str, ...]
    general: bool
    index: Int[Tensor, " n"]

    @property
    def name(self) -> str:
        """Of the slice's parameters."""
        return GENERAL if self.general else "of_" + "+".join(self.owners)


@dataclass(frozen=True)
class Plan:
    """Which slices a batch uses, and which of its rows use which.

    Attributes:
        rows: by direction; None where one direction has all rows.
        slices: all that a row of the batch owns.
        index: the neurons of these slices, one after the other, (n,).
        weights: (rows or 1, 2, neurons + n). What g and 1 - g add to the weight of each neuron of
            the base and of the slices: 1 or 0 for a slice, -1 or 0 for the base's own.
        start: (1, 1, neurons + n): 1 for the base's neurons, 0 for those of slices.
    """

    rows: Mapping[str, Tensor | None]
    slices: tuple[str, ...]
    index: Int[Tensor, " n"]
    weights: Float[Tensor, "rows 2 width"]
    start: Float[Tensor, "1 1 width"]

    @property
    def single(self) -> bool:
        """Whether every row owns every slice."""
        return len(self.rows) == 1


class NeuronBank(nn.Module):
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
        super().__init__()
        self.sets = {s.name: s for s in sets}
        for s in sets:
            self.register_buffer(f"index_{s.name}", s.index.to(device))
        self.neurons = neurons
        self.gates = nn.ModuleDict(gates).to(device)
        self.literal = literal
        self.context = context
        self.name = name
        self.openness: dict[str, Tensor] = {}
        self._open: Tensor | None = None

    def index(self, name: str) -> Int[Tensor, " n"]:
        """The neurons of a set."""
        return getattr(self, f"index_{name}")

    def serves(self, direction: str) -> bool:
        """Whether a direction owns anything here."""
        return any(direction in s.owners for s in self.sets.values())

    def plan(self, x: Float[Tensor, "rows length width"]) -> Plan | None:
        """For a batch like x, worked out once per route; None if no row owns anything here."""
        key = ("plan", self.name, len(x), x.dtype)
        return self.context.remember(key, lambda: self._plan(len(x), x))

    def _plan(self, rows: int, like: Tensor) -> Plan | None:
        found: dict[str, list[int]] = {}
        for row, name in enumerate(self.context.rows(rows)):
            found.setdefault(name, []).append(row)
        owned = {
            name: [row for d, at in found.items() if d in s.owners for row in at]
            for name, s in self.sets.items()
        }
        slices = tuple(name for name, at in owned.items() if at)
        if not slices:
            return None
        index = joined([self.index(name) for name in slices])
        width = self.neurons + len(index)
        weights = like.new_zeros(1 if len(found) == 1 else rows, 2, width)
        end = self.neurons
        for name in slices:
            begin, end = end, end + len(self.index(name))
            at = [0] if len(found) == 1 else owned[name]
            kind = 0 if self.sets[name].general else 1
            weights[at, kind, begin:end] = 1
            weights[torch.tensor(at, device=like.device)[:, None], kind, self.index(name)] = -1
        start = (torch.arange(width, device=like.device) < self.neurons).to(like.dtype)
        by_direction = {
            d: None if len(found) == 1 else torch.tensor(at, device=like.device)
            for d, at in found.items()
        }
        return Plan(by_direction, slices, index, weights, start.view(1, 1, -1))

    def replaces(self, plan: Plan) -> bool:
        """Whether slices can take the place of the base's neurons, no row using the latter."""
        return plan.single and not self.gates

    # The gate.

    def open_for(self, x: Float[Tensor, "rows length hidden"]) -> None:
        """Work out the openness of this forward; the first projection calls it."""
        plan = self.plan(x)
        if not self.gates or plan is None:
            return
        found: dict[str, Tensor] = {}
        for direction, rows in plan.rows.items():
            own = x if rows is None else x.index_select(0, rows)
            if self.serves(direction):
                gate = self.gates["shared" if "shared" in self.gates else direction]
                found[direction] = gate(own)
            else:
                found[direction] = own.new_zeros(*own.shape[:-1], 1)
        self._open = _in_order(list(found.values()), list(plan.rows.values()))
        self._observe(plan)

    def _observe(self, plan: Plan) -> None:
        """Keep means for dashboards, and the mean that a budget may hold to a value."""
        mask = self.context.mask_like(self.opened)
        means = {}
        for direction, rows in plan.rows.items():
            if not self.serves(direction):
                continue
            g = self.opened if rows is None else self.opened.index_select(0, rows)
            if mask is not None:
                g = g[mask if rows is None else mask.index_select(0, rows)]
            means[direction] = g.mean()
        self.openness = {direction: mean.detach() for direction, mean in means.items()}
        self.context.losses[self.name] = torch.stack(list(means.values())).mean()

    @property
    def opened(self) -> Float[Tensor, "rows length gates"]:
        """The openness of this forward: g."""
        if self._open is None:
            raise RuntimeError(f"{self.name}: the gate has not seen the layer's input.")
        return self._open

    def scale(self, plan: Plan) -> Float[Tensor, "rows length width"]:
        """The weight of every neuron, those of slices behind the base's; 1 long without a gate."""
        if not self.gates or self.literal:  # the literal gate has weighed the input
            return plan.start + plan.weights.sum(1, keepdim=True)
        return plan.start + self._gated(plan.weights, plan)

    def input_scale(self, plan: Plan) -> Float[Tensor, "rows length n"]:
        """What the literal gate multiplies the slices' input by."""
        return self._gated(plan.weights[..., self.neurons :], plan, slices=True)

    def _gated(self, weights: Tensor, plan: Plan, slices: bool = False) -> Tensor:
        """g times the first and 1 - g times the second row of the weights."""
        g = self.opened
        if g.shape[-1] == 1:
            both = torch.cat([g, 1 - g], -1)
            return both @ (weights[0] if plan.single else weights)
        g = g.index_select(-1, plan.index) if slices else torch.cat([g, g[..., plan.index]], -1)
        return g * weights[:, :1] + (1 - g) * weights[:, 1:]


def ownership(
    directions: Sequence[str],
    general: Bool[Tensor, " neurons"],
    specific: Bool[Tensor, "directions neurons"],
    selected: Bool[Tensor, " directions"],
) -> list[NeuronSet]:
    """The sets of one layer: the general neurons, and the specific ones by who owns them.

    Args:
        directions: names of the second dimension of `specific`.
        selected: directions that use this layer; the others own nothing in it.
    """
    users = tuple(d for d, used in zip(directions, selected.tolist(), strict=True) if used)
    sets = []
    if users and general.any():
        sets.append(NeuronSet(users, True, general.nonzero()[:, 0]))
    owned = specific & selected[:, None] & ~general
    by_owner: dict[tuple[str, ...], list[int]] = {}
    for neuron in owned.any(0).nonzero()[:, 0].tolist():
        owners = tuple(
            d for d, own in zip(directions, owned[:, neuron].tolist(), strict=True) if own
        )
        by_owner.setdefault(owners, []).append(neuron)
    sets += [NeuronSet(o, False, torch.tensor(index)) for o, index in sorted(by_owner.items())]
    return sets


def joined(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """One tensor of several, without a copy if there is but one."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim)


def _in_order(found: Sequence[Tensor], rows: Sequence[Tensor | None]) -> Tensor:
    """The directions' rows in the order of the batch, all as wide as the widest."""
    if len(found) == 1:
        return found[0]
    width = max(y.shape[-1] for y in found)
    order = torch.cat([at for at in rows if at is not None]).argsort()
    return torch.cat([y.expand(*y.shape[:-1], width) for y in found]).index_select(0, order)
