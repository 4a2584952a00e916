"""Routing among libraries of adapters, without training and without naming the direction.

LAG (Fleshman and Van Durme, arXiv 2507.05346): Arrow filters, SpectR selects. Arrow and SpectR
alone, a uniform merge and the oracle are settings of the same strategy.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from polylect import plots
from polylect.data.batch import IGNORED, TranslationBatch
from polylect.hints import nearest
from polylect.layers.adapter_bank import AdapterBank, Pages
from polylect.layers.adapter_choice import RouterSettings
from polylect.layers.adapter_routing import AdapterRouter, attach_routing, routed_layers
from polylect.layers.alignment import align
from polylect.layers.lora import check_adapter_name
from polylect.layers.route_counts import RouteCounts
from polylect.library import AdapterLibrary, misfit
from polylect.library.aligned import AlignedLibrary
from polylect.library.folder import CONFIG
from polylect.strategies.base import TranslationModule
from polylect.strategies.calibration import calibrate

_BYTES = 4
"""Of a number of the factors: they are held in float32, as the scores need them."""


class LAG(TranslationModule):
    """Translates with whichever adapters each layer finds fitting for each token; trains nothing.

    A layer chooses among the adapters that change it; those of different ranks and targets may be
    in one library. Several libraries are routed separately, and the choices of all are applied.

    Args:
        library: folder of PEFT folders, or a mapping from names of libraries to such folders.
        router, k, form, weights, temperature, mixing, level: see `RouterSettings`.
        budget_mib: memory for the adapters' factors, in MiB. If all fit, they are read at once;
            else those are held that were used last. The arrows are always in memory.
        count: sums up who was chosen, for `telemetry` and `routed`.
        named: libraries that are not routed: a row gets the adapter that serves its direction.
        any_base: takes adapters of another base of the same shape, as of the pretrained model on
            its instruct model.
    """

    trains: ClassVar[bool] = False
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
        budget_mib: int | float = 1024,
        count: bool = True,
        named: Sequence[str] = (),
        any_base: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        settings = RouterSettings(router, k, form, weights, temperature, mixing, level)
        if budget_mib <= 0:
            raise ValueError(f"strategy.budget_mib must be positive, got {budget_mib}.")
        self.budget_bytes = int(budget_mib * 2**20)
        self.libraries = _libraries(library)
        self.router = AdapterRouter(settings, RouteCounts() if count else None)
        for name in named:
            self._check_library(name, "strategy.named")
        self.router.named = frozenset(named)
        self.any_base = any_base

    @property
    def counts(self) -> RouteCounts | None:
        """Who was chosen since the last `counts.clear()`; a beam counts as a row."""
        return self.router.counts

    def attach(self) -> None:
        self.backbone.requires_grad_(False)
        aligned = {name: AlignedLibrary(of, align) for name, of in self.libraries.items()}
        members = {name: self._members(of) for name, of in aligned.items()}
        self.serving = {name: _serving(of) for name, of in self.libraries.items()}
        nbytes = sum(
            self._nbytes(path, of) for each in members.values() for path, of in each.items()
        )
        self.pages = Pages(self.budget_bytes) if nbytes > self.budget_bytes else None
        for path in dict.fromkeys(path for layers in members.values() for path in layers):
            banks = {
                name: self._bank(aligned[name], path, layers[path], self.serving[name])
                for name, layers in members.items()
                if path in layers
            }
            attach_routing(self.backbone.get_submodule(path), self.router, banks, path)
        self.router.watch(self.backbone.base_model)

    def routing(self, batch: TranslationBatch) -> AbstractContextManager:
        if self.router.settings.router == "oracle":
            self._check_served(batch.directions)
        learned = (batch.labels != IGNORED).sum(1)
        lengths = batch.attention_mask.sum(1) - learned
        settings, routed = self.router.settings, self.libraries.keys() - self.router.named
        if settings.level != "model" or settings.router == "oracle" or not routed:
            return self.router.route(batch.directions, lengths)
        with (
            torch.no_grad(),
            self.router.electing() as election,
            self.router.route(batch.directions, lengths),
        ):
            self(batch)
        return self.router.route(batch.directions, lengths, election.winners())

    def telemetry(self) -> dict[str, float]:
        """Each adapter's share of the tokens, and that of the right one: see `RouteCounts.means`.

        `routing/<layer>/<library>/<side>/share/<adapter>` and `…/agreement`.
        """
        means = {} if self.counts is None else self.counts.means()
        return {f"routing/{name}": value for name, value in means.items()}

    def routed(self) -> list[dict[str, Any]]:
        """Who was chosen, by library, layer, direction and side: see `RouteCounts.rows`."""
        return [] if self.counts is None else self.counts.rows()

    def pictures(self, folder: Path) -> dict[str, Any]:
        """Whom the tokens chose, and how often that was the right one."""
        return plots.of_routing(self.routed())

    def serve(self, adapters: Mapping[str, Mapping[str, str]]) -> None:
        """Says which adapter of each library serves a direction: the Oracle's, and the right one.

        Args:
            adapters: by direction, then by library, the adapter's name.

        Raises:
            ValueError: no such library or adapter.
        """
        known = {name: frozenset(library.names) for name, library in self.libraries.items()}
        for direction, of in adapters.items():
            for library, adapter in of.items():
                self._check_library(library, f"direction {direction}")
                if adapter not in known[library]:
                    raise ValueError(
                        f"{self.libraries[library].path} has no adapter {adapter}, which "
                        f"{direction} asks for; {nearest(adapter, known[library])}"
                    )
                self.serving[library][direction] = adapter
        for layer in routed_layers(self.backbone).values():
            for library, bank in layer.lora_banks.items():
                position = {name: i for i, name in enumerate(bank.names)}
                for direction, of in adapters.items():
                    bank.serving.pop(direction, None)
                    if of.get(library) in position:
                        bank.serving[direction] = position[of[library]]

    def calibrate(self, batches: Iterable[TranslationBatch]) -> None:
        """Measures each adapter's updates on its own directions, which form=calibrated refers to.

        Without it, that form goes by the adapters' singular values. What was measured stays beside
        the libraries, for the next time with the same base, adapters and text.

        Raises:
            ValueError: an adapter serves none of the directions.
        """
        calibrate(self, list(batches))

    @torch.no_grad()
    def trace(
        self, batch: TranslationBatch
    ) -> dict[tuple[str, str], tuple[tuple[str, ...], Tensor]]:
        """By library and layer the names of its adapters there, and the strongest of each token.

        (rows, length), positions in the names, -1 on padding.
        """
        with self.routing(batch), self.router.traced() as found:
            self(batch)
        banks = {
            (name, path): layer.lora_banks[name].names
            for path, layer in routed_layers(self.backbone).items()
            for name in layer.lora_banks
        }
        return {key: (banks[key], chosen) for key, chosen in found.items()}

    def forward(self, batch: TranslationBatch) -> None:
        """The batch through the layers, for what they note on the way."""
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        self.backbone.base_model(**inputs, use_cache=False)

    def _members(self, aligned: AlignedLibrary) -> dict[str, dict[str, int]]:
        """For each layer the adapters that change it, and their ranks."""
        made, weak = 0, []
        members: dict[str, dict[str, int]] = {}
        for name in aligned.library.names:
            made += aligned.prepare(name)
            outline = aligned.outline(name)
            if self.any_base:
                bare = {**outline.config, "base_model_name_or_path": ""}
                outline = replace(outline, about={}, config=bare)
            if reason := misfit(outline, self.backbone, self.base_fingerprint):
                raise ValueError(
                    f"adapter {name!r} of {aligned.library.path} does not fit: {reason}; "
                    "see `polylect library action=check`."
                )
            if weakness := aligned.weakness(name):
                weak.append(f"{name} {weakness}")
            for path, strengths in aligned.strengths(name).items():
                if strengths[0] > 0:
                    members.setdefault(path, {})[name] = len(strengths)
        if made:
            print(f"{aligned.library.path}: {made} adapters aligned.")
        if weak:
            print(f"{aligned.library.path}: of {len(weak)} adapters arrows say little: {weak[0]}.")
        if not members:
            raise ValueError(f"no adapter of {aligned.library.path} changes anything: train them.")
        return members

    def _nbytes(self, path: str, names: Mapping[str, int]) -> int:
        """Of the factors of these adapters of one layer."""
        module = self.backbone.get_submodule(path)
        widths = module.in_features + module.out_features
        return len(names) * max(names.values()) * widths * _BYTES

    def _bank(
        self, aligned: AlignedLibrary, path: str, names: Mapping[str, int], serving: dict[str, str]
    ) -> AdapterBank:
        rank, width = max(names.values()), self.backbone.get_submodule(path).out_features
        strengths = torch.zeros(len(names), rank)
        for row, (name, own) in zip(strengths, names.items(), strict=True):
            row[:own] = aligned.strengths(name)[path]
        position = {name: i for i, name in enumerate(names)}
        return AdapterBank(
            list(names),
            torch.stack([aligned.arrow(name, path).float() for name in names]),
            strengths,
            partial(_factor, aligned, path, self.router.settings.mixing == "trained"),
            width,
            self.pages,
            {d: position[name] for d, name in serving.items() if name in position},
        )

    def _check_library(self, name: str, where: str) -> None:
        if name not in self.libraries:
            raise ValueError(
                f"{where} names library {name}, which strategy.library does not have; "
                f"{nearest(name, self.libraries)}"
            )

    def _check_served(self, directions: Sequence[str]) -> None:
        served = {direction for of in self.serving.values() for direction in of}
        for direction in directions:
            if "-" in direction and direction not in served:
                raise ValueError(
                    f"no adapter serves direction {direction}; {nearest(direction, served)}"
                )


def _libraries(setting: str | Path | Mapping[str, str | Path]) -> dict[str, AdapterLibrary]:
    named = dict(setting) if isinstance(setting, Mapping) else {"library": setting}
    for name, folder in named.items():
        check_adapter_name(name)
        if not AdapterLibrary(folder).names:
            raise FileNotFoundError(
                f"strategy.library={folder} holds no adapter: it must be a folder of folders with "
                f"{CONFIG}."
            )
    if not named:
        raise ValueError("strategy.library names no library: give a folder of adapters.")
    return {name: AdapterLibrary(folder) for name, folder in named.items()}


def _serving(library: AdapterLibrary) -> dict[str, str]:
    """The adapter that each direction asks for, the first of several; so does its own name."""
    serving: dict[str, str] = {}
    for name in library.names:
        for direction in library.about(name).get("directions", [name]):
            serving.setdefault(direction, name)
    return {name: name for name in library.names} | serving


def _factor(aligned: AlignedLibrary, path: str, trained: bool, name: str, which: str) -> Tensor:
    if trained:
        return aligned.trained(name, path, which)
    return aligned.factor(name, path, f"{which}_star")
