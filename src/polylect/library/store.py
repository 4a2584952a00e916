"""The adapters of a library that are in memory: as many as a budget of bytes allows."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import nn

from polylect.library.adapter import Adapter, LoRAHolder, misfit
from polylect.library.folder import AdapterLibrary


@dataclass(frozen=True)
class _Resident:
    paths: tuple[str, ...]
    nbytes: int


class AdapterStore:
    """Loads adapters when a batch needs them and lets go of those not used for longest.

    Loading, evicting and switching cost the same however many adapters are resident: a layer
    looks its adapters up by name, and a batch names them row by row. The base is never touched.

    Args:
        model: the base; an adapter that does not belong on it is refused.
        layers: the LoRA layers of the model, by path.
        library: where adapters are read from.
        budget_bytes: what the tensors of all resident adapters may take together.
        fingerprint: of the base; if given, an adapter trained on another base is refused.

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
    ) -> None:
        if budget_bytes < 1:
            raise ValueError(f"the byte budget for adapters must be positive, got {budget_bytes}")
        self.budget_bytes = budget_bytes
        self.loads = self.hits = self.evictions = self.bytes = 0
        self._model, self._layers, self._library = model, layers, library
        self._fingerprint = fingerprint
        self._resident: OrderedDict[str, _Resident] = OrderedDict()

    @property
    def resident(self) -> tuple[str, ...]:
        """The adapters in memory, the one used longest ago first."""
        return tuple(self._resident)

    def acquire(self, names: Iterable[str]) -> None:
        """Makes all adapters of a batch resident; "" (the base alone) needs none.

        Raises:
            ValueError: together they are larger than the budget, or one does not fit the base.
        """
        wanted = [name for name in dict.fromkeys(names) if name]
        sizes = {name: self._size(name) for name in wanted}
        if sum(sizes.values()) > self.budget_bytes:
            raise ValueError(
                f"a batch needs {len(wanted)} adapters of {sum(sizes.values())} bytes together, "
                f"the budget is {self.budget_bytes}: raise it or mix fewer directions in a batch"
            )
        for name in wanted:
            if name in self._resident:
                self.hits += 1
                self._resident.move_to_end(name)
        for name in wanted:
            if name not in self._resident:
                self._make_room(sizes[name], wanted)
                self._load(name)

    def unload(self, name: str) -> None:
        """Lets go of one adapter.

        Raises:
            ValueError: it is not resident.
        """
        if name not in self._resident:
            raise ValueError(f"adapter {name!r} is not loaded; loaded: {list(self._resident)}")
        gone = self._resident.pop(name)
        self.bytes -= gone.nbytes
        for path in gone.paths:
            self._layers[path].remove(name)

    def _size(self, name: str) -> int:
        held = self._resident.get(name)
        return held.nbytes if held else self._library.nbytes(name)

    def _make_room(self, nbytes: int, kept: list[str]) -> None:
        unused = [name for name in self._resident if name not in kept]
        while self.bytes + nbytes > self.budget_bytes:
            self.unload(unused.pop(0))
            self.evictions += 1

    def _load(self, name: str) -> None:
        adapter = self._library.load(name)
        reason = misfit(adapter, self._model, self._fingerprint) or self._unready(adapter, name)
        if reason:
            raise ValueError(f"adapter {name!r} does not fit: {reason}")
        for path, update in adapter.modules.items():
            self._layers[path].set(name, update.a, update.b, update.scaling)
        self._resident[name] = _Resident(tuple(adapter.modules), adapter.nbytes)
        self.bytes += adapter.nbytes
        self.loads += 1

    def _unready(self, adapter: Adapter, name: str) -> str | None:
        for path in adapter.modules:
            if path not in self._layers:
                return f"{path} has no LoRA layer, attach one to it first"
            if name in self._layers[path].lora_a:
                return "the model has another adapter of this name that is not from the library"
        return None
