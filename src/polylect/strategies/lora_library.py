"""A library of adapters put to use: whichever a batch needs is loaded, the rest stays on disk."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor, nn

from polylect.data.batch import TranslationBatch
from polylect.layers.lora.attach import attach_lora
from polylect.layers.lora.layer import LoRALayer
from polylect.layers.lora.merge import merged_copy
from polylect.library import Adapter, ResidentAdapters
from polylect.library.adapter import trained_with_examples
from polylect.library.adapter_index import AdapterIndex, adapters_by_direction
from polylect.library.folder import open_library
from polylect.strategies.base import TranslationModule


class LoRALibrary(TranslationModule):
    """Translates with the PEFT adapters of a folder; trains nothing.

    Switching is naming: each row of a batch names its adapter or its direction, and an adapter that
    is not in memory, or whose files have changed, is read from its folder. The base's weights are
    never touched.

    Each method waits while another thread is within `routing`; called by the same thread within it,
    those that change something raise RuntimeError.

    Args:
        library: folder of PEFT folders, such as `adapters` in a run; None for none at first.
        budget_mib: memory for resident adapters, in MiB; those used longest ago make room.
        adapters: from adapter to the directions that it shall serve, where the library has two for
            one direction, or its files say otherwise.
    """

    trains: ClassVar[bool] = False
    frozen_base: ClassVar[bool] = True
    identity_at_start: ClassVar[bool] = False

    def __init__(
        self,
        *,
        library: str | Path | None = None,
        budget_mib: int | float = 1024,
        adapters: Mapping[str, Sequence[str]] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if budget_mib <= 0:
            raise ValueError(f"strategy.budget_mib must be positive, got {budget_mib}.")
        names = [] if library is None else open_library(library).names
        self.budget_bytes = int(budget_mib * 2**20)
        self.adapter_index = AdapterIndex(adapters_by_direction(adapters or {}, names))
        self._library = {name: Path(library) / name for name in names}
        self._override: str | None = None

    def attach(self) -> None:
        self.backbone.requires_grad_(False)
        self._layers: dict[str, LoRALayer] = {}
        self.store = ResidentAdapters(
            self.backbone,
            self._layers,
            self.adapter_index,
            self.budget_bytes,
            self.base_fingerprint,
            self._prepare,
        )
        self.adapter_index.add_folders(self._library)

    def add(
        self, folder: str | Path, name: str | None = None, directions: Sequence[str] | None = None
    ) -> str:
        """Put an adapter into the index, to be loaded when it is needed; returns its name.

        A direction that another adapter serves already stays with that one, and this one has to be
        named. Raises ValueError where the name is taken.
        """
        if isinstance(directions, str):
            raise ValueError(f"directions must be a list, such as [{directions!r}].")
        name = name or Path(folder).name
        with self.context.lock():
            self.adapter_index.add_folders({name: Path(folder)}, directions)
        return name

    def load(self, name: str) -> None:
        """Make an adapter resident now."""
        with self.context.lock():
            self.store.acquire([name])

    def unload(self, name: str) -> None:
        """Let go of an adapter's memory; it stays in the index."""
        with self.context.lock():
            self.store.unload(name)

    def drop(self, name: str) -> None:
        """Take an adapter out of the index and out of memory."""
        with self.context.lock():
            if name in self.store.resident:
                self.store.unload(name)
            self.adapter_index.drop(name)

    def named_adapters(self) -> "LoRALibrary":
        return self

    def check_direction(self, direction: str) -> None:
        self.adapter(direction)

    @contextmanager
    def use_adapter(self, name: str | None) -> Iterator[None]:
        """Send every row through this adapter ("" is the base alone), whatever its direction.

        Other threads wait until it ends.
        """
        with self.context.lock():
            before, self._override = self._override, name
            try:
                yield
            finally:
                self._override = before

    def adapter(self, direction: str) -> str:
        """Return the adapter that serves a direction; monolingual text has the base alone.

        Raises ValueError with the nearest direction, or where several adapters of the library serve
        it.
        """
        if self._override is not None:
            return self._override
        if "-" not in direction:
            return self.adapter_index.adapter_for(direction) or ""
        return self.adapter_index.require_adapter(direction)

    @contextmanager
    def routing(self, batch: TranslationBatch) -> Iterator[None]:
        with self.context.lock():
            names = self.adapters_of(batch.adapters or [None] * batch.rows, batch.directions)
            with self.store.pin(names), self.context.route(names):
                yield

    def adapters_of(self, named: Sequence[str | None], directions: Sequence[str]) -> list[str]:
        """Return each row's adapter: the one named for it, or the one that serves its direction."""
        return [
            self.adapter(direction) if name is None or self._override is not None else name
            for name, direction in zip(named, directions, strict=True)
        ]

    def cut_to_budget(
        self, named: Sequence[str | None], directions: Sequence[str]
    ) -> Iterator[list[int]]:
        """Yield parts as the hook says; rows of one adapter stay together."""
        names = self.adapters_of(named, directions)
        sizes: dict[str, int] = {}
        part: list[int] = []
        for index in sorted(range(len(names)), key=lambda i: names[i]):
            name = names[index]
            if name not in sizes:
                nbytes = self.store.nbytes(name) if name else 0
                if part and sum(sizes.values()) + nbytes > self.budget_bytes:
                    yield part
                    sizes, part = {}, []
                sizes[name] = nbytes
            part.append(index)
        if part:
            yield part

    @contextmanager
    def hold(self, named: Sequence[str | None], directions: Sequence[str]) -> Iterator[None]:
        with ExitStack() as stack:
            with self.context.lock():
                stack.enter_context(self.store.pin(self.adapters_of(named, directions)))
            yield

    def can_join(self, named: Sequence[str | None], directions: Sequence[str]) -> bool:
        """Return whether the rows' adapters fit beside those in use, and none has been replaced."""
        return self.store.fit_beside(self.adapters_of(named, directions))

    def reads_examples(self, direction: str) -> bool:
        name = self.adapter(direction)
        return not name or trained_with_examples(self.adapter_index.about(name))

    def merge_names(self) -> list[str]:
        return self.adapter_index.names

    def merged_model(self, name: str, probe: Int[Tensor, "rows length"]) -> tuple[nn.Module, float]:
        """Return the base with one adapter added to its weights."""
        with self.context.lock(), self.store.pin([name]):
            return merged_copy(self.backbone, name, probe)

    def _prepare(self, name: str, adapter: Adapter) -> None:
        """Attach LoRA layers where this adapter has updates and no other had any."""
        for path in adapter.modules:
            if path not in self._layers:
                module = self.backbone.get_submodule(path)
                self._layers[path] = attach_lora(module, self.context, path)
        self.adapter_index.update(name, adapter.about)
