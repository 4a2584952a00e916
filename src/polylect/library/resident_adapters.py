"""The adapters of a library that are in memory: as many as a budget of bytes allows."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from polylect.library.adapter import Adapter, LoRAHolder, incompatibility
from polylect.library.folder import AdapterLibrary
from polylect.lru import ByteBudgetLRU


@dataclass(frozen=True)
class _Resident:
    paths: tuple[str, ...]
    version: tuple[int, ...] | None


class ResidentAdapters(ByteBudgetLRU[str, _Resident]):
    """Loads adapters when a batch needs them and lets go of those not used for longest.

    Loading, evicting and switching cost the same however many adapters are resident: a layer
    looks its adapters up by name, and a batch names them row by row. The base is never touched.

    An adapter whose files have changed is read again when it is next asked for. One whose files
    are gone may be being replaced: it is waited for a moment, once, and then stays as it is. It is
    for one thread at a time: `LoRALibrary` has the lock.

    Args:
        model: the base; an adapter that does not belong on it is refused.
        layers: the LoRA layers of the model, by path.
        library: where adapters are read from.
        budget_bytes: what the tensors of all resident adapters may take together.
        fingerprint: of the base; if given, an adapter trained on another base is refused.
        prepare: is called with the name and an adapter that fits, before it is put into the layers.

    Attributes:
        loads, hits, evictions: how often an adapter was read, was there already, was let go.
        bytes: of the resident adapters' tensors.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, LoRAHolder],
        library: AdapterLibrary,
        budget_bytes: int,
        fingerprint: str | None = None,
        prepare: Callable[[str, Adapter], None] | None = None,
    ) -> None:
        super().__init__(budget_bytes)
        self._model, self._layers, self._library = model, layers, library
        self._fingerprint, self._prepare = fingerprint, prepare
        self._in_use: Counter[str] = Counter()
        self._gone: set[str] = set()

    @property
    def resident(self) -> tuple[str, ...]:
        """The adapters in memory, the one used longest ago first."""
        return tuple(self)

    @contextmanager
    def pin(self, names: Iterable[str]) -> Iterator[None]:
        """Acquire adapters; within the block none is evicted, unloaded or read again."""
        used = [name for name in dict.fromkeys(names) if name]
        self.acquire(used)
        self._in_use.update(used)
        try:
            yield
        finally:
            self._in_use.subtract(used)

    def acquire(self, names: Iterable[str]) -> None:
        """Makes all adapters of a batch resident; "" (the base alone) needs none.

        Raises:
            ValueError: together, and with those in use, they are larger than the budget, or one
                does not fit the base.
        """
        batch_names = [name for name in dict.fromkeys(names) if name]
        stay = dict.fromkeys([*batch_names, *(name for name, uses in self._in_use.items() if uses)])
        ready = {name for name in stay if name in self and not self._is_stale(name)}
        nbytes = sum(
            self.held_bytes(name) if name in ready else self._library.nbytes(name) for name in stay
        )
        if nbytes > self.budget_bytes:
            raise ValueError(
                f"a batch needs {len(stay)} adapters of {nbytes} bytes together, "
                f"the budget is {self.budget_bytes}: raise it or mix fewer directions in a batch"
            )
        for name in batch_names:
            if name in ready:
                self.touch(name)
            elif name in self:
                self.unload(name)
        for name in batch_names:
            if name not in ready:
                self._load(name, stay)

    def unload(self, name: str) -> None:
        """Lets go of one adapter.

        Raises:
            ValueError: it is not resident, or in use.
        """
        if name not in self:
            raise ValueError(f"adapter {name!r} is not loaded; loaded: {list(self)}")
        if self._in_use[name]:
            raise ValueError(f"adapter {name!r} is in use: unload it when the batch is done")
        self.remove(name)

    def on_release(self, name: str, resident: _Resident) -> None:
        """Takes an adapter out of the layers."""
        self._gone.discard(name)
        for path in resident.paths:
            self._layers[path].remove(name)

    def nbytes(self, name: str) -> int:
        """Return the bytes of an adapter's tensors, in memory or as they would be."""
        if name in self and not self._is_stale(name):
            return self.held_bytes(name)
        return self._library.nbytes(name)

    def fit_beside(self, names: Iterable[str]) -> bool:
        """Return whether these adapters fit beside those in use, and none is to be read again."""
        joining = {name for name in names if name}
        if any(name in self and self._has_changed(name) for name in joining):
            return False
        used = {name for name, uses in self._in_use.items() if uses}
        return sum(map(self.nbytes, joining | used)) <= self.budget_bytes

    def _is_stale(self, name: str) -> bool:
        """Say whether a resident adapter would be read again."""
        return not self._in_use[name] and self._has_changed(name)

    def _has_changed(self, name: str) -> bool:
        """Say whether the files of a resident adapter have changed since they were read."""
        # Away may mean that it is being replaced, and not for the first time since it was read.
        look = self._library.version if name in self._gone else self._library.awaited_version
        version = look(name)
        if version is None:
            self._gone.add(name)
            return False
        self._gone.discard(name)
        return version != self[name].version

    def _load(self, name: str, stay: Collection[str]) -> None:
        # Before it is read: what is written after that is seen as newer.
        version = self._library.awaited_version(name)
        adapter = self._library.load(name)
        reason = incompatibility(adapter, self._model, self._fingerprint)
        if reason is None:
            if self._prepare is not None:
                self._prepare(name, adapter)
            reason = self._unready(adapter, name)
        if reason:
            raise ValueError(f"adapter {name!r} does not fit: {reason}")
        self.make_room(adapter.nbytes, stay)  # which may be another size than was announced
        paths: list[str] = []
        try:
            for path, update in adapter.modules.items():
                self._layers[path].set(name, update.a, update.b, update.scaling)
                paths.append(path)
        except Exception:  # memory ran out, say: no half of an adapter stays behind
            for path in paths:
                self._layers[path].remove(name)
            raise
        self.add(name, _Resident(tuple(adapter.modules), version), adapter.nbytes)

    def _unready(self, adapter: Adapter, name: str) -> str | None:
        for path in adapter.modules:
            if path not in self._layers:
                return f"{path} has no LoRA layer, attach one to it first"
            if name in self._layers[path].lora_a:
                return "the model has another adapter of this name that is not from the library"
        return None
