"""Conversations as text, by the chat template that comes with a tokenizer; on a fixed date.

And texts as ids.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

DATE = "2024-07-26"
"""Today, to a tokenizer's chat template: many print the date, and a run would be used with prompts
other than those it was trained on. Llama 3's takes this one where it is told none."""

Turn = dict[str, str]


def turn(role: str, content: str) -> Turn:
    """Return what the "user" or the "assistant" says."""
    return {"role": role, "content": content}


def check_date(date: str) -> None:
    """Raises ValueError for what is no date, as in "2024-07-26"."""
    try:
        datetime.strptime(date, "%Y-%m-%d")
    except ValueError:
        raise ValueError(
            f"{date!r} is no date for a chat template: write it as in chat@{DATE}"
        ) from None


def render(
    tokenizer: Any, conversations: Sequence[Sequence[Turn]], *, answer: bool, date: str = DATE
) -> list[str]:
    """Return the conversations as text,
    with the beginning of the assistant's turn where it must answer.

    Raises ValueError for a tokenizer without a chat template.
    """
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template; use template 'plain'")
    source = tokenizer.get_chat_template()
    if "strftime_now" in source:
        source = _calendar(date) + source
    # enable_thinking is known to templates of reasoning models only; others ignore it.
    options = {"chat_template": source, "tokenize": False, "enable_thinking": False}
    return [
        tokenizer.apply_chat_template(list(turns), add_generation_prompt=answer, **options)
        for turns in conversations
    ]


def ask(
    tokenizer: Any, conversations: Sequence[Sequence[Turn]], date: str = DATE
) -> list[list[int]]:
    """Return the ids of conversations, up to where the assistant's answer begins.

    Raises as `render`.
    """
    texts = render(tokenizer, conversations, answer=True, date=date)
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def encode_texts(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Return the ids of texts outside of conversations, in which no text is a special token.

    The backend is asked itself where a tokenizer adds nothing to it: that takes half the time.
    """
    from transformers import PreTrainedTokenizerFast

    if not texts:
        return []
    own = getattr(type(tokenizer), "_encode_plus", None)
    if own is PreTrainedTokenizerFast._encode_plus:
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        return [encoding.ids for encoding in backend.encode_batch(texts, add_special_tokens=False)]
    # verbose: what is too long is dropped and counted by those who know the limit
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    return tokenizer(texts, **options)["input_ids"]


def turn_end(tokenizer: Any, date: str = DATE) -> list[int]:
    """Return the special token that ends the assistant's turn, if one does; raises as `render`."""
    mark = "polylect"
    turns = [turn("user", "?"), turn("assistant", mark)]
    tail = render(tokenizer, [turns], answer=False, date=date)[0].rpartition(mark)[2].strip()
    ids = tokenizer(tail, add_special_tokens=False)["input_ids"] if tail else []
    return [index for index in ids[:1] if index in tokenizer.added_tokens_decoder]


@cache
def _calendar(date: str) -> str:
    """Return a macro in place of the function that chat templates ask for the date.

    They get no functions from outside. The line break after it is no part of the text.
    """
    today = datetime.strptime(date, "%Y-%m-%d")
    letters = "aAbBcCdDeFgGhHIjklmMpPrRSTuUVwWxXyYZ"
    codes = [f"%{flag}{letter}" for flag in ("", "-") for letter in letters]
    replacements = [("%%", "\0"), *((code, today.strftime(code)) for code in codes), ("\0", "%")]
    replaced = "".join(f" | replace({json.dumps(a)}, {json.dumps(b)})" for a, b in replacements)
    return f"{{% macro strftime_now(format) -%}}{{{{ format{replaced} }}}}{{%- endmacro %}}\n"
