"""`Translator`: translations from Python, with adapters loaded, switched and unloaded at will."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from polylect.data.batch import Example
from polylect.data.text import clean_texts, one_line
from polylect.library import base_fingerprint
from polylect.models.context import context_of
from polylect.retrieval.memory import Memory
from polylect.retrieval.prompting import show_matches
from polylect.run.build import load
from polylect.run.results.export import new_folder, write_model
from polylect.run.text_settings import (
    Setting,
    adapters_per_text,
    check_direction,
    directions_per_text,
)
from polylect.run.untrained_model import has_adapters, load_adapters
from polylect.strategies.base import TranslationModule
from polylect.strategies.decoding.translation import UNWATCHED, Translation, Watch
from polylect.strategies.generation import Generation, check_room
from polylect.strategies.lora_library import LoRALibrary


def device_of(name: str) -> torch.device:
    """Return the device of a name; "auto" is the GPU where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device={name} does not exist: give auto, cpu, cuda or cuda:1."
        ) from error
    number = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= number:
        devices = f"{number} CUDA devices" if number else "no CUDA device"
        raise ValueError(
            f"device={name}: this machine shows {devices}; device=auto takes what is there."
        )
    return device


def _exclusive(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that has the model to itself: see `Translator`."""

    @functools.wraps(method)
    def wrapper(self: "Translator", *args: Any, **kwargs: Any) -> Any:
        with self.module.context.lock():
            return method(self, *args, **kwargs)

    return wrapper


class Translator:
    """Translates texts, each in its own direction.

        translator = Translator.from_run("runs/tongues/2026-11-21_10-00-00")
        translator.translate(["My good friend sleeps near our house."], "en-de")
        translator.translate(["The boy sleeps.", "The boy sleeps."], ["en-de", "en-hi"])

    Adapters (of runs of LoRA-switch, or any PEFT LoRA folder): `load_adapter`, `set_adapter`,
    `unload_adapter`, `adapters`. Loading and switching never touch the base, and `fingerprint`
    proves it. An adapter whose files are replaced is read again for the next batch that it is in.

    Several threads may use one translator: each call has the model to itself, and others wait for
    it, in no particular order; texts of several callers are faster in one call. What `set_adapter`
    sets is set for all threads, so that a server names the adapter in each call. A call from within
    a translation of the same thread, as from a hook of the model, raises RuntimeError.
    """

    def __init__(self, module: TranslationModule, device: str = "auto") -> None:
        self.module = module.eval().to(device_of(device))
        self._current: str | None = None
        self._own_template = module.template

    @classmethod
    def from_run(
        cls,
        run: str | Path,
        *,
        generation: Any = None,
        device: str = "auto",
        budget_mib: int | float = 1024,
        packages: Sequence[str] = (),
        model: Any = None,
    ) -> "Translator":
        """Make a translator from a run folder or a checkpoint.

        What `generation` and `model` hold changes the run's own settings, as {"path": FOLDER} where
        its base lies elsewhere.

        A run folder with adapters is used through them: only those needed are in memory. Nothing
        in it is executed: what its configuration names must be of polylect, or defined in the
        `packages` of your own.
        Raises FileNotFoundError where there is no run, ConfigError where it names anything else.
        """
        if has_adapters(run):
            return cls(load_adapters(run, generation, packages, budget_mib, model)[0], device)
        return cls(load(run, generation, packages, model)[0], device)

    @classmethod
    def from_base(
        cls,
        model: Any,
        tokenizer: Any,
        *,
        library: str | Path | None = None,
        template: str = "plain",
        generation: Generation | None = None,
        device: str = "auto",
        budget_mib: int | float = 1024,
    ) -> "Translator":
        """Make a translator from a Hugging Face model and tokenizer, with a folder of adapters.

        What the model's own `generation_config` says has no part in its translations.
        """
        module = LoRALibrary(
            directions=[],
            library=library,
            budget_mib=budget_mib,
            template=template,
            generation=generation,
        )
        module.set_backbone(model, tokenizer)
        return cls(module, device)

    # Translation.

    @_exclusive
    def translate(
        self,
        texts: Sequence[str],
        direction: Setting = None,
        adapter: Setting = None,
    ) -> list[str]:
        """Return the translations of the texts, in their order.

        A text is cleaned as training text is, see `polylect.data.text`; one in which nothing is
        left translates to an empty text.

        Args:
            direction: one for all texts, or one per text; None takes the one direction that the
                text's adapter serves.
            adapter: name of one for all texts, or one per text, whatever the direction; "" is the
                base alone. None takes the one of `set_adapter`, or else the one that serves the
                direction.
        """
        return [t.text for t in self.translations(texts, direction, adapter)]

    @_exclusive
    def translations(
        self,
        texts: Sequence[str],
        direction: Setting = None,
        adapter: Setting = None,
    ) -> list[Translation]:
        """Do as `translate`, with the number of tokens and whether the length cap was hit.

        Raises ValueError for a text without room in the model's context, see `too_long`.
        """
        return self.decode(self.prompts(texts, direction, adapter))

    @_exclusive
    def prompts(
        self, texts: Sequence[str], direction: Setting = None, adapter: Setting = None
    ) -> list[Example | None]:
        """Return what `decode` takes for the texts of `translations`; None for an empty one."""
        if isinstance(texts, str):
            raise ValueError("texts must be a list of texts, not one text: write [text].")
        texts = clean_texts(texts)
        named = adapters_per_text(self.module, adapter, self._current, len(texts))
        directions = directions_per_text(self.module, direction, named)
        prompts = [
            replace(self.module.prompt(text, to), adapter=name) if text else None
            for text, to, name in zip(texts, directions, named, strict=True)
        ]
        check_room(self.module, {i: prompt for i, prompt in enumerate(prompts) if prompt})
        return prompts

    @_exclusive
    def decode(
        self, prompts: Sequence[Example | None], watch: Watch = UNWATCHED
    ) -> list[Translation]:
        """Return the translations of prompts, which may be of several calls of `prompts`.

        Args:
            watch: is told of tokens and of translations as they end, by the prompts' positions.
        """
        given = {index: prompt for index, prompt in enumerate(prompts) if prompt}
        indices = list(given)
        translations: dict[int, Translation] = {}
        for part in self.module.cut_to_budget(
            [prompt.adapter for prompt in given.values()],
            [prompt.direction for prompt in given.values()],
        ):
            own = [indices[position] for position in part]
            texts = [given[index] for index in own]
            decoded = self.module.translate_as_decoded(texts, watch.by_place(own))
            translations |= {own[position]: translation for position, translation in decoded}
        return [translations.get(index, Translation("", 0, False)) for index in range(len(prompts))]

    @_exclusive
    def check_direction(self, direction: str) -> None:
        """Raises ValueError, with the nearest, for a direction this translator does not serve."""
        check_direction(self.module, self._current, direction)

    @_exclusive
    def too_long(self, text: str, direction: str) -> bool:
        """Return whether the text with its prompt leaves no room in the model's context."""
        ids = self._own_template.encode(self.module.tokenizer, one_line(text), direction)
        return not context_of(self.module.backbone.config).has_room(len(ids))

    @_exclusive
    def remember(self, memory: Memory | None) -> None:
        """Show the model pairs of the memory before each text; None ends that."""
        self.module.template = self._own_template
        if memory is not None:
            show_matches(self.module, memory)

    # Adapters.

    @property
    def adapters(self) -> list[str]:
        """Names of the adapters that can be used, in memory or not."""
        return self.module.named_adapters().adapter_index.names

    @_exclusive
    def load_adapter(
        self, folder: str | Path, name: str | None = None, directions: Sequence[str] | None = None
    ) -> str:
        """Load a PEFT LoRA folder beside the others; returns its name (the folder's by default).

        A direction that another adapter serves already stays with that one: name this one in
        `translate`, or set it. Raises ValueError with a sentence that names what does not fit; the
        base is not touched.
        """
        library = self.module.named_adapters()
        name = library.add(folder, name, directions)
        try:
            library.load(name)
        except Exception:
            library.drop(name)
            raise
        return name

    @_exclusive
    def set_adapter(self, name: str | None) -> None:
        """Send texts through this adapter where `translate` is given none.

        Whatever their direction; "" is the base alone. None ends that: each direction has its own
        adapter again.
        """
        if name:
            self.module.named_adapters().adapter_index.directions_of(name)
        self._current = name

    @_exclusive
    def unload_adapter(self, name: str) -> None:
        """Take an adapter out of memory and off the list; if it was set, none is."""
        self.module.named_adapters().drop(name)
        if self._current == name:
            self._current = None

    def export_merged(self, name: str, folder: str | Path) -> float:
        """Write a plain Hugging Face model with what was trained written into its weights.

        An export: the model in use is not touched.

        Args:
            name: of an adapter (LoRA), a direction (LANDeRMT), or "model" (one for all).

        Returns the largest difference between the logits of the model written and of the one in
        use, on a short probe. Raises FileExistsError where the folder is there already, ValueError
        where the strategy cannot be written so, or a weight would be NaN or infinite.
        """
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"{folder} exists already and is not overwritten.")
        with new_folder(folder) as partial:
            return write_model(self.module, name, partial)[1]

    @_exclusive
    def fingerprint(self) -> str:
        """Return a SHA-256 over the base's weights as they are now."""
        return base_fingerprint(self.module.backbone)
