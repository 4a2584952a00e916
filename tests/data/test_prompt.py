import pytest
from conftest import byte_tokenizer
from transformers import PreTrainedTokenizerFast

from polylect.data.prompt import TEMPLATES, begin_ids, template, whole_name

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chat_tokenizer(chat_template: str) -> PreTrainedTokenizerFast:
    made = byte_tokenizer(bos_token="<s>", eos_token="</s>")
    made.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = chat_template
    return made


def test_plain_reads_as_written(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = TEMPLATES["plain"].encode(tokenizer, "The soup is hot.", "en-ta")
    prompt = "<s>Translate from English into Tamil.\nEnglish: The soup is hot.\nTamil:"
    assert tokenizer.decode(ids) == prompt
    target = TEMPLATES["plain"].encode_target(tokenizer, "சூப் சூடாக உள்ளது.")
    assert tokenizer.decode(target) == " சூப் சூடாக உள்ளது.</s>"


def test_plain_puts_a_space_only_where_the_tokenizer_does_not(
    word_tokenizer: PreTrainedTokenizerFast,
) -> None:
    ids = TEMPLATES["plain"].encode_target(word_tokenizer, "hot soup")
    assert word_tokenizer.convert_ids_to_tokens(ids) == ["▁hot", "▁soup", "</s>"]


def test_tag(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = TEMPLATES["tag"].encode(tokenizer, "hot", "en-de")
    assert tokenizer.convert_ids_to_tokens(ids) == ["<s>", "h", "o", "t", "<2de>"]
    assert tokenizer.decode(TEMPLATES["tag"].encode_target(tokenizer, "heiß")) == "heiß</s>"
    with pytest.raises(ValueError, match="needs the token '<2fr>'"):
        TEMPLATES["tag"].encode(tokenizer, "hot", "en-fr")


def test_chat_ends_with_the_turn() -> None:
    tokenizer = chat_tokenizer(CHATML)
    chat = TEMPLATES["chat"]
    text = tokenizer.decode(chat.encode(tokenizer, "hot", "en-de"))
    assert text.startswith("<|im_start|>user\nTranslate from English into German.")
    assert text.endswith("\n\nhot<|im_end|>\n<|im_start|>assistant\n")
    turn, end = tokenizer.convert_tokens_to_ids(["<|im_end|>", "</s>"])
    assert chat.end_ids(tokenizer) == [turn, end]
    assert chat.encode_target(tokenizer, "heiß")[-1] == turn


def test_chat_whose_turns_end_in_the_end_token_or_in_nothing() -> None:
    llama = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {{ eos_token }}{% endfor %}"
    )
    bare = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    for source in (llama, bare):
        tokenizer = chat_tokenizer(source)
        assert TEMPLATES["chat"].end_ids(tokenizer) == [tokenizer.eos_token_id]


DATED = [
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}"
    "{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}Today: {{ date_string }}\n"
    + CHATML,  # as Llama 3 does it
    "\n  {% macro today() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}Today: {{ today() }}\n"
    + CHATML,
]


@pytest.mark.parametrize("source", DATED)
@pytest.mark.parametrize("name", ["chat", "question_chat"])
def test_what_a_chat_template_prints_does_not_depend_on_the_day(name: str, source: str) -> None:
    tokenizer = chat_tokenizer(source)
    ids = template(name).encode(tokenizer, "hot", "en-de")
    first = tokenizer.decode(ids).strip().splitlines()[0]
    assert first in ("Today: 26 Jul 2024", "Today: 2024-07-26")
    assert whole_name(name) == f"{name}@2024-07-26"
    assert template(whole_name(name)).encode(tokenizer, "hot", "en-de") == ids
    other = template(f"{name}@1999-12-31")
    line = tokenizer.decode(other.encode(tokenizer, "hot", "en-de")).strip().splitlines()[0]
    assert line in ("Today: 31 Dec 1999", "Today: 1999-12-31")
    assert other.end_ids(tokenizer) == template(name).end_ids(tokenizer)


def test_only_chat_templates_have_a_date() -> None:
    assert whole_name("plain") == "plain"
    assert whole_name("chat@1999-12-31") == "chat@1999-12-31"
    with pytest.raises(ValueError, match="'today' is no date for a chat template: write it as in"):
        template("chat@today")
    with pytest.raises(ValueError, match="template=tag@2024-07-26 does not exist; known: chat,"):
        template("tag@2024-07-26")


def test_chat_needs_a_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="no chat template; use template 'plain'"):
        TEMPLATES["chat"].encode(tokenizer, "hot", "en-de")


@pytest.mark.parametrize("name", ["plain", "tag"])
def test_special_tokens_in_a_sentence_stay_text(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    sentence = "write </s> or <2de> here"
    special = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<2en>")}
    prompt = TEMPLATES[name].encode(tokenizer, sentence, "ta-de")
    target = TEMPLATES[name].encode_target(tokenizer, sentence)
    assert not special & set(prompt) and target.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(target[:-1]).strip() == sentence
    assert prompt.count(tokenizer.convert_tokens_to_ids("<2de>")) == (name == "tag")


@pytest.mark.parametrize("name", ["plain", "tag"])
def test_monolingual_is_begin_and_text(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    one = TEMPLATES[name]
    assert one.encode(tokenizer, None, "de") == [tokenizer.bos_token_id]
    assert tokenizer.decode(one.encode_target(tokenizer, "heiß", "de")) == "heiß</s>"
    with pytest.raises(ValueError, match="'en-de' needs a source text"):
        one.encode(tokenizer, None, "en-de")


@pytest.mark.parametrize("name", ["plain", "tag"])
def test_many_rows_are_the_single_rows(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    one = TEMPLATES[name]
    sources = ["hot", None, "heiß", ""]
    directions = ["en-de", "ta", "de-en", "en-ta"]
    many = one.encode_many(tokenizer, sources, directions)
    assert many == [one.encode(tokenizer, s, d) for s, d in zip(sources, directions, strict=True)]
    targets = one.encode_targets(tokenizer, ["a", "b"], ["en-de", "de"])
    assert targets == [
        one.encode_target(tokenizer, "a", "en-de"),
        one.encode_target(tokenizer, "b", "de"),
    ]
    assert one.encode_many(tokenizer, [], []) == []


def test_begin_token(
    tokenizer: PreTrainedTokenizerFast, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    assert begin_ids(word_tokenizer) == [1]  # its own encoding puts it
    assert begin_ids(tokenizer) == [tokenizer.bos_token_id]  # it has one of its own
    assert begin_ids(byte_tokenizer(eos_token="</s>")) == []  # none
    same = byte_tokenizer(bos_token="<|end|>", eos_token="<|end|>")
    assert begin_ids(same) == []  # it is the end of documents


def test_an_end_token_is_needed() -> None:
    with pytest.raises(ValueError, match="no end token"):
        TEMPLATES["plain"].encode_target(byte_tokenizer(bos_token="<s>"), "heiß")


def test_unknown_template() -> None:
    assert template("tag") is TEMPLATES["tag"]
    with pytest.raises(ValueError, match="template=plane does not exist; did you mean plain"):
        template("plane")
