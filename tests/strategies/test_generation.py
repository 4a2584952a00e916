"""From prompts to translations: batches, order, caps and ends."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import DIRECTIONS, build, train_a_little

from polylect.data.batch import Example
from polylect.strategies.base import TranslationModule
from polylect.strategies.generation import Generation, batches

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


def test_the_cap_grows_with_the_prompt_up_to_a_limit() -> None:
    generation = Generation(ratio=1.5, extra=4, limit=20)
    assert [generation.cap(n) for n in (1, 10, 100)] == [5, 19, 20]
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


def test_a_text_longer_than_the_model_takes_is_named(
    module: TranslationModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.backbone.config, "max_position_embeddings", 12)
    with pytest.raises(ValueError, match=r"text 2 has \d+ tokens with its prompt, and the model"):
        module.translate(prompts(module))
    short = [module.prompt("It.", "en-de")]
    assert len(short[0].prompt) + module.translate(short)[0].tokens <= 12


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
    found = module.translate([module.prompt("It.", "en-de")] * 3)
    assert [f.text for f in found[:2]] == ["Die Katze", ""]
    assert [f.tokens for f in found[:2]] == [len(words), 0]
    assert [f.capped for f in found] == [False, False, True]


def test_a_translation_is_one_line_without_special_tokens(
    module: TranslationModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = module.tokenizer.convert_tokens_to_ids("<2de>")
    monkeypatch.setattr(module, "generation", Generation())
    row = [tag, *ids(module, "one\n two\tthree\r\nfour"), *module.ends()]
    scripted(module, monkeypatch, [row])
    assert module.translate([module.prompt("It.", "en-de")])[0].text == "one two three four"


def test_each_row_has_its_own_cap(
    module: TranslationModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = module.prompt("It.", "en-de"), module.prompt(SOURCES[1], "en-de")
    monkeypatch.setattr(module, "generation", Generation(ratio=1, extra=0))
    row = (ids(module, SOURCES[1]) * 3)[: len(long.prompt)]
    asked = scripted(module, monkeypatch, [row, row])
    found = module.translate([short, long])
    assert [f.tokens for f in found] == [len(short.prompt), len(long.prompt)]
    assert [f.capped for f in found] == [True, True]
    assert asked["max_new_tokens"] == len(long.prompt)
    assert asked["do_sample"] is False
    assert asked["eos_token_id"] == module.ends()
