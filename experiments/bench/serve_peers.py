"""The server with PEFT in the place of our adapters: its HTTP, queue and batches are the same.

    python experiments/bench/serve_peers.py RUN set_adapter|adapter_names

It prints its address when it takes requests.
"""

import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness import keep_freed_memory, quiet  # sets the environment

# ruff: isort: split
import torch
import uvicorn
from omegaconf import OmegaConf
from peft import PeftModel
from transformers import StoppingCriteria, StoppingCriteriaList

from polylect.config.targets import instantiate
from polylect.data.batch import Example, collate, pad_id
from polylect.models.context import context_of
from polylect.programs.serve.app import create_app
from polylect.run.reuse.stored_config import read_config
from polylect.strategies.decoding.translation import UNWATCHED, Translation, Watch
from polylect.strategies.generation import batches, text_of
from polylect.translator import Translator


class PeftTranslator(Translator):
    """Makes prompts as ours does, and decodes them with a `PeftModel`.

    Args:
        way: "set_adapter" before each `generate`, which then holds the texts of one adapter, or
            "adapter_names" for the rows of a mixed one.
    """

    def __init__(self, run: Path, way: str) -> None:
        super().__init__(Translator.from_run(run, device="cpu").module, "cpu")
        self.way = way
        model = OmegaConf.create(read_config(run / "config.yaml")["model"])
        base, _ = instantiate(model, "model")
        first, *others = sorted((run / "adapters").iterdir())
        self.model = PeftModel.from_pretrained(base, first, first.name).eval()
        for folder in others:
            self.model.load_adapter(folder, folder.name)

    @torch.no_grad()
    def decode(
        self, prompts: Sequence[Example | None], watch: Watch = UNWATCHED
    ) -> list[Translation]:
        found: dict[int, Translation] = {}
        for group in self._groups(prompts):
            lengths = [len(prompts[index].prompt) for index in group]
            context = context_of(self.module.backbone.config)
            for cut in batches(lengths, self.module.generation, context):
                part = [group[position] for position in cut]
                rows = [prompts[index] for index in part]
                told = watch.by_place(part)
                for place, translation in enumerate(self._generate(rows, told)):
                    found[part[place]] = translation
                    if told.end is not None:
                        told.end(place, translation)
        return [found[index] for index in range(len(prompts))]

    def _groups(self, prompts: Sequence[Example]) -> list[list[int]]:
        """Those that one `generate` may hold."""
        everything = list(range(len(prompts)))
        if self.way == "adapter_names":
            return [everything]
        names = dict.fromkeys(prompt.direction for prompt in prompts)
        return [[i for i in everything if prompts[i].direction == name] for name in names]

    def _generate(self, rows: Sequence[Example], watch: Watch) -> list[Translation]:
        """What a user of transformers writes, with each row's own cap cut off afterwards."""
        pad, ends = pad_id(self.module.tokenizer), self.module.ends()
        batch = collate(rows, pad, "left")
        caps = [self.module.generation.cap(len(row.prompt)) for row in rows]
        width = batch.input_ids.shape[1]
        given = {}
        if self.way == "set_adapter":
            self.model.set_adapter(rows[0].direction)
        else:
            given["adapter_names"] = list(batch.directions)
        if watch.token is not None:
            given["stopping_criteria"] = StoppingCriteriaList([Reporter(watch.token, ends)])
        output = self.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=max(caps),
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=pad,
            **given,
        )
        return [
            self._translation(ids[width : width + cap].tolist(), ends)
            for ids, cap in zip(output, caps, strict=True)
        ]

    def _translation(self, ids: list[int], ends: Sequence[int]) -> Translation:
        stops = [position for position, token in enumerate(ids) if token in ends]
        kept = ids[: stops[0]] if stops else ids
        return Translation(text_of(self.module.tokenizer, kept), len(kept), not stops)


class Reporter(StoppingCriteria):
    """Tells of each row's newest token until it has ended; stops nothing."""

    def __init__(self, told: Callable[[int, int], bool], ends: Sequence[int]) -> None:
        self._told, self._ends, self._ended = told, frozenset(ends), set()

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if token in self._ends:
                self._ended.add(row)
            elif row not in self._ended:
                self._told(row, token)
        return torch.zeros(len(input_ids), dtype=torch.bool)


def main(run: Path, way: str) -> None:
    quiet()
    keep_freed_memory()
    app = create_app(PeftTranslator(run, way))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", file=sys.stderr, flush=True)
        settings = uvicorn.Config(app, log_level="warning", access_log=False)
        uvicorn.Server(settings).run(sockets=[listening])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
