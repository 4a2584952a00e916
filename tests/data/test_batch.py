import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from polylect.data.batch import Example, TranslationBatch, collate

IDS = st.lists(st.integers(3, 50), max_size=6)
ROWS = st.lists(st.tuples(IDS, IDS), min_size=1, max_size=5)


def examples_of(rows: list[tuple[list[int], list[int]]]) -> list[Example]:
    return [Example(prompt, [*target, 2], "en-de") for prompt, target in rows]


@settings(max_examples=60)
@given(ROWS, st.sampled_from([0, 2]))
def test_prompt_and_target_are_joined_and_only_the_target_is_learned(
    rows: list[tuple[list[int], list[int]]], pad: int
) -> None:
    examples = examples_of(rows)
    batch = collate(examples, pad, "right")  # also with padding equal to the end token 2
    assert batch.input_ids.shape == (len(examples), max(e.length for e in examples))
    for row, example in enumerate(examples):
        ids, mask, labels = (
            t[row].tolist() for t in (batch.input_ids, batch.attention_mask, batch.labels)
        )
        joined = example.prompt + example.target
        fill = len(ids) - len(joined)
        assert ids == joined + [pad] * fill
        assert mask == [1] * len(joined) + [0] * fill
        # The first token of all has nothing before it that could predict it.
        hidden = max(len(example.prompt), 1)
        assert labels == [-100] * hidden + joined[hidden:] + [-100] * fill
        assert example.target_tokens == sum(label != -100 for label in labels)
    assert batch.target_tokens == sum(example.target_tokens for example in examples)


@settings(max_examples=40)
@given(ROWS)
def test_for_generation_prompts_are_padded_on_the_left(
    rows: list[tuple[list[int], list[int]]],
) -> None:
    examples = examples_of(rows)
    batch = collate(examples, 0, "left")
    length = max(len(example.prompt) for example in examples)
    for row, example in enumerate(examples):
        fill = length - len(example.prompt)
        assert batch.input_ids[row].tolist() == [0] * fill + example.prompt
        assert batch.attention_mask[row].tolist() == [0] * fill + [1] * len(example.prompt)
    assert batch.target_tokens == 0 and batch.rows == len(examples)


def test_token_count_is_that_of_the_shifted_loss() -> None:
    examples = [Example([1, 5], [6, 2], "en-de"), Example([], [7, 8, 2], "de")]
    batch = collate(examples, 0, "right")
    logits = torch.zeros(2, batch.input_ids.shape[1], 10)
    total = cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), reduction="sum"
    )
    assert total.item() == pytest.approx(batch.target_tokens * torch.tensor(10.0).log().item())


def test_to_keeps_everything() -> None:
    batch = collate([Example([1], [2], "en-de", "hot", ("heiß",))], 0, "right")
    moved = batch.to("meta")
    assert isinstance(moved, TranslationBatch) and moved.labels.device.type == "meta"
    assert moved.target_tokens == 1  # counted before: the meta device has no data
    assert (moved.directions, moved.sources) == (("en-de",), ("hot",))
    assert moved.references == (("heiß",),)


def test_no_examples() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        collate([], 0, "right")


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_lightning_can_convert_it_in_every_precision(precision: str) -> None:
    from lightning.pytorch.plugins.precision import (
        DoublePrecision,
        HalfPrecision,
        MixedPrecision,
    )

    plugins = {
        "bf16-true": lambda: HalfPrecision("bf16-true"),
        "64-true": DoublePrecision,
        "bf16-mixed": lambda: MixedPrecision("bf16-mixed", "cpu"),
    }
    batch = collate([Example([1], [2], "en-de", "hot", ("heiß",))], 0, "right")
    converted = plugins[precision]().convert_input(batch)
    assert torch.equal(converted.labels, batch.labels) and converted.sources == ("hot",)
