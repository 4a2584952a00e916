"""The trained tokenizer gives every text back."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from polylect.models.tokenizer import train_tokenizer

TEXTS = [
    "The old house has 12 rooms.",
    "Das alte Haus hat 12 Zimmer.",
    "L'ancienne maison a 12 pièces.",
    "पुराने घर में १२ कमरे हैं।",
    "பழைய வீட்டில் 12 அறைகள் உள்ளன.",
]
TOKENIZER = train_tokenizer(TEXTS, 600, ["<2en>", "<2ta>"])


def round_trip(text: str, tokenizer: PreTrainedTokenizerFast = TOKENIZER) -> str:
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
    return tokenizer.decode(ids, skip_special_tokens=True)


@given(st.text())
@example("  two  spaces, tab\t, lines\r\n\n ")
@example("a▁b <0x41> </s><2en> <pad>")  # marks of tokenizers are text like any other
@example("क्‍ष ക്‌ഷ")  # joiner and non-joiner
@example("\x00\ufeff\u2028\U0010ffff")
@example("👩🏽‍🚀 e\u0301 \u00e9")
def test_every_text_comes_back(text: str) -> None:
    assert round_trip(text) == text


@given(st.text(alphabet=st.characters(min_codepoint=0x900, max_codepoint=0xDFF), max_size=40))
def test_indic_text_comes_back_unnormalised(text: str) -> None:
    assert round_trip(text) == text


def test_unicode_forms_are_kept_apart() -> None:
    composed, decomposed = "é", unicodedata.normalize("NFD", "é")
    assert [round_trip(composed), round_trip(decomposed)] == [composed, decomposed]


def test_special_ids_tags_and_begin_token() -> None:
    names = ["<pad>", "<s>", "</s>", "<unk>", "<2en>", "<2ta>"]
    assert TOKENIZER.convert_tokens_to_ids(names) == list(range(6))
    assert TOKENIZER("old <2ta>").input_ids[0] == TOKENIZER.bos_token_id == 1
    assert TOKENIZER("old <2ta>").input_ids[-1] == 5
    assert (TOKENIZER.pad_token_id, TOKENIZER.eos_token_id, TOKENIZER.unk_token_id) == (0, 2, 3)
    assert len(TOKENIZER) <= 600
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(len(TOKENIZER)))


def test_words_keep_vowel_signs_and_digits_stand_alone() -> None:
    tokenizer = train_tokenizer([text for text in TEXTS for _ in range(5)], 2000)
    tokens = tokenizer.tokenize("घर में கமரே 12 அறைகள்")
    assert " में" in tokens and " அறைகள்" in tokens
    assert [t for t in tokens if t.strip() in ("1", "2", "12")] == [" 1", "2"]


def test_the_first_word_is_the_same_token_as_inside() -> None:
    tokenizer = train_tokenizer(["house the house"] * 5, 400)
    assert tokenizer.tokenize("house the house") == [" house", " the", " house"]


def test_a_saved_tokenizer_is_the_same(tmp_path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "Das alte <2ta> Haus பழைய 😀"
    assert again(text).input_ids == TOKENIZER(text).input_ids
    assert round_trip(text, again) == text


def test_what_cannot_be_trained_is_said() -> None:
    with pytest.raises(ValueError, match="vocabulary must be above 261 to hold 256 bytes and 5"):
        train_tokenizer(TEXTS, 261, ["<2en>"])
    with pytest.raises(ValueError, match="no text"):
        train_tokenizer(["", ""], 300)


def test_the_same_texts_give_the_same_tokenizer_where_characters_are_cut_off() -> None:
    texts = ["abcdefghijklmnopqrstuvwxyz", "äöüéèêçñåøæœß", "कखगघचछजझटठडढतथदधन"]
    made = {train_tokenizer(texts, 290).backend_tokenizer.to_str() for _ in range(8)}
    assert len(made) == 1
