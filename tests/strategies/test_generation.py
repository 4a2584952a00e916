"""From prompts to translations: batches, order, caps and ends."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import pytest
import torch
from helpers.small import DIRECTIONS, build, train_a_little
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE
from transformers import GenerationConfig, PreTrainedTokenizerFast

from polylect.data.batch import Example, TranslationBatch, pad_id
from polylect.data.prompt import template
from polylect.data.text import one_line
from polylect.layers.context import RoutingContext
from polylect.models.backbone import random_model, tiny_backbone
from polylect.models.context import Context
from polylect.strategies.base import TranslationModule
from polylect.strategies.decoding import open_rows
from polylect.strategies.decoding.together import finish
from polylect.strategies.decoding.translation import Translation, Watch
from polylect.strategies.generation import (
    Generation,
    batches,
    check_room,
    translate,
)

SOURCES = (
    "We read.",
    "The small cat sees the old house in the garden today.",
    "It.",
    "The cat sees the house.",
    "We read the new book in the garden.",
    "The old book.",
    "Today we read.",
)


@pytest.fixture(scope="module")
def module() -> TranslationModule:
    return train_a_little(build("lora_switch", "generation.ratio=0", "generation.extra=6"))


def prompts(module: TranslationModule) -> list[Example]:
    return [module.prompt(s, DIRECTIONS[i % 3]) for i, s in enumerate(SOURCES)]


# Batches of prompts


@given(
    st.lists(st.integers(1, 60), max_size=40),
    st.integers(1, 9),
    st.integers(1, 400),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_prompt_is_in_one_batch_within_the_bounds(
    lengths: list[int], rows: int, tokens: int, beams: int, sort: bool
) -> None:
    generation = Generation(rows=rows, tokens=tokens, beams=beams, sort=sort, limit=30)
    made = list(batches(lengths, generation))
    order = [index for batch in made for index in batch]
    assert sorted(order) == list(range(len(lengths)))
    if not sort:
        assert order == sorted(order)
    for batch in made:
        longest = max(lengths[index] for index in batch)
        cost = len(batch) * beams * (longest + generation.cap(longest))
        assert len(batch) <= rows
        assert cost <= tokens or len(batch) == 1
    if sort:
        assert [lengths[i] for i in order] == sorted(lengths, reverse=True)


@given(
    st.lists(st.integers(1, 29), max_size=40),
    st.floats(0, 3),
    st.integers(1, 20),
    st.integers(10, 30),
    st.booleans(),
)
def test_a_batch_with_its_longest_translation_fits_into_the_context(
    lengths: list[int], ratio: float, extra: int, shared: int, sort: bool
) -> None:
    generation, context = Generation(ratio=ratio, extra=extra, sort=sort), Context(30, shared)
    made = list(batches(lengths, generation, context))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        longest = max(lengths[index] for index in batch)
        cap = max(generation.cap(lengths[index], 30) for index in batch)
        assert longest + cap <= (shared if len(batch) > 1 else 30)


def test_the_cap_grows_with_the_prompt_up_to_a_limit_and_the_context() -> None:
    generation = Generation(ratio=1.5, extra=4, limit=20)
    assert [generation.cap(n) for n in (1, 10, 100)] == [5, 19, 20]
    assert [generation.cap(n, 105) for n in (1, 10, 100)] == [5, 19, 5]
    assert Generation(ratio=0.1, extra=0).cap(1) == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"beams": 0}, "generation.beams must be at least 1, got 0"),
        ({"rows": -1}, "generation.rows must be at least 1"),
        ({"ratio": 0, "extra": 0}, "leave no token to generate"),
        ({"ratio": -1}, "leave no token to generate"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Generation(**settings)


# Order


@pytest.mark.parametrize(
    "settings", [{"rows": 2}, {"rows": 3, "sort": False}, {"rows": 1}, {"tokens": 40}]
)
def test_translations_come_in_the_order_of_the_prompts(
    module: TranslationModule, settings: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = module.translate(prompts(module))
    assert len({translation.text for translation in expected}) > 3
    same_length = {"ratio": 0, "extra": 6}
    monkeypatch.setattr(module, "generation", Generation(**same_length, **settings))
    assert module.translate(prompts(module)) == expected
    assert module.translate(prompts(module)[::-1]) == expected[::-1]


def test_nothing_to_translate_is_no_error(module: TranslationModule) -> None:
    assert module.translate([]) == []


def test_a_text_longer_than_the_model_takes_is_empty_and_marked(
    module: TranslationModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = module.translate([module.prompt("It.", "en-de")])
    monkeypatch.setattr(module.backbone.config, "max_position_embeddings", 12)
    short, long = module.prompt("It.", "en-de"), module.prompt(SOURCES[1], "en-de")
    translations = module.translate([long, short, long])
    assert translations == [Translation("", 0, False, too_long=True), *alone, translations[0]]
    assert len(short.prompt) + translations[1].tokens <= 12
    with pytest.raises(ValueError, match=r"text 2 has \d+ tokens with its prompt, and the model"):
        check_room(module, {0: short, 1: long})


def test_the_mode_is_the_same_afterwards(module: TranslationModule) -> None:
    module.train()
    seen = []
    for _ in module.translate_as_decoded(prompts(module)):
        seen.append(module.training)
        break
    assert seen == [False]
    module.translate(prompts(module))
    assert module.training
    module.eval()


# Ends


def scripted(
    module: TranslationModule, monkeypatch: pytest.MonkeyPatch, rows: list[list[int]]
) -> dict[str, Any]:
    """Lets the model write these tokens, by row; holds what it was asked for afterwards."""
    asked: dict[str, Any] = {}

    def generate(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        asked.update(options)
        return torch.cat([input_ids, torch.tensor(rows)], dim=1)

    monkeypatch.setattr(module.backbone, "generate", generate)
    return asked


def ids(module: TranslationModule, text: str) -> list[int]:
    return module.template.encode_target(module.tokenizer, text, "en-de")[:-1]


def test_a_translation_ends_where_the_end_token_is(
    module: TranslationModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    (end,) = module.ends()
    words, more = ids(module, "Die Katze"), ids(module, " das Haus")
    row = [*words, end, *more]
    scripted(module, monkeypatch, [row, [end] * len(row), [*words, *more, words[0]]])
    translations = module.translate([module.prompt("It.", "en-de")] * 3)
    assert [f.text for f in translations[:2]] == ["Die Katze", ""]
    assert [f.tokens for f in translations[:2]] == [len(words), 0]
    assert [f.capped for f in translations] == [False, False, True]


def test_a_line_end_ends_what_a_template_asks_for_in_a_line(
    module: TranslationModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, next_example = ids(module, "Die Katze"), ids(module, "\n\nEnglish: It.")
    row = [*words, *next_example]
    monkeypatch.setattr(module, "generation", Generation())
    scripted(module, monkeypatch, [row])
    (capped,) = module.translate([module.prompt("It.", "en-de")])
    assert (capped.text, capped.capped) == ("Die Katze English: It.", True)
    monkeypatch.setattr(module, "template", template("plain"))
    (translation,) = module.translate([module.prompt("It.", "en-de")])
    assert (translation.text, translation.capped) == ("Die Katze", False)
    assert translation.tokens < len(words) + len(next_example) - 1


def test_a_token_that_ends_text_and_line_leaves_the_text(
    module: TranslationModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = {c: i for i, c in enumerate(["H", "aus", ".", "\u010a", ".\u010a", "</s>"])}
    backend = Tokenizer(BPE(vocabulary, merges=[(".", "\u010a")]))
    backend.decoder = ByteLevel()
    monkeypatch.setattr(
        module, "tokenizer", PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    )
    ends = template("plain").stop_ids(module.tokenizer)
    assert ends == [5, 3, 4]
    for written, text in (([0, 1, 4, 0], "Haus."), ([0, 1, 5, 4], "Haus"), ([4, 0], ".")):
        translation = finish(module.tokenizer, torch.tensor(written), ends)
        assert (translation.text, translation.capped) == (text, False)


def test_a_translation_is_one_line_without_special_tokens(
    module: TranslationModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = module.tokenizer.convert_tokens_to_ids("<2de>")
    monkeypatch.setattr(module, "generation", Generation())
    row = [tag, *ids(module, "one\n two  three\r\nfour\u2028fi\x00ve\t6"), *module.ends()]
    scripted(module, monkeypatch, [row])
    assert module.translate([module.prompt("It.", "en-de")])[0].text == "one two  three four five 6"


@pytest.mark.parametrize("text", ["« Ça va ? »", "12 000 €", "東京　都", "क्‍ष  त्र"])
def test_spaces_within_a_translation_are_what_the_model_wrote(
    text: str, module: TranslationModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.tokenizer, "clean_up_tokenization_spaces", True)
    flag = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    monkeypatch.setattr(module.tokenizer, flag, True)
    monkeypatch.setattr(module, "generation", Generation())
    scripted(module, monkeypatch, [[*ids(module, text), *module.ends()]])
    assert module.translate([module.prompt("It.", "en-de")])[0].text == text


def test_the_end_is_looked_for_within_a_rows_own_cap(
    module: TranslationModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = module.prompt("It.", "en-de"), module.prompt(SOURCES[1], "en-de")
    monkeypatch.setattr(module, "generation", Generation(ratio=1, extra=0))
    row = (ids(module, SOURCES[1]) * 3)[: len(long.prompt) - 1] + module.ends()
    asked = scripted(module, monkeypatch, [row, row])
    translations = module.translate([short, long])
    assert [f.tokens for f in translations] == [len(short.prompt), len(long.prompt) - 1]
    assert [f.capped for f in translations] == [True, False]
    settings = asked["generation_config"]
    assert settings.max_new_tokens == len(long.prompt)
    assert settings.do_sample is False
    assert settings.eos_token_id == module.ends()


# Who is told


@pytest.mark.parametrize("beams", [1, 2])
def test_a_watch_is_told_of_tokens_and_of_translations_as_they_leave(
    module: TranslationModule, monkeypatch: pytest.MonkeyPatch, beams: int
) -> None:
    monkeypatch.setattr(module, "generation", Generation(ratio=0, extra=8, beams=beams))
    asked = [replace(p, limit=1 + 3 * (i % 3)) for i, p in enumerate(prompts(module))]
    tokens: dict[int, list[int]] = {index: [] for index in range(len(asked))}
    left: dict[int, tuple[Translation, int]] = {}

    def token(index: int, newest: int) -> bool:
        assert index not in left
        tokens[index].append(newest)
        return index == 2 and len(tokens[2]) == 2

    def end(index: int, translation: Translation) -> None:
        left[index] = translation, sum(map(len, tokens.values()))

    translations = dict(module.translate_as_decoded(asked, Watch(token, end)))
    assert {index: translation for index, (translation, _) in left.items()} == translations
    if beams > 1:
        assert not any(tokens.values())
        return
    lengths = {index: len(told) for index, told in tokens.items()}
    assert lengths == {i: t.tokens for i, t in translations.items()}
    assert translations[2].tokens == 2 and translations[5].tokens > 2
    told = [count for _, count in left.values()]
    assert told == sorted(told) and told[0] < told[-1] == sum(lengths.values())


# Neighbours and the model's own settings


class Bare:
    """A base model as it is, as `translate` needs it."""

    def __init__(self, backbone: Any, generation: Generation) -> None:
        self.backbone, self.tokenizer, self.generation = backbone, _tokenizer(), generation
        self.context = RoutingContext()

    def routing(self, batch: TranslationBatch) -> AbstractContextManager:
        return self.context.route(batch.directions)

    def hold(self, named: Sequence[Any], directions: Sequence[str]) -> AbstractContextManager:
        return nullcontext()

    def can_join(self, named: Sequence[Any], directions: Sequence[str]) -> bool:
        return True


@cache
def _tokenizer() -> Any:
    return tiny_backbone()[1]


def random_base(seed: int, family: str, context: int = 40, window: int | None = None) -> Any:
    """A model in double precision whose choices are far apart, so that rounding decides nothing."""
    sizes = {"layers": 1, "hidden": 16, "ffn": 32, "heads": 2, "context": context}
    model = random_model(family, _tokenizer(), **sizes, seed=seed)
    if window is not None and hasattr(model.config, "sliding_window"):
        model.config.sliding_window = window
        model = type(model)(model.config)
    model = model.double().eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.8, generator=generator)
    return model


@torch.no_grad()
def alone(made: Bare, prompt: list[int], ends: list[int]) -> tuple[str, int, bool]:
    """What transformers makes of one prompt with nothing of ours."""
    generation = made.generation
    room = getattr(made.backbone.config, "max_position_embeddings", 10**9) - len(prompt)
    most = min(generation.limit, int(generation.ratio * len(prompt)) + generation.extra, room)
    row = made.backbone.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=max(1, most),
        num_beams=generation.beams,
        length_penalty=generation.length_penalty if generation.beams > 1 else 1.0,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=pad_id(made.tokenizer),
    )[0, len(prompt) :].tolist()
    length = next((i for i, token in enumerate(row) if token in ends), len(row))
    text = made.tokenizer.decode(row[:length], skip_special_tokens=True)
    return one_line(text), length, length == len(row)


@pytest.mark.parametrize("beams", [1, 2, 4])
def test_every_row_of_a_mixed_batch_is_as_alone(beams: int) -> None:
    draw, seen = Random(beams), set()
    for seed in range(12):
        model = random_base(seed, ("llama", "bloom", "gpt_neox", "gemma3")[seed % 4])
        ends = draw.sample(range(len(_tokenizer())), draw.choice([1, 3, 25, 100]))
        asked = [
            [draw.randrange(5, len(_tokenizer())) for _ in range(length)]
            for length in draw.sample(range(1, 30), 6)
        ]
        generation = Generation(
            beams=beams,
            length_penalty=draw.choice([1.0, 0.0, -1.0, 2.0, 6.0]),
            ratio=draw.choice([0.5, 1.0, 0]),
            extra=draw.choice([1, 4]),
            sort=draw.choice([True, False]),
        )
        made = Bare(model, generation)
        translations = dict(translate(made, [Example(p, [], "en-de") for p in asked], ends))
        for index, prompt in enumerate(asked):
            text, tokens, capped = alone(made, prompt, ends)
            assert translations[index] == Translation(text, tokens, capped), (seed, index)
            seen.add((tokens, capped))
    assert len({tokens for tokens, capped in seen if capped}) > 6
    assert len({tokens for tokens, capped in seen if not capped}) > 3


@pytest.mark.parametrize("family", ["llama", "bloom", "gpt_neox", "gemma3", "mistral"])
def test_every_row_that_joins_a_batch_is_as_alone(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a window of attention that is shorter than the texts."""
    monkeypatch.setattr(open_rows, "STEPS", 2)
    sizes = []
    for seed in range(3):
        draw, model = Random(seed), random_base(seed, family, context=200, window=7)
        ends = draw.sample(range(len(_tokenizer())), draw.choice([1, 3, 25]))
        asked = [
            [draw.randrange(5, len(_tokenizer())) for _ in range(draw.randrange(1, 30))]
            for _ in range(12)
        ]
        made = Bare(model, Generation(ratio=draw.choice([0.5, 1.0]), extra=9, rows=4))
        waiting = [(index, Example(p, [], "en-de")) for index, p in enumerate(asked)][3:]

        def join(accept: Any, waiting: list = waiting) -> list[tuple[int, Example]]:
            taken = []
            while waiting and accept(waiting[0][1]):
                taken.append(waiting.pop(0))
            sizes.append(len(taken))
            return taken

        told: dict[int, Translation] = {}
        watch = Watch(end=told.__setitem__, waits=lambda w=waiting: bool(w), join=join)
        first = [Example(prompt, [], "en-de") for prompt in asked[:3]]
        translations = dict(translate(made, first, ends, watch))
        assert told == translations
        assert len(translations) == 12 - len(waiting)
        for index, translation in translations.items():
            assert translation == Translation(*alone(made, asked[index], ends)), (seed, index)
    assert sum(sizes) > 12 and {1, 2} <= set(sizes)


