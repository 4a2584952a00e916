"""`Translator`: translations from Python, with adapters loaded, switched and unloaded at will."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from polylect.build import adopt, build_strategy, load
from polylect.data.languages import split_direction
from polylect.hints import nearest
from polylect.library import base_fingerprint
from polylect.retrieval.memory import Memory
from polylect.retrieval.prompting import show_matches
from polylect.strategies.base import TranslationModule
from polylect.strategies.generation import Generation, Translation
from polylect.strategies.lora_library import LoRALibrary


def device_of(name: str) -> torch.device:
    """ "auto" is the GPU where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device={name} does not exist: give auto, cpu, cuda or cuda:1."
        ) from error


class Translator:
    """Translates texts, each in its own direction.

        translator = Translator.from_run("runs/tongues/2026-11-21_10-00-00")
        translator.translate(["My good friend sleeps near our house."], "en-de")
        translator.translate(["The boy sleeps.", "The boy sleeps."], ["en-de", "en-hi"])

    Adapters (of runs of LoRA-switch, or any PEFT LoRA folder): `load_adapter`, `set_adapter`,
    `unload_adapter`, `adapters`. Loading and switching never touch the base, and `fingerprint`
    proves it.
    """

    def __init__(self, module: TranslationModule, device: str = "auto") -> None:
        self.module = module.eval().to(device_of(device))
        self._current: str | None = None
        self._bare = module.template

    @classmethod
    def from_run(
        cls,
        run: str | Path,
        *,
        generation: Any = None,
        device: str = "auto",
        budget_mib: int | float = 1024,
    ) -> "Translator":
        """From a run folder or a checkpoint.

        A run folder with adapters is used through them: only those needed are in memory.
        Raises FileNotFoundError where there is no run.
        """
        folder = Path(run)
        if not ((folder / "adapters").is_dir() and (folder / "config.yaml").is_file()):
            return cls(load(run, generation=generation)[0], device)
        cfg = OmegaConf.load(folder / "config.yaml")
        part = _library_config(cfg, str(folder / "adapters"), budget_mib)
        part.generation = OmegaConf.merge(part.generation or {}, generation or {})
        module = build_strategy(part)
        adopt(module, None, part)
        return cls(module, device)

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
        """From a Hugging Face model and tokenizer, with the adapters of a folder, if any."""
        module = LoRALibrary(
            directions=[],
            library=library,
            budget_mib=budget_mib,
            template=template,
            generation=generation,
        )
        module.adopt(model, tokenizer)
        return cls(module, device)

    # Translation.

    def translate(self, texts: Sequence[str], direction: str | Sequence[str] | None = None):
        """Translations of the texts, in their order.

        Args:
            direction: one for all texts, or one per text; None takes the direction of the adapter
                chosen by `set_adapter`.
        """
        if isinstance(texts, str):
            raise ValueError("texts must be a list of texts, not one text: write [text].")
        directions = self._directions(direction, len(texts))
        return [t.text for t in self.translations(texts, directions)]

    def translations(self, texts: Sequence[str], directions: Sequence[str]) -> list[Translation]:
        """As `translate`, with the number of tokens and whether the length cap was hit."""
        for direction in dict.fromkeys(directions):
            self.check_direction(direction)
        found: dict[int, Translation] = {}
        for part in self._parts(directions):
            prompts = [self.module.prompt(texts[i], directions[i]) for i in part]
            found |= {part[i]: t for i, t in self.module.translate_as_decoded(prompts)}
        return [found[i] for i in range(len(texts))]

    def check_direction(self, direction: str) -> None:
        """Raises ValueError, with the nearest, for a direction this translator does not serve."""
        split_direction(direction)
        if isinstance(self.module, LoRALibrary):
            self.module.adapter(direction)
        elif direction not in self.module.directions:
            raise ValueError(
                f"direction {direction} was not trained; "
                f"{nearest(direction, self.module.directions)}"
            )

    def too_long(self, text: str, direction: str) -> bool:
        """Whether the text with its prompt leaves no room in the model's context."""
        context = getattr(self.module.backbone.config, "max_position_embeddings", None)
        ids = self._bare.encode(self.module.tokenizer, text, direction)
        return context is not None and len(ids) >= context

    def remember(self, memory: Memory | None) -> None:
        """From now on show the model pairs of the memory before each text; None ends that."""
        self.module.template = self._bare
        if memory is not None:
            show_matches(self.module, memory)

    def _directions(self, direction: str | Sequence[str] | None, count: int) -> list[str]:
        if direction is None:
            served = self._served(self._current) if self._current else []
            if len(served) != 1:
                raise ValueError(
                    "give a direction: no adapter is set, or the one set serves several."
                )
            direction = served[0]
        if isinstance(direction, str):
            return [direction] * count
        if len(direction) != count:
            raise ValueError(f"{count} texts and {len(direction)} directions do not match.")
        return list(direction)

    def _parts(self, directions: Sequence[str]) -> Iterator[list[int]]:
        """Indices of the texts, cut so that the adapters of each part fit into the budget."""
        module = self.module
        if not isinstance(module, LoRALibrary):
            yield list(range(len(directions)))
            return
        taken: dict[str, int] = {}
        part: list[int] = []
        # Texts of one adapter stay together; most often everything fits into one part.
        order = sorted(range(len(directions)), key=lambda i: module.adapter(directions[i]))
        for index in order:
            name = module.adapter(directions[index])
            size = module.shelf.nbytes(name) if name else 0
            if part and sum((taken | {name: size}).values()) > module.budget_bytes:
                yield part
                taken, part = {}, []
            taken[name] = size
            part.append(index)
        if part:
            yield part

    # Adapters.

    @property
    def adapters(self) -> list[str]:
        """Names of the adapters that can be used, in memory or not."""
        return self._library().shelf.names

    def load_adapter(
        self, folder: str | Path, name: str | None = None, directions: Sequence[str] | None = None
    ) -> str:
        """Load a PEFT LoRA folder beside the others; returns its name (the folder's by default).

        Raises ValueError with a sentence that names what does not fit; the base is not touched.
        """
        library = self._library()
        name = library.add(folder, name, directions)
        try:
            library.load(name)
        except Exception:
            library.drop(name)
            raise
        return name

    def set_adapter(self, name: str) -> None:
        """The adapter whose direction `translate` takes when none is given."""
        if name not in self.adapters:
            raise ValueError(f"no adapter is named {name!r}; {nearest(name, self.adapters)}")
        self._current = name

    def unload_adapter(self, name: str) -> None:
        """Take an adapter out of memory and off the list."""
        self._library().drop(name)
        if self._current == name:
            self._current = None

    def export_merged(self, name: str, folder: str | Path) -> float:
        """Write a plain Hugging Face model with what was trained written into its weights.

        An export: the model in use is not touched.

        Args:
            name: an adapter (LoRA), or a direction (LANDeRMT).

        Returns the largest difference between the logits of the model written and of the one in
        use, on a short probe. Raises FileExistsError where the folder is there already, ValueError
        where the strategy cannot be written so.
        """
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"{folder} exists already and is not overwritten.")
        backbone = self.module.backbone
        probe = torch.arange(256, device=self.module.device).remainder(backbone.config.vocab_size)
        merged, difference = self.module.merged(name, probe.view(4, 64))
        partial = folder.with_name(f".{folder.name}.partial")
        merged.save_pretrained(partial)
        self.module.tokenizer.save_pretrained(partial)
        partial.rename(folder)
        return difference

    def fingerprint(self) -> str:
        """SHA-256 over the base's weights as they are now."""
        return base_fingerprint(self.module.backbone)

    def _served(self, name: str) -> list[str]:
        return [d for d, a in self._library()._directions.items() if a == name]

    def _library(self) -> LoRALibrary:
        if not isinstance(self.module, LoRALibrary):
            raise ValueError(
                f"strategy {type(self.module).__name__} has no adapters to load or switch."
            )
        return self.module


def _library_config(cfg: DictConfig, library: str, budget_mib: int | float) -> DictConfig:
    """The configuration of a LoRA run, with its strategy put to use instead of trained."""
    strategy = {
        "_target_": "polylect.strategies.lora_library.LoRALibrary",
        "library": library,
        "budget_mib": budget_mib,
    }
    keep = {key: cfg[key] for key in ("model", "data", "generation")}
    return OmegaConf.create({**keep, "strategy": strategy})
