"""Which tokens have a line feed in them, however a vocabulary writes it."""

from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from polylect.data.prompt import TEMPLATES
from polylect.data.text import line_feed_ids


def tokenizer_of(tokens: list[str], decoder: object) -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(BPE(vocabulary, merges=[], byte_fallback="<0x0A>" in tokens))
    backend.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def test_letters_of_byte_level_vocabularies() -> None:
    tokens = ["a", "\u010a", "\u010a\u010a", ".\u010a", "</s>"]
    assert line_feed_ids(tokenizer_of(tokens, decoders.ByteLevel())) == [1, 2, 3]


def test_bytes_and_line_feeds_as_they_are_but_no_maltese_letter() -> None:
    tokens = ["a", "\u010aetta", "<0x0A>", "<0x0B>", "\n\n", "</s>"]
    fallback = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = tokenizer_of(tokens, fallback)
    assert line_feed_ids(tokenizer) == [2, 4]
    tokenizer.add_tokens(["\n"])
    assert line_feed_ids(tokenizer) == [2, 4, 6]


def test_only_forms_that_ask_for_a_line_end_with_it() -> None:
    tokenizer = tokenizer_of(["a", "\n", "</s>"], decoders.Fuse())
    stops = {
        name: form.stop_ids(tokenizer) for name, form in TEMPLATES.items() if "chat" not in name
    }
    assert stops == {"plain": [2, 1], "country": [2, 1], "tag": [2], "question": [2, 1]}
    assert not TEMPLATES["chat"].asks_for_a_line
    assert not TEMPLATES["question_chat"].asks_for_a_line