@pytest.mark.parametrize("beams", [1, 3])
def test_nothing_that_a_model_was_shipped_with_takes_part(beams: int) -> None:
    model = random_base(0, "llama")
    prompts = [Example([5, 6, 7], [], "en-de"), Example(list(range(10, 20)), [], "en-de")]
    made = Bare(model, Generation(beams=beams, ratio=0, extra=8))
    expected = dict(translate(made, prompts, [3]))
    shipped = {
        "do_sample": True,
        "temperature": 5.0,
        "repetition_penalty": 3.0,
        "no_repeat_ngram_size": 1,
        "suppress_tokens": list(range(10, 200)),
        "forced_eos_token_id": 9,
        "min_new_tokens": 4,
        "num_return_sequences": beams,
        "early_stopping": True,
        "length_penalty": -9.0,
        "max_length": 11,
        "stop_strings": ["a"],
    }
    model.generation_config = own = GenerationConfig(**shipped)
    before = own.to_dict()
    assert dict(translate(made, prompts, [3])) == expected
    assert model.generation_config is own and own.to_dict() == before


@pytest.mark.parametrize("beams", [1, 3])
def test_scores_that_are_not_finite_are_no_translation(beams: int) -> None:
    module = build("lora_switch", "generation.extra=6", f"generation.beams={beams}")
    layer = next(m for m in module.backbone.modules() if hasattr(m, "lora_b"))
    with torch.no_grad():
        for name, tensor in layer.lora_b.items():
            if name == DIRECTIONS[1]:
                tensor.fill_(float("nan"))
    with pytest.raises(ValueError, match=f"text 2 \\({DIRECTIONS[1]}\\), 5 .*model.dtype=float32"):
        module.translate(prompts(module)[:6])


def test_half_precision_that_overflows_is_no_translation() -> None:
    model, tokenizer = tiny_backbone(hidden=16)
    module = build("frozen", "generation.extra=6")
    with torch.no_grad():
        model.lm_head.weight.fill_(6e4)  # below 65504, what half precision holds
        model.model.norm.weight.fill_(100)
    module.set_backbone(model.half(), tokenizer)
    with pytest.raises(ValueError, match="too large for float16"):
        module.translate(prompts(module)[:1])


def test_what_is_not_finite_after_the_end_of_a_row_does_not_count() -> None:
    """A row that has ended is given padding as long as its neighbours go on."""
    model, pad = random_base(0, "llama"), pad_id(_tokenizer())
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())  # its own
    model.get_input_embeddings().weight.data[pad] = float("nan")
    made = Bare(model, Generation(ratio=0, extra=8))
    prompts = [Example([5, 6, 7], [], "en-de"), Example([15, 16, 17], [], "en-de")]
    output = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2, do_sample=False)
    ends = [int(output[0, -1]), pad]
    expected = {i: dict(translate(made, [prompt], ends))[0] for i, prompt in enumerate(prompts)}
    assert expected[0].tokens < expected[1].tokens - 1
    assert dict(translate(made, prompts, ends)) == expected
