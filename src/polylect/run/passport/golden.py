"""Golden outputs: what a model made of a few sentences when its passport was written.

The sentences are polylect's own, of the embedded tongues: they may be given away with any adapter,
whatever the licence of its training text, and whoever verifies it needs none of that text. How well
they are translated does not matter, as long as the same comes out.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from polylect.data.batch import Example
from polylect.data.languages import split_direction
from polylect.data.prompt import QuestionTemplate
from polylect.data.prompt import template as find_template
from polylect.run.passport.file import GoldenOutput
from polylect.strategies.decoding.translation import Translation
from polylect.strategies.generation import Generation
from polylect.tongues import TONGUES, meanings, render

SENTENCES = 3
"""For each direction."""

_LIMIT = 32
"""Most tokens of a golden output, where the model's own settings do not say less."""


def own_sentences(direction: str) -> list[str]:
    """Return the sentences that are translated: in the source language if polylect speaks it.

    In English where it does not.
    """
    source, _ = split_direction(direction)
    code = source if source in TONGUES else "en"
    return [render(meaning, code) for meaning in meanings("test", SENTENCES, seed=16)]


def decoding_of(generation: Generation) -> dict[str, Any]:
    """Return the settings with which golden outputs are decoded, of a model that has these."""
    settings = asdict(replace(generation, limit=min(generation.limit, _LIMIT)))
    return {key: settings[key] for key in ("beams", "length_penalty", "ratio", "extra", "limit")}


def record_outputs(module: Any, directions: Sequence[str]) -> list[GoldenOutput]:
    """Translate the sentences in each direction that is one of translation."""
    template, golden = find_template(module.template_name), []
    if isinstance(template, QuestionTemplate):  # whose directions are names of any kind
        return []
    rows = [(d, source) for d in directions if "-" in d for source in own_sentences(d)]
    prompts = [template.encode(module.tokenizer, source, d) for d, source in rows]
    with decoding(module, Generation(**decoding_of(module.generation))):
        for (direction, source), prompt in zip(rows, prompts, strict=True):
            output = translate_alone(module, prompt, direction)
            text = module.tokenizer.decode(prompt, skip_special_tokens=True)
            made = output.text, output.tokens, output.capped
            golden.append(GoldenOutput(direction, source, prompt, text, *made))
    return golden


def translate_alone(
    module: Any, prompt: Sequence[int], direction: str, adapter: str | None = None
) -> Translation:
    """Return what the module makes of a prompt, alone, so that no neighbour decides a near tie."""
    example = Example(list(prompt), [], direction, "", ())
    return module.translate([replace(example, adapter=adapter)])[0]


@contextmanager
def decoding(module: Any, generation: Generation) -> Iterator[None]:
    """Within it the module decodes with these settings."""
    own, module.generation = module.generation, generation
    try:
        yield
    finally:
        module.generation = own
