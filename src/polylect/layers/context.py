"""Assigns an adapter, direction or expert to each row of a batch.

A forward pass of the backbone has no argument for it, so the strategy makes one `RoutingContext`,
gives it to every layer it injects, and opens a route around each call of the backbone.
"""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from math import gcd
from typing import Any

from torch import Tensor

from polylect.did_you_mean import did_you_mean
from polylect.layers.tokens import Tokens


@dataclass(frozen=True)
class RowGroups:
    """A batch cut into equally large groups of neighbouring rows that carry the same name."""

    names: tuple[str, ...]
    """one per group, in the order of the rows; "" is the base alone"""
    rows: int
    """rows in each group"""
    distinct: tuple[str, ...]
    """the names that occur, without "", in the order of their first row"""

    @classmethod
    def from_names(cls, names: tuple[str, ...]) -> "RowGroups":
        """Cut rows with these names into the largest groups of one size that share a name."""
        runs = [(name, len(list(run))) for name, run in groupby(names)]
        rows = gcd(*(length for _, length in runs))
        distinct = tuple(dict.fromkeys(name for name in names if name))
        return cls(names[::rows], rows, distinct)


class RoutingContext:
    """Names the rows of the batch that the backbone is working on.

    Explicit and shared by reference: no globals. A route is open during one forward pass, or
    during one `generate`, whose many passes then share what layers `remember`.

    One thread at a time has a route open or holds the `lock`; others wait for it, in no particular
    order. Within a route the same thread can open no other and cannot take the `lock`, which is an
    error: it would wait for itself.

    Attributes:
        adapters: in how many LoRA layers each adapter is.
        losses: auxiliary losses by layer name, of the present route or of the last one. A dict,
            because gradient checkpointing runs a layer twice and must not count its loss twice.
        routings: likewise, what routers decided in the last forward pass, by layer name.
        tokens: of the forward pass that is running, where `watch_tokens` puts them here.
        ended: which rows have ended while `generate` goes on with their neighbours, (rows,); None
            if none is known to have. Layers may treat their tokens as padding.
    """

    def __init__(self) -> None:
        self.adapters: Counter[str] = Counter()
        self.losses: dict[str, Tensor] = {}
        self.routings: dict[str, Any] = {}
        self.tokens: Tokens | None = None
        self.ended: Tensor | None = None
        self._names: tuple[str, ...] | None = None
        self._mask: Tensor | None = None
        self._prompts: Tensor | None = None
        self._memory: dict[Hashable, Any] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())  # a copy has a lock of its own

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other threads from opening a route until the block ends; locks nest, and routes open
        in them.

        For whatever changes what a route relies on, such as the adapters in memory.

        Raises:
            RuntimeError: this thread has a route open, as in a callback of `generate`.
        """
        with self._lock:
            if self._names is not None:
                raise RuntimeError(
                    "a route is open already: routes do not nest, and adapters and settings stay "
                    "as they are within one; wait until the batch is done"
                )
            yield

    @contextmanager
    def route(
        self,
        names: Sequence[str | None],
        mask: Tensor | None = None,
        prompt_lengths: Tensor | None = None,
    ) -> Iterator[None]:
        """Open a route: name the rows of the batch, one each; "" or None is the base alone.

        Waits while another thread has a route open or holds the `lock`.

        Args:
            mask: (rows, length), zero on padding; for layers that count or average tokens.
            prompt_lengths: (rows,), tokens of each row's source prompt; for layers that ask.

        Raises:
            RuntimeError: this thread has a route open already.
            ValueError: no names, or one string instead of a sequence of them.
        """
        if isinstance(names, str) or len(names) == 0:
            raise ValueError(f"a route needs one name per row of the batch, got {names!r}")
        with self.lock():
            self.losses.clear()
            self.routings.clear()
            with self._open(tuple(name or "" for name in names), mask, prompt_lengths, None):
                yield

    def mask_like(self, x: Tensor) -> Tensor | None:
        """Return which tokens of x (rows, length, …) are text.

        It is None if that is unknown for a tensor of its shape.

        A generation step sees one token per row, and beam search more rows than the mask.
        """
        mask = self._mask
        return mask.bool() if mask is not None and mask.shape == x.shape[:2] else None

    def rows(self, n: int) -> tuple[str, ...]:
        """Return the names of `n` rows, each repeated where beam search multiplied the batch.

        Raises:
            RuntimeError: outside a route.
            ValueError: `n` is no multiple of the rows that were named.
        """
        names = self._names
        if names is None:
            raise RuntimeError(
                "the layer does not know the rows' directions: "
                "call the backbone inside strategy.routing(batch)"
            )
        copies, rest = divmod(n, len(names))
        if rest or not copies:
            raise ValueError(
                f"the route names {len(names)} rows and the layer received {n}: "
                "name every row of the batch (beam search may multiply it by a whole number)"
            )
        return tuple(name for name in names for _ in range(copies)) if copies > 1 else names

    def prompt_lengths(self, n: int) -> Tensor:
        """Return the lengths of the prompts of `n` rows, (n,).

        Raises as `rows`, or if none were given.
        """
        self.rows(n)
        if self._prompts is None:
            raise ValueError("the route has no prompt_lengths, which one of the layers needs")
        return self._prompts.repeat_interleave(n // len(self._prompts))

    def groups(self, n: int) -> RowGroups:
        """Return `rows(n)` as equal groups; worked out once per route."""
        return self.remember(("groups", n), lambda: RowGroups.from_names(self.rows(n)))

    def check_adapters(self, names: Sequence[str]) -> None:
        """Raises ValueError for an adapter that no layer has: its rows would be the base's."""
        for name in names:
            if not self.adapters[name]:
                known = [known for known, layers in self.adapters.items() if layers]
                raise ValueError(
                    f"no layer has an adapter named {name!r}; {did_you_mean(name, known)}"
                )

    def check_unused(self, name: str) -> None:
        """Raises ValueError for an adapter of the rows of the present route."""
        if name and name in (self._names or ()):
            raise ValueError(f"adapter {name!r} is in use: remove it when the batch is done")

    def remember(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what `make` returned when the present route was first asked for this key."""
        try:
            return self._memory[key]
        except KeyError:
            value = make()
            if self._names is not None:
                self._memory[key] = value
            return value

    def forget(self, key: Hashable) -> None:
        """Drops one remembered value, if it is there."""
        self._memory.pop(key, None)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on, within the present route, with these of its rows alone.

        What layers remember is forgotten: it may depend on who was there. What they know of a row
        they keep with the cache (`Tokens.keep`).

        Raises:
            RuntimeError: outside a route.
        """
        names = self.rows(len(self._names or ("",)))
        self._names = tuple(names[row] for row in rows)
        self._mask = None if self._mask is None else self._mask[rows]
        self._prompts = None if self._prompts is None else self._prompts[rows]
        self.ended = None
        self._memory.clear()

    def checkpointing(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Open the same route when a layer is run again: `context_fn` of `torch.utils.checkpoint`.

        The second forward happens in the backward pass, when the route has long been closed.
        `TranslationModule` gives it to a base with model.gradient_checkpointing.
        """
        if self._names is None:
            return nullcontext(), nullcontext()
        return nullcontext(), self._reopen(self._names, self._mask, self._prompts, self.tokens)

    @contextmanager
    def _reopen(self, names: tuple[str, ...], *state: Any) -> Iterator[None]:
        if self._names == names:  # the backward pass was called inside the route
            yield
        elif self._names is not None:
            raise RuntimeError("a backward pass reached into the route of another batch")
        else:
            with self._open(names, *state):
                yield

    @contextmanager
    def _open(
        self,
        names: tuple[str, ...],
        mask: Tensor | None,
        prompts: Tensor | None,
        tokens: Tokens | None,
    ) -> Iterator[None]:
        self._names, self._mask, self._prompts, self.tokens = names, mask, prompts, tokens
        try:
            yield
        finally:
            self._names = self._mask = self._prompts = self.tokens = self.ended = None
            self._memory.clear()
