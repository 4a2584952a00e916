"""Fixed examples in prompts: which they are, and that a base is asked with them."""

from typing import Any

import pytest
from helpers.small import build

from polylect.data.datamodule import TranslationData
from polylect.data.filters import normalise
from polylect.retrieval.prompting import show_matches
from polylect.retrieval.shots import Shots, draw_shots

SOURCE = "The small cat sees it."


def data(**settings: Any) -> TranslationData:
    made = TranslationData(
        directions=["en-de", "en-fr"],
        **{
            "train": {"kind": "tongues", "split": "train", "size": 200},
            "test": {"kind": "tongues", "split": "test", "size": 20},
        }
        | settings,
    )
    made.setup("test")
    return made


def drawn(made: TranslationData, count: int = 4, seed: int = 1) -> Shots:
    return draw_shots(made, count, split="test", seed=seed)


def test_the_seed_draws_pairs_of_the_training_text() -> None:
    made = data()
    shots = drawn(made)
    for direction in ("en-de", "en-fr"):
        store = made.pairs(direction, "train")
        known = {(store[i].source, store[i].target) for i in range(len(store))}
        pairs = shots.pairs[direction]
        assert len(set(pairs)) == 4 and set(pairs) <= known
    assert drawn(data()).pairs == shots.pairs
    assert drawn(made, seed=2).pairs != shots.pairs


def test_no_sentence_of_the_scored_set_is_an_example() -> None:
    test = {"kind": "tongues", "split": "test", "size": 20}
    more = {"kind": "tongues", "split": "test", "size": 24}
    made = data(train=more, test=test)
    scored = made.pairs("en-de", "test")
    sources = {normalise(scored[i].source) for i in range(len(scored))}
    assert not {normalise(s) for s, _ in drawn(made, 2).pairs["en-de"]} & sources
    with pytest.raises(ValueError, match=r"shots=20: only .* differ from each other and from the"):
        drawn(made, 20)


def test_directions_without_training_text_are_refused() -> None:
    with pytest.raises(ValueError, match=r"en-de has none: give data\.train=…, or leave out shots"):
        drawn(data(train=None))


@pytest.mark.parametrize("template", ["plain", "tag"])
def test_a_base_is_asked_as_with_the_pairs_written_before(template: str) -> None:
    module = build("frozen", f"data.template={template}")
    pairs = [("We read.", "Wir lesen."), ("A book.", "Ein Buch.")]
    expected = module.template.encode_many(
        module.tokenizer, [SOURCE], ["en-de"], [list(reversed(pairs))]
    )
    show_matches(module, Shots({"en-de": pairs}))
    assert [module.prompt(SOURCE, "en-de").prompt] == expected


def test_what_has_no_room_is_dropped_and_counted() -> None:
    module = build("frozen", "generation.ratio=0", "generation.extra=20")
    shots = Shots({"en-de": [("We read.", "Wir lesen heute das neue Buch.")] * 80})
    show_matches(module, shots)
    long = module.prompt(SOURCE, "en-de").prompt
    dropped = shots.counts["en-de"]["dropped"]
    assert len(long) <= 1024 and 0 < dropped < 80
    assert len(long) > 900
    assert f"{dropped} dropped for lack of room" in shots.summary()


def test_a_run_that_learned_no_examples_is_not_shown_any() -> None:
    module = build("lora_switch")
    show_matches(module, Shots({"en-de": [("We read.", "Wir lesen.")]}))
    with pytest.raises(ValueError, match="en-de was trained on prompts without examples"):
        module.prompt(SOURCE, "en-de")
