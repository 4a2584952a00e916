"""Routing among libraries of adapters, without training and without naming the direction.

LAG (Fleshman and Van Durme, arXiv 2507.05346): Arrow filters, SpectR selects. Arrow and SpectR
alone, a uniform merge and the oracle are settings of the same strategy.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from polylect import plots
from polylect.data.batch import TranslationBatch
from polylect.did_you_mean import did_you_mean
from polylect.layers.adapters.alignment import align
from polylect.layers.adapters.build import build_banks
from polylect.layers.adapters.calibration import (
    EnergyStatistics,
    calibration_key,
    put_centers,
    put_statistics,
    statistics_of,
)
from polylect.layers.adapters.counts import RouteCounts
from polylect.layers.adapters.observers import Observer, Place, Trace
from polylect.layers.adapters.router import AdapterRouter, attach_routing, banks_of
from polylect.layers.adapters.selection import RouterSettings
from polylect.layers.adapters.selectors import ModelVote, Named, Oracle, Selector, selector_for
from polylect.layers.lora.layer import check_adapter_name
from polylect.library import AdapterLibrary
from polylect.library.adapter import trained_with_examples
from polylect.library.aligned_library import AlignedLibrary
from polylect.library.calibration import read_calibration, read_inputs, write_calibration
from polylect.library.folder import open_library
from polylect.library.layer_index import adapters_by_layer, check_head
from polylect.library.serving import Serving, check_adapters_setting, check_served
from polylect.strategies.base import TranslationModule, prompt_lengths


class LAG(TranslationModule):
    """Translates with whichever adapters each layer finds fitting for each token; trains nothing.

    A layer chooses among the adapters that change it; those of different ranks and targets may be
    in one library. Several libraries are routed separately, and the choices of all are applied. The
    adapters are those that are there when the base is adopted: one that is replaced later is not
    read, and refused where a part of it has still to be.

    Args:
        library: folder of PEFT folders, or a mapping from names of libraries to such folders.
        router, k, form, weights, temperature, mixing, level, center: see `RouterSettings`.
        budget_mib: memory for the adapters' factors, in MiB. If all fit, they are read at once;
            else those are held that were used last. The arrows are always in memory.
        count: sums up who was chosen, for `telemetry` and `routing_rows`.
        named: libraries that are not routed: a row gets the adapter that serves its direction.
        adapters: from adapter to the directions that it shall serve, where a library has two for
            one direction, or its files say otherwise.
        any_base: takes adapters of another base of the same shape, as of the pretrained model on
            its instruct model.

    Attributes:
        settings: how libraries that are not `named` are routed, see `route_by`.
        counts: who was chosen since the last `counts.clear()`; a beam counts as a row.
        serving: which adapter serves a direction, by library.
    """

    trains: ClassVar[bool] = False
    frozen_base: ClassVar[bool] = True
    identity_at_start: ClassVar[bool] = False

    def __init__(
        self,
        *,
        library: str | Path | Mapping[str, str | Path],
        router: str = "lag",
        k: int = 20,
        form: str = "proj",
        weights: str = "softmax",
        temperature: float | int = 1.0,
        mixing: str = "output",
        level: str = "token",
        center: bool = False,
        budget_mib: int | float = 1024,
        count: bool = True,
        named: Sequence[str] = (),
        adapters: Mapping[str, Sequence[str]] | None = None,
        any_base: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.settings = RouterSettings(
            router=router, k=k, form=form, weights=weights, temperature=temperature, mixing=mixing,
            level=level, center=center,
        )  # fmt: skip
        if budget_mib <= 0:
            raise ValueError(f"strategy.budget_mib must be positive, got {budget_mib}.")
        self.budget_bytes = int(budget_mib * 2**20)
        self.libraries = _libraries(library)
        for name in named:
            self._check_library(name, "strategy.named")
        self.named, self.any_base, self._adapters = frozenset(named), any_base, adapters or {}
        check_adapters_setting(self._adapters, self.libraries.values())
        self.counts = RouteCounts() if count else None
        observers = [] if self.counts is None else [self.counts]
        self.router = AdapterRouter(self.context, {}, observers, mix_factors=mixing != "output")
        self.route_by(self.settings)

    def route_by(self, settings: RouterSettings) -> None:
        """Route the libraries that are not `named` by other settings.

        Raises:
            ValueError: another `mixing`, for which factors are not there; `center` without means.
        """
        if settings.mixing != self.settings.mixing:
            raise ValueError(
                f"strategy.mixing={self.settings.mixing} is settled when adapters are read: make "
                f"another module for mixing={settings.mixing}."
            )
        with self.context.lock():
            if settings.center != self.settings.center:
                self._center(settings.center)
            self.settings = settings
            selector = selector_for(settings)
            routed = [name for name in self.libraries if name not in self.named]
            self._voting = routed if selector is None else []
            self.router.selectors = dict.fromkeys(self.named, Oracle())
            if selector is not None:
                self.router.selectors |= dict.fromkeys(routed, selector)

    def attach(self) -> None:
        self.backbone.requires_grad_(False)
        self.aligned = {
            name: AlignedLibrary(library, align) for name, library in self.libraries.items()
        }
        members = {
            name: adapters_by_layer(
                aligned, self.backbone, self.base_fingerprint, any_base=self.any_base
            )
            for name, aligned in self.aligned.items()
        }
        selectors = self.router.selectors
        by_row = [n for n in members if n in self._voting or selectors[n].by_row]
        check_head(self.backbone, self.libraries, {name: members[name] for name in by_row})
        self.serving = {n: Serving(lib, self._adapters) for n, lib in self.libraries.items()}
        banks, self.pages = build_banks(
            self.backbone,
            self.aligned,
            members,
            self.budget_bytes,
            trained=self.settings.mixing == "trained",
        )
        for path, by_library in banks.items():
            for name, bank in by_library.items():
                for direction, adapter in self.serving[name].adapter.items():
                    bank.serve(direction, adapter)
            attach_routing(self.backbone.get_submodule(path), self.router, by_library, path)
        self.router.watch(self.backbone.base_model)
        self._center(self.settings.center)

    def _center(self, center: bool) -> None:
        """Gives the banks of routed libraries the means of their inputs, or takes them away."""
        for name in self.libraries.keys() - self.named:
            library = self.libraries[name]
            means = {a: read_inputs(library, a) for a in library.names} if center else None
            put_centers(banks_of(self.backbone, name), means)

    def routing(self, batch: TranslationBatch) -> AbstractContextManager:
        self._check(batch.directions)
        return self._route(batch)

    @contextmanager
    def _route(self, batch: TranslationBatch, observers: Sequence[Observer] = ()) -> Iterator[None]:
        """Open the route of a batch; `observers` are called in addition to the router's own."""
        lengths, observers = prompt_lengths(batch), [*self.router.observers, *observers]
        with self.context.lock():  # between the vote and what follows from it nobody comes in
            selectors = self.router.selectors | self._vote(batch, lengths)
            route = {"selectors": selectors, "observers": observers}
            with self.router.route(batch.directions, lengths, **route):
                yield

    @torch.no_grad()
    def _vote(self, batch: TranslationBatch, lengths: Tensor) -> dict[str, Selector]:
        """Return, at levels "model" and "last", each library's vote on every row's adapter."""
        votes = {name: ModelVote(self.settings) for name in self._voting}
        if votes:
            with self.router.route(batch.directions, lengths, selectors=votes):
                self(batch)
        return {name: Named(vote.winners()) for name, vote in votes.items()}

    def reads_examples(self, direction: str) -> bool:
        """Return whether all adapters were trained with examples, since any may be chosen."""
        return all(
            trained_with_examples(library.about(name))
            for library in self.libraries.values()
            for name in library.names
        )

    def telemetry(self) -> dict[str, float]:
        """Return the shares of the adapters and of the right one: see `RouteCounts.means`.

        `routing/<layer>/<library>/<side>/share/<adapter>` and `…/agreement`.
        """
        means = {} if self.counts is None else self.counts.means()
        return {f"routing/{name}": value for name, value in means.items()}

    def pictures(self, folder: Path) -> dict[str, Any]:
        """Draw which adapters the tokens chose, and how often that was the right one."""
        return plots.of_routing(self.routing_rows())

    def serve(self, adapters: Mapping[str, Mapping[str, str]]) -> None:
        for direction, by_library in adapters.items():
            for library, adapter in by_library.items():
                self._check_library(library, f"direction {direction}")
                self.serving[library].check_known(adapter, direction)
        with self.context.lock():
            for direction, by_library in adapters.items():
                for library in self.libraries:
                    adapter = by_library.get(library)
                    self.serving[library].assign(direction, adapter)
                    for bank in banks_of(self.backbone, library).values():
                        bank.serve(direction, adapter)

    @property
    def is_calibrated(self) -> bool:
        return self.settings.form == "calibrated"

    @torch.no_grad()
    def calibrate(self, batches: Iterable[TranslationBatch]) -> None:
        """Measures each adapter's updates on its own directions, which form=calibrated refers to.

        Without it, that form goes by the adapters' singular values. What was measured stays beside
        the libraries, for the next time with the same base, adapters and text.

        Raises:
            ValueError: an adapter serves none of the directions, or several serve one of them.
        """
        batches = list(batches)
        with self.context.lock():
            key = self._calibration_key(batches)
            banks = {name: banks_of(self.backbone, name) for name in self.libraries}
            statistics = {n: read_calibration(lib.path, key) for n, lib in self.libraries.items()}
            if None not in statistics.values():
                for name in banks:
                    put_statistics(banks[name], statistics[name])
                return
            energies, named = EnergyStatistics(), dict.fromkeys(self.libraries, Oracle())
            for batch in batches:
                check_served(self.serving.values(), batch.directions)
                route = batch.directions, prompt_lengths(batch)
                with self.router.route(*route, selectors=named, observers=[energies]):
                    self(batch)
            energies.apply()
            for name, library in self.libraries.items():
                write_calibration(library.path, key, statistics_of(banks[name]))

    def _calibration_key(self, batches: Sequence[TranslationBatch]) -> str:
        adapters = {n: (self.aligned[n].prepared, self.serving[n].adapter) for n in self.libraries}
        texts = ((b.input_ids, b.attention_mask, b.directions) for b in batches)
        return calibration_key(self.base_fingerprint, self.settings.center, adapters, texts)

    @torch.no_grad()
    def trace(self, batch: TranslationBatch) -> dict[Place, tuple[tuple[str, ...], Tensor]]:
        """Return by library and layer the adapters there, and the strongest of each token.

        (rows, length), positions in the names, -1 on padding.
        """
        trace = Trace()
        self._check(batch.directions)
        with self._route(batch, [trace]):
            self(batch)
        return {place: (trace.names[place], best) for place, best in trace.strongest.items()}

    def _check(self, directions: Sequence[str]) -> None:
        """Raises ValueError where rows would be given the adapter of a direction, and none is."""
        if self.settings.router == "oracle":
            check_served(self.serving.values(), directions)
        for name in self.named:
            self.serving[name].check_uncontested(directions)

    def _check_library(self, name: str, where: str) -> None:
        if name not in self.libraries:
            raise ValueError(
                f"{where} names library {name}, which strategy.library does not have; "
                f"{did_you_mean(name, self.libraries)}"
            )


def _libraries(setting: str | Path | Mapping[str, str | Path]) -> dict[str, AdapterLibrary]:
    folders = dict(setting) if isinstance(setting, Mapping) else {"library": setting}
    if not folders:
        raise ValueError("strategy.library names no library: give a folder of adapters.")
    for name in folders:
        check_adapter_name(name)
    return {name: open_library(folder) for name, folder in folders.items()}
