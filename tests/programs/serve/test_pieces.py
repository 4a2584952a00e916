"""Texts that grow token by token."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from polylect.models.backbone import tiny_backbone
from polylect.programs.serve.pieces import TextPieces
from polylect.strategies.generation import text_of


def byte_level() -> Any:
    """A tokenizer such as GPT-2's, of which each token is a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


TOKENIZERS = {"byte fallback": tiny_backbone()[1], "byte level": byte_level()}


def pieces_of(tokenizer: Any, ids: list[int]) -> list[str]:
    pieces = TextPieces(tokenizer)
    return [*(pieces.add(token) for token in ids), pieces.rest(text_of(tokenizer, ids))]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pieces_of_any_tokens_are_the_whole_text(name: str) -> None:
    tokenizer, draw = TOKENIZERS[name], random.Random(0)
    for length in range(300):
        ids = draw.choices(range(len(tokenizer)), k=length % 30)
        assert "".join(pieces_of(tokenizer, ids)) == text_of(tokenizer, ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text())
def test_pieces_of_any_text_are_the_text(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = pieces_of(tokenizer, ids)
    assert "".join(pieces) == text_of(tokenizer, ids)
    assert not any(piece.endswith("\ufffd") for piece in pieces[:-1] if "\ufffd" not in text)


def test_words_come_as_they_are_written() -> None:
    tokenizer = TOKENIZERS["byte level"]
    ids = tokenizer("Ü é")["input_ids"]
    assert pieces_of(tokenizer, ids) == ["", "Ü", "", "", " é", ""]


def test_what_was_said_is_not_said_again_when_a_batch_is_repeated() -> None:
    tokenizer = TOKENIZERS["byte level"]
    ids = tokenizer("abc")["input_ids"]
    pieces = TextPieces(tokenizer)
    assert [pieces.add(token) for token in ids[:2]] == ["a", "b"]
    pieces.again()
    assert [pieces.add(token) for token in ids] == ["", "", "c"]
    with pytest.raises(ValueError, match="rewrites what it has written"):
        pieces.rest("xyz")
