"""A library of adapters put to use: whichever a batch needs is loaded, the rest stays on disk."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor, nn

from polylect.data.batch import TranslationBatch
from polylect.hints import nearest
from polylect.layers.lora import LoRALayer, attach_lora
from polylect.layers.merge import merged_copy
from polylect.layers.routing import RoutingContext
from polylect.library import AdapterLibrary, AdapterStore
from polylect.library.folder import CONFIG
from polylect.strategies.base import TranslationModule


class Shelf(AdapterLibrary):
    """Adapter folders from anywhere, by name."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.folders: dict[str, Path] = {}

    @property
    def names(self) -> list[str]:
        return sorted(self.folders)

    def _folder(self, name: str) -> Path:
        if name not in self.folders:
            raise ValueError(f"no adapter is named {name!r}; {nearest(name, self.folders)}")
        return self.folders[name]


class LoRALibrary(TranslationModule):
    """Translates with the PEFT adapters of a folder; trains nothing.

    Switching is naming: each row of a batch names its adapter, and an adapter that is not in
    memory is read from its folder. The base's weights are never touched.

    Args:
        library: folder of PEFT folders, such as `adapters` in a run; None for an empty shelf.
        budget_mib: memory for resident adapters, in MiB; those used longest ago make room.
    """

    trains: ClassVar[bool] = False
    identity_at_start: ClassVar[bool] = False

    def __init__(
        self, *, library: str | Path | None = None, budget_mib: int | float = 1024, **common: Any
    ) -> None:
        super().__init__(**common)
        if budget_mib <= 0:
            raise ValueError(f"strategy.budget_mib must be positive, got {budget_mib}.")
        if library is not None and not AdapterLibrary(library).names:
            raise FileNotFoundError(
                f"strategy.library={library} holds no adapter: it must be a folder of folders with "
                f"{CONFIG}."
            )
        self.budget_bytes = int(budget_mib * 2**20)
        self.context = RoutingContext()
        self.shelf = Shelf()
        self._library = AdapterLibrary(library) if library is not None else None
        self._override: str | None = None
        self._directions: dict[str, str] = {}

    def attach(self) -> None:
        self.backbone.requires_grad_(False)
        self._layers: dict[str, LoRALayer] = {}
        self._placed: set[str] = set()  # adapters for all of whose modules there are layers
        self.store = AdapterStore(
            self.backbone, self._layers, self.shelf, self.budget_bytes, self.base_fingerprint
        )
        for name in self._library.names if self._library else ():
            self.add(self._library.path / name)

    def add(
        self, folder: str | Path, name: str | None = None, directions: Sequence[str] | None = None
    ) -> str:
        """Put an adapter on the shelf, to be loaded when it is needed; returns its name.

        A direction that another adapter serves already stays with that one.
        Raises ValueError where the name is taken.
        """
        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            raise FileNotFoundError(f"{folder} is not a PEFT adapter: it lacks {CONFIG}.")
        name = name or folder.name
        if name in self.shelf.folders:
            raise ValueError(f"an adapter named {name!r} is there already: give another name.")
        self.shelf.folders[name] = folder
        for direction in directions or self.shelf.about(name).get("directions", [name]):
            self._directions.setdefault(direction, name)
        return name

    def load(self, name: str) -> None:
        """Make an adapter resident now."""
        self._acquire([name])

    def unload(self, name: str) -> None:
        """Let go of an adapter's memory; it stays on the shelf."""
        self.store.unload(name)

    def drop(self, name: str) -> None:
        """Take an adapter off the shelf, and out of memory."""
        self.shelf._folder(name)
        if name in self.store.resident:
            self.unload(name)
        del self.shelf.folders[name]
        self._placed.discard(name)
        self._directions = {d: a for d, a in self._directions.items() if a != name}

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Within it every row uses this adapter ("" is the base alone), whatever its direction."""
        before, self._override = self._override, name
        try:
            yield
        finally:
            self._override = before

    def adapter(self, direction: str) -> str:
        """The adapter that serves a direction; monolingual text has the base alone.

        Raises ValueError with the nearest direction.
        """
        if self._override is not None:
            return self._override
        if direction not in self._directions and "-" not in direction:
            return ""
        if direction not in self._directions:
            raise ValueError(
                f"no adapter serves direction {direction}; {nearest(direction, self._directions)}"
            )
        return self._directions[direction]

    def routing(self, batch: TranslationBatch) -> AbstractContextManager:
        names = [self.adapter(direction) for direction in batch.directions]
        self._acquire(names)
        return self.context.route(names)

    def merged(self, name: str, probe: Int[Tensor, "rows length"]) -> tuple[nn.Module, float]:
        """The base with one adapter added to its weights."""
        self.load(name)
        return merged_copy(self.backbone, name, probe)

    def _acquire(self, names: Sequence[str]) -> None:
        for name in dict.fromkeys(names):
            if name and name not in self._placed:
                self._make_places(name)
        self.store.acquire(names)

    def _make_places(self, name: str) -> None:
        """Attach LoRA layers where this adapter has updates and no other had any."""
        for path in self.shelf.load(name).modules:
            if path in self._layers:
                continue
            try:
                module = self.backbone.get_submodule(path)
            except AttributeError:
                continue  # the store refuses the adapter in a sentence that names the module
            self._layers[path] = attach_lora(module, self.context, path)
        self._placed.add(name)
