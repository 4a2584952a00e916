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
class Part:
    """The rows of a batch that use the same slices."""

    direction: str
    rows: Int[Tensor, " rows"] | None
    """None: all of them"""
    slices: tuple[str, ...]


class NeuronBank(nn.Module):
    """What the projections of one feed-forward network share: which neurons, whose, what gate.

    Args:
        sets: disjoint sets of neurons.
        neurons: of the network.
        gates: a gate by direction, or one under "shared"; empty for none.
        literal: the gate multiplies the slices' input, see the module's text.
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

    @property
    def replaces(self) -> bool:
        """Whether slices take the place of the base's neurons."""
        return self.literal or not self.gates

    def index(self, part: Part) -> Int[Tensor, " n"]:
        """Neurons of the part's slices, in the order of the slices."""
        return joined([getattr(self, f"index_{name}") for name in part.slices])

    def parts(self, rows: int) -> list[Part]:
        """The batch by direction; worked out once per route."""
        return self.context.remember(("parts", self.name, rows), lambda: self._parts(rows))

    def _parts(self, rows: int) -> list[Part]:
        names = self.context.rows(rows)
        found: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            found.setdefault(name, []).append(row)
        device = self._device()
        return [
            Part(
                direction,
                None if len(found) == 1 else torch.tensor(at, device=device),
                tuple(name for name, s in self.sets.items() if direction in s.owners),
            )
            for direction, at in found.items()
        ]

    def _device(self) -> torch.device:
        return next(self.buffers()).device

    # The gate.

    def open_for(self, x: Float[Tensor, "rows length hidden"]) -> None:
        """Work out the openness of this forward; the first projection calls it."""
        if not self.gates:
            return
        parts = self.parts(len(x))
        shared = "shared" in self.gates
        opened = [
            self.gates["shared" if shared else part.direction](take(x, part.rows))
            if part.slices
            else x.new_zeros(*take(x, part.rows).shape[:-1], 1)
            for part in parts
        ]
        width = max(g.shape[-1] for g in opened)
        self._open = put_back(
            [g.expand(*g.shape[:-1], width) if g.shape[-1] == 1 else g for g in opened], parts
        )
        self._observe(parts)

    def _observe(self, parts: Sequence[Part]) -> None:
        """Keep means for dashboards, and the mean that a budget may hold to a value."""
        assert self._open is not None
        mask = self.context.mask_like(self._open)
        means = {}
        for part in parts:
            if part.slices:
                g = take(self._open, part.rows)
                kept = g if mask is None else g[take(mask, part.rows)]
                means[part.direction] = kept.mean()
        self.openness = {direction: mean.detach() for direction, mean in means.items()}
        if means:
            self.context.losses[self.name] = torch.stack(list(means.values())).mean()

    def weight(
        self, parts: Sequence[Part], dtype: torch.dtype
    ) -> Float[Tensor, "rows length neurons"]:
        """g on general, 1 - g on specific neurons that the row uses, 0 on all others."""
        assert self._open is not None
        g = self._open
        general, specific = self._members(parts, len(g), dtype)
        if g.shape[-1] == 1:
            return torch.cat([g, 1 - g], -1) @ torch.cat([general, specific], 1)
        return g * general + (1 - g) * specific

    def _members(
        self, parts: Sequence[Part], rows: int, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "rows 1 neurons"], Float[Tensor, "rows 1 neurons"]]:
        return self.context.remember(
            ("members", self.name, rows, dtype), lambda: self._make_members(parts, rows, dtype)
        )

    def _make_members(
        self, parts: Sequence[Part], rows: int, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        members = torch.zeros(2, rows, 1, self.neurons, device=self._device(), dtype=dtype)
        for part in parts:
            at = slice(None) if part.rows is None else part.rows[:, None]
            for name in part.slices:
                which = 0 if self.sets[name].general else 1
                members[which, at, 0, getattr(self, f"index_{name}")] = 1
        return members[0], members[1]


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


def take(x: Tensor, rows: Tensor | None) -> Tensor:
    """The rows of x; all of them for None."""
    return x if rows is None else x.index_select(0, rows)


def put_back(found: Sequence[Tensor], parts: Sequence[Part]) -> Tensor:
    """The parts' rows in the order of the batch."""
    if parts[0].rows is None:
        return found[0]
    order = torch.cat([part.rows for part in parts]).argsort()
    return torch.cat(list(found)).index_select(0, order)
