"""Linear layers that choose among the adapters of libraries, token by token, each for itself.

W x + the update of the chosen adapters of each library. A library is a bank of those of its
adapters that change the layer, and is routed by itself.

One pass: `AdapterRouter.on_forward` makes the pass's `TokenView`. In each layer the library's
`Selector` turns its tokens into a `Selection`, the observers see it, and `weighted_update` applies
it.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polylect.layers.adapters.bank import AdapterBank
from polylect.layers.adapters.observers import Observer, Place
from polylect.layers.adapters.scores import no_autocast
from polylect.layers.adapters.selection import Selection
from polylect.layers.adapters.selectors import Selector
from polylect.layers.adapters.weighted_updates import up_project, weighted_update
from polylect.layers.context import RoutingContext
from polylect.layers.tokens import Tokens, TokenView, watch_tokens


@dataclass
class _Route:
    """The state of one batch's routing, and of the forward pass that is running."""

    selectors: Mapping[str, Selector]
    observers: Sequence[Observer]
    view: TokenView | None = None


class AdapterRouter:
    """What the routed layers of one model share: who chooses, who looks on, and the open route.

    Attributes:
        context: names the rows of the batch.
        selectors: by library; the adapters of one without a selector do not act.
        observers: are told of every selection.
        mix_factors: whether the chosen adapters' factors are averaged before they are multiplied,
            see `weighted_update`.
    """

    def __init__(
        self,
        context: RoutingContext,
        selectors: Mapping[str, Selector],
        observers: Sequence[Observer] = (),
        *,
        mix_factors: bool = False,
    ) -> None:
        self.context, self.mix_factors = context, mix_factors
        self.selectors, self.observers = dict(selectors), tuple(observers)
        self._route: _Route | None = None

    def watch(self, model: nn.Module) -> RemovableHandle:
        """Sees every forward pass of `model`, as in `watch_tokens`."""
        return watch_tokens(model, self.context.prompt_lengths, self.on_forward)

    @contextmanager
    def route(
        self,
        directions: Sequence[str],
        prompt_lengths: Int[Tensor, " rows"],
        *,
        selectors: Mapping[str, Selector] | None = None,
        observers: Sequence[Observer] | None = None,
    ) -> Iterator[None]:
        """Opens a route; the directions matter to the oracle and to observers, to nobody else.

        Args:
            prompt_lengths: real tokens in the source prompt of each row.
            selectors, observers: in place of the router's own, for this route.

        Raises:
            RuntimeError: a route is open already.
        """
        with self.context.route(directions, prompt_lengths=prompt_lengths):
            self._route = _Route(
                self.selectors if selectors is None else selectors,
                self.observers if observers is None else observers,
            )
            try:
                yield
            finally:
                self._route = None

    def on_forward(self, tokens: Tokens) -> None:
        """Make the view of a forward pass over these tokens, which is about to begin."""
        directions = self.context.rows(len(tokens.real))
        self._route.view = TokenView.from_tokens(tokens, directions, self.context.ended)

    def tokens_of(self, x: Float[Tensor, "*tokens in"]) -> TokenView | None:
        """Return the tokens of a layer's input; None if its shape is not that of the pass.

        Raises:
            RuntimeError: no route is open.
        """
        view = None if self._route is None else self._route.view
        if view is not None and view.real.shape == x.shape[:-1]:
            return view
        self.context.rows(len(x))  # which raises, or else the rows cannot be told
        return None

    def selector(self, library: str) -> Selector | None:
        """Return what chooses among the adapters of a library in the open route."""
        return self._route.selectors.get(library)

    def select(
        self, place: Place, bank: AdapterBank, x: Float[Tensor, "tokens in"], view: TokenView | None
    ) -> Selection | None:
        """Select adapters for the tokens and tell the observers; returns None for none.

        Raises:
            ValueError: the selector needs to know the rows of tokens, and there is no view.
        """
        library, layer = place
        selector = self.selector(library)
        if selector is None:
            return None
        if view is None and selector.by_row:
            raise ValueError(
                f"{layer} received {len(x)} inputs in which rows cannot be told: adapters on such "
                "layers are routed token by token only"
            )
        selection = selector.select(x, bank, view)
        if view is not None and selection is not None:
            for observer in self._route.observers:
                observer.observe(place, bank, x, view, selection)
        return selection


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
        """Send tokens through the base and the adapters chosen for them; padding has the base."""
        y = super().forward(x)
        view = self.router.tokens_of(x)
        tokens = x.reshape(-1, x.shape[-1]) if view is None else view.gather(x)
        if not len(tokens):
            return y
        with no_autocast(x):
            tokens = tokens.to(torch.promote_types(x.dtype, torch.float32))
            updates = [self._update(tokens, library, view) for library in self.lora_banks]
            updates = [update for update in updates if update is not None]
            if not updates:
                return y
            update = functools.reduce(torch.add, updates).to(y.dtype)
        return y.add_(update.view_as(y)) if view is None else view.add_to(y, update)

    def _update(self, x: Tensor, library: str, view: TokenView | None) -> Tensor | None:
        """Return what the library adds to the output at the routed tokens."""
        bank = self.lora_banks[library]
        selection = self.router.select((library, self.layer_name), bank, x, view)
        if selection is None:
            return None
        used, indices = bank.unique_adapters(selection.indices)
        b = bank.factor("b", used).to(x.dtype)
        if selection.projected is not None:
            return up_project(selection.projected.to(x.dtype), b, indices.squeeze(1))
        a = bank.factor("a", used).to(x.dtype)
        mix_factors = self.router.mix_factors
        return weighted_update(x, a, b, indices, selection.weights, mix_factors=mix_factors)


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
    """Return the layers of `model` that route among adapters, by path."""
    return {name: m for name, m in model.named_modules() if isinstance(m, RoutedLayer)}


def banks_of(model: nn.Module, library: str) -> dict[str, AdapterBank]:
    """Return the banks of one library, by the path of their layer."""
    layers = routed_layers(model)
    return {p: m.lora_banks[library] for p, m in layers.items() if library in m.lora_banks}
