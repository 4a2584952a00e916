"""Linear layers that choose among the adapters of libraries, token by token, each for itself.

W x + the update of the chosen adapters of each library. A library is a bank of those of its
adapters that change the layer, and is routed by itself.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polylect.layers.adapter_bank import AdapterBank
from polylect.layers.adapter_choice import Choice, RouterSettings, choose, votes
from polylect.layers.adapter_election import Election
from polylect.layers.adapter_energy import EnergySums
from polylect.layers.adapter_mixing import lifted, mixed_update
from polylect.layers.route_counts import RouteCounts
from polylect.layers.routing import RoutingContext
from polylect.layers.spectral import exact, top_scored
from polylect.layers.tokens import Tokens, watch_tokens


@dataclass(frozen=True)
class _Pass:
    """The real tokens of one forward pass, one after the other.

    Attributes:
        tokens: all of them; None if the layer's input has no rows.
        index: where the real ones stand; None if there is no padding.
        rows: the row of each.
        cells: what it counts for, see `RouteCounts.add`.
    """

    tokens: Tokens | None = None
    index: Tensor | None = None
    rows: Tensor | None = None
    cells: Tensor | None = None


class AdapterRouter:
    """What the routed layers of one model share.

    Attributes:
        settings: how they choose.
        counts: what they chose; None counts nothing.
        energies: takes the sizes of the updates, if there is one.
        trace: a dict that takes the strongest choice of the next passes, see `traced`.
        election: takes the layers' votes, if there is one; no adapter acts meanwhile.
        named: libraries in which a row gets the adapter that serves it, whatever the settings.
    """

    def __init__(self, settings: RouterSettings, counts: RouteCounts | None = None) -> None:
        self.settings, self.counts = settings, counts
        self.energies: EnergySums | None = None
        self.trace: dict[tuple[str, str], Tensor] | None = None
        self.election: Election | None = None
        self.named: frozenset[str] = frozenset()
        self.context = RoutingContext()
        self._prompt_lengths: Tensor | None = None
        self._elected: Mapping[str, Sequence[str]] = {}
        self._pass = _Pass()

    def watch(self, model: nn.Module) -> RemovableHandle:
        """Sees every forward pass of `model`, as in `watch_tokens`."""
        return watch_tokens(model, self._lengths, self._see)

    @contextmanager
    def route(
        self,
        directions: Sequence[str],
        prompt_lengths: Int[Tensor, "rows"],
        elected: Mapping[str, Sequence[str]] | None = None,
    ) -> Iterator[None]:
        """Opens a route; the directions matter to the oracle and to the counts, to no other router.

        Args:
            prompt_lengths: real tokens in the source prompt of each row.
            elected: by library the adapter of each row, for level "model".

        Raises:
            RuntimeError: a route is open already.
        """
        with self.context.route(directions):
            self._prompt_lengths, self._elected = prompt_lengths, elected or {}
            try:
                yield
            finally:
                self._prompt_lengths, self._elected, self._pass = None, {}, _Pass()

    @contextmanager
    def traced(self) -> Iterator[dict[tuple[str, str], Tensor]]:
        """Within it the dict takes, by library and layer, each token's strongest adapter.

        (rows, length) of the last pass, -1 on padding.
        """
        self.trace = {}
        try:
            yield self.trace
        finally:
            self.trace = None

    @contextmanager
    def electing(self) -> Iterator[Election]:
        """Within it layers vote on the prompts, and passes are those of the base alone."""
        self.election = Election()
        try:
            yield self.election
        finally:
            self.election = None

    def elected(self, library: str, rows: int) -> list[str]:
        """The adapter of each of `rows` rows, repeated where beam search multiplied the batch."""
        names = self._elected[library]
        return [name for name in names for _ in range(rows // len(names))]

    def passing(self, x: Tensor) -> _Pass:
        """The tokens of the present pass. Raises RuntimeError outside of a route."""
        tokens = self._pass.tokens
        if tokens is not None and tokens.real.shape == x.shape[:-1]:
            return self._pass
        self.context.rows(len(x))
        if self.settings.level != "token" or self.settings.router == "oracle" or self.named:
            raise ValueError(
                f"a layer received {tuple(x.shape)}, in which rows cannot be told: adapters on "
                "such layers are routed token by token only"
            )
        return _Pass()

    def _lengths(self, rows: int) -> Tensor:
        self.context.rows(rows)
        return self._prompt_lengths.repeat_interleave(rows // len(self._prompt_lengths))

    def _see(self, tokens: Tokens) -> None:
        real = tokens.real
        index = None if bool(real.all()) else real.flatten().nonzero().squeeze(1)
        length = real.shape[1]
        every = torch.arange(real.numel(), device=real.device) if index is None else index
        rows = every // max(length, 1)
        cells = None
        if self.counts is not None:
            numbers = self.counts.number(self.context.rows(len(real)))
            of_rows = torch.tensor(numbers, device=real.device)
            cells = 2 * of_rows[rows] + ~tokens.prompt.flatten()[every]
        self._pass = _Pass(tokens, index, rows, cells)


class RoutedLayer(nn.Module):
    """What `attach_routing` adds to a linear layer; the layer's own parameters stay as they are.

    Attributes:
        lora_banks: the banks of adapters, by library.
        router: shared by all layers of the model.
        layer_name: the layer's path in its model.
    """

    lora_banks: nn.ModuleDict
    router: AdapterRouter
    layer_name: str

    def forward(self, x: Float[Tensor, "*tokens in"]) -> Float[Tensor, "*tokens out"]:
        """Each token through the base and the adapters chosen for it; padding through the base."""
        y = super().forward(x)
        passing = self.router.passing(x)
        flat = x.reshape(-1, x.shape[-1])
        if passing.index is not None:
            flat = flat.index_select(0, passing.index)
        if not flat.shape[0]:
            return y
        with exact(x):
            flat = flat.to(torch.promote_types(x.dtype, torch.float32))
            if self.router.election is not None:
                self._vote(flat, passing)
                return y
            updates = [self._update(flat, name, passing) for name in self.lora_banks]
            update = functools.reduce(torch.add, updates).to(y.dtype)
        if passing.index is None:
            return y.add_(update.view_as(y))
        return y.reshape(-1, y.shape[-1]).index_add_(0, passing.index, update).view_as(y)

    def _update(self, x: Tensor, library: str, passing: _Pass) -> Tensor:
        bank, settings = self.lora_banks[library], self.router.settings
        choice = self._choice(x, library, bank, passing)
        self._note(library, bank, passing, choice)
        if self.router.energies is not None:
            self.router.energies.add(bank, x, choice)
        indices, weights = choice.indices, choice.weights
        used, local = bank.compact(indices)
        b = bank.factor("b", used).to(x.dtype)
        if choice.projected is not None:
            return lifted(choice.projected.to(x.dtype), b, local.squeeze(1))
        a = bank.factor("a", used).to(x.dtype)
        return mixed_update(x, a, b, local, weights, mix_factors=settings.mixing != "output")

    def _choice(self, x: Tensor, library: str, bank: AdapterBank, passing: _Pass) -> Choice:
        settings, context = self.router.settings, self.router.context
        if settings.router == "oracle" or library in self.router.named:
            names = context.rows(len(passing.tokens.real))
            return _named(x, passing, [bank.serving.get(name, -1) for name in names])
        if settings.level == "token":
            return choose(x, bank, settings)
        if settings.level == "model":
            position = {name: i for i, name in enumerate(bank.names)}
            elected = self.router.elected(library, len(passing.tokens.real))
            return _named(x, passing, [position.get(name, -1) for name in elected])
        key = ("sentence", id(self), library)
        if passing.tokens.seen == 0:
            context.forget(key)
        chosen = context.remember(key, lambda: self._sentence(x, bank, passing))
        indices = chosen[passing.rows].unsqueeze(1)
        return Choice(indices, x.new_ones(indices.shape))

    def _sentence(self, x: Tensor, bank: AdapterBank, passing: _Pass) -> Tensor:
        """The adapter of each row."""
        tokens = passing.tokens
        if tokens.seen:
            raise RuntimeError(
                f"the cache holds {tokens.seen} tokens of which the router saw nothing: "
                "pass the empty cache to the first forward pass too, inside strategy.routing(batch)"
            )
        return top_scored(self._votes(x, bank, passing), 1).squeeze(1)

    def _vote(self, x: Tensor, passing: _Pass) -> None:
        for library in self.lora_banks.keys() - self.router.named:
            bank = self.lora_banks[library]
            self.router.election.add(library, bank.names, self._votes(x, bank, passing))

    def _votes(self, x: Tensor, bank: AdapterBank, passing: _Pass) -> Tensor:
        """The weight of each adapter over the prompt of each row, (rows, adapters)."""
        prompt = passing.tokens.prompt.flatten()
        counted = prompt if passing.index is None else prompt[passing.index]
        choice = choose(x, bank, self.router.settings)
        return votes(choice, passing.rows, len(passing.tokens.real), counted, len(bank.names))

    def _note(self, library: str, bank: AdapterBank, passing: _Pass, choice: Choice) -> None:
        """Counts the choice and traces it, where that is wanted."""
        router = self.router
        if passing.tokens is None:
            return
        if router.counts is not None:
            router.counts.add(library, self.layer_name, bank, passing.cells, choice)
        if router.trace is not None:
            best = choice.weights.argmax(1, keepdim=True)
            strongest = choice.indices.gather(1, best).squeeze(1)
            real = passing.tokens.real
            trace = torch.full_like(real, -1, dtype=strongest.dtype)
            trace[real] = strongest
            router.trace[library, self.layer_name] = trace


def _named(x: Tensor, passing: _Pass, of_rows: Sequence[int]) -> Choice:
    """One adapter for each row, by its position; -1 for none."""
    own = torch.tensor(of_rows, device=x.device)[passing.rows].unsqueeze(1)
    return Choice(own.clamp(min=0), (own >= 0).to(x.dtype))


class RoutedLinear(RoutedLayer, nn.Linear):
    """An `nn.Linear` with routed adapters; made by `attach_routing`, not constructed."""


@functools.cache
def _with_routing(kind: type[nn.Linear]) -> type[nn.Linear]:
    if kind is nn.Linear:
        return RoutedLinear
    return type(f"Routed{kind.__name__}", (RoutedLayer, kind), {})


def attach_routing(
    module: nn.Module, router: AdapterRouter, banks: Mapping[str, AdapterBank], name: str
) -> RoutedLayer:
    """Turns a linear layer, in place, into one that routes among adapters.

    The object, its parameters and their names stay the same. Subclasses of `nn.Linear` (such as
    those of bitsandbytes) keep their own forward.

    Args:
        module: an `nn.Linear` or a subclass of it.
        router: shared by all layers of the model.
        banks: adapters, by library.
        name: the layer's path in the model.
    """
    if isinstance(module, RoutedLayer) or not isinstance(module, nn.Linear):
        raise ValueError(
            f"{name} is a {type(module).__name__}: routing goes once onto nn.Linear and its "
            "subclasses"
        )
    module.__class__ = _with_routing(type(module))
    module.lora_banks = nn.ModuleDict(banks).to(module.weight.device)
    module.router, module.layer_name = router, name
    return module


def routed_layers(model: nn.Module) -> dict[str, RoutedLayer]:
    """The layers of `model` that route among adapters, by path."""
    return {name: m for name, m in model.named_modules() if isinstance(m, RoutedLayer)}
