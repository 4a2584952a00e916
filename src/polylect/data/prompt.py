"""Prompt templates: what the model reads before the translation, and how the translation ends.

Prompt and target are tokenised separately and joined as ids, so that what is learned is exactly
what is generated from. Texts are tokenised with special tokens switched off ("</s>" in a sentence
stays text), except by `ChatTemplate`, whose markup is special tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from polylect.data.chat import DATE, ask, check_date, encode_texts, turn, turn_end
from polylect.data.languages import country, language, names, split_direction
from polylect.data.text import line_feed_ids
from polylect.did_you_mean import check_known


@dataclass(frozen=True)
class PromptRow:
    """A row that has a source.

    Attributes:
        source: the text.
        pair: codes of the languages.
        shots: sentence pairs that stand before it.
    """

    source: str
    pair: tuple[str, str] = ("", "")
    shots: Sequence[tuple[str, str]] = ()


class Template(ABC):
    """How a sentence in a direction becomes token ids.

    A monolingual direction has no source: its prompt is the begin token alone, or nothing.
    `tokenizer` is a Hugging Face tokenizer.
    """

    asks_for_a_line = False  # then a line end is an end too, all that an untrained base knows

    def encode(self, tokenizer: Any, source: str | None, direction: str) -> list[int]:
        """Return the prompt's ids, with the begin token where the family uses one (`begin_ids`)."""
        return self.encode_many(tokenizer, [source], [direction])[0]

    def encode_target(self, tokenizer: Any, target: str, direction: str | None = None) -> list[int]:
        """Return the ids of the target, the last of which is the end token that is learned."""
        return self.encode_targets(tokenizer, [target], [direction])[0]

    def encode_many(
        self,
        tokenizer: Any,
        sources: Sequence[str | None],
        directions: Sequence[str],
        shots: Sequence[Sequence[tuple[str, str]]] | None = None,
    ) -> list[list[int]]:
        """Do `encode` for many rows by one call of the tokenizer.

        Args:
            shots: for each row sentence pairs in its direction that stand before it as examples,
                each as it would be learned; monolingual rows show none.

        Raises:
            ValueError: a tokenizer that lacks what the template needs, or a row of a translation
                direction without a source.
        """
        codes = [split_direction(direction) for direction in directions]
        rows = [row for row, (code, _) in enumerate(codes) if code is not None]
        for row in rows:
            if sources[row] is None:
                raise ValueError(f"direction {directions[row]!r} needs a source text")
        examples = [()] * len(sources) if shots is None else shots
        pairs = [(str(code), target) for code, target in codes]
        prompt_rows = [PromptRow(str(sources[row]), pairs[row], examples[row]) for row in rows]
        begin = begin_ids(tokenizer)
        prompts = [list(begin) for _ in sources]
        for row, ids in zip(rows, self._prompts(tokenizer, prompt_rows), strict=True):
            prompts[row] = ids
        return prompts

    def encode_pairs(
        self,
        tokenizer: Any,
        sources: Sequence[str | None],
        targets: Sequence[str],
        directions: Sequence[str],
    ) -> list[tuple[list[int], list[int]]]:
        """Return prompt and target of many rows, to learn from; raises as `encode_many`."""
        prompts = self.encode_many(tokenizer, sources, directions)
        return list(zip(prompts, self.encode_targets(tokenizer, targets, directions), strict=True))

    def encode_targets(
        self, tokenizer: Any, targets: Sequence[str], directions: Sequence[str | None]
    ) -> list[list[int]]:
        """Do `encode_target` for many rows by one call of the tokenizer."""
        lead = self._lead(tokenizer)
        texts = [
            target if direction is not None and "-" not in direction else lead + target
            for target, direction in zip(targets, directions, strict=True)
        ]
        end = self.end_ids(tokenizer)[0]
        return [[*ids, end] for ids in encode_texts(tokenizer, texts)]

    def end_ids(self, tokenizer: Any) -> list[int]:
        """Return the ids that end a generation; the first of them is the one that targets end in.

        Raises:
            ValueError: the tokenizer has no end token.
        """
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end token (eos_token), so no target could end")
        return [tokenizer.eos_token_id]

    def stop_ids(self, tokenizer: Any) -> list[int]:
        """Return the ids at which decoding stops; raises as `end_ids`."""
        line_ends = line_feed_ids(tokenizer) if self.asks_for_a_line else []
        return self.end_ids(tokenizer) + line_ends

    def _lead(self, tokenizer: Any) -> str:
        """Return the text between prompt and target."""
        return ""

    @abstractmethod
    def _prompts(self, tokenizer: Any, rows: Sequence[PromptRow]) -> list[list[int]]:
        """Return the ids of the prompts of rows that have a source."""


class PlainTemplate(Template):
    """Says in words what to do; works with every base model. `named` gives words for codes."""

    asks_for_a_line = True

    def __init__(self, named: Callable[[str], str] = lambda code: language(code).name) -> None:
        self._named = named

    def _prompts(self, tokenizer: Any, rows: Sequence[PromptRow]) -> list[list[int]]:
        begin = begin_ids(tokenizer)
        texts = []
        for row in rows:
            named = [self._named(code) for code in row.pair]
            before = [f"{_in_words(source, *named)} {target}" for source, target in row.shots]
            texts.append("\n\n".join([*before, _in_words(row.source, *named)]))
        return [begin + ids for ids in encode_texts(tokenizer, texts)]

    def _lead(self, tokenizer: Any) -> str:
        """Return a space, or "" where the tokenizer itself marks the beginning of a word."""
        joint, first, second = encode_texts(tokenizer, ["a b", "a", "b"])
        return "" if first + second == joint else " "


class TagTemplate(Template):
    """Begin token, source, and a token such as <2de> for the target language.

    The shortest prompt there is; the tag's embedding has to be learned.
    """

    def _prompts(self, tokenizer: Any, rows: Sequence[PromptRow]) -> list[list[int]]:
        begin = begin_ids(tokenizer)
        tags = {target: self._tag(tokenizer, target) for _, target in {row.pair for row in rows}}
        texts = [text for row in rows for text in (*chain(*row.shots), row.source)]
        encoded = iter(encode_texts(tokenizer, texts))
        prompts = []
        for row in rows:
            tag, ids = tags[row.pair[1]], []
            for _ in row.shots:
                ids += [*begin, *next(encoded), tag, *next(encoded), self.end_ids(tokenizer)[0]]
            prompts.append([*ids, *begin, *next(encoded), tag])
        return prompts

    def _tag(self, tokenizer: Any, code: str) -> int:
        tag = f"<2{code}>"
        index = tokenizer.convert_tokens_to_ids(tag)
        if index is None or tokenizer.convert_ids_to_tokens(index) != tag:
            raise ValueError(
                f"template 'tag' needs the token {tag!r}, which the tokenizer does not have; "
                "use template 'plain' or a tokenizer with that tag"
            )
        return index


class ChatTemplate(Template):
    """One user turn in the tokenizer's own chat template; for instruction-tuned models.

    Args:
        date: what it prints as today, as in "2024-07-26".

    Raises ValueError for what is no date.
    """

    def __init__(self, date: str = DATE) -> None:
        check_date(date)
        self._date = date

    def end_ids(self, tokenizer: Any) -> list[int]:
        """Return the token that ends the assistant's turn, and the end token if it is another."""
        closing = turn_end(tokenizer, self._date)
        end = [] if tokenizer.eos_token_id is None and closing else super().end_ids(tokenizer)
        return list(dict.fromkeys(closing + end))

    def _prompts(self, tokenizer: Any, rows: Sequence[PromptRow]) -> list[list[int]]:
        turns = []
        for row in rows:
            named = names(row.pair)
            turns.append([])
            for source, target in row.shots:
                turns[-1].append(turn("user", _as_request(source, *named)))
                turns[-1].append(turn("assistant", target))
            turns[-1].append(turn("user", _as_request(row.source, *named)))
        return ask(tokenizer, turns, self._date)


class QuestionTemplate(Template):
    """A question, and its answer on the next line; directions are names of any kind.

    A row without a source is text, as in monolingual directions.
    """

    asks_for_a_line = True

    def encode_many(
        self,
        tokenizer: Any,
        sources: Sequence[str | None],
        directions: Sequence[str],
        shots: Sequence[Sequence[tuple[str, str]]] | None = None,
    ) -> list[list[int]]:
        """Do `Template.encode_many`; raises ValueError where pairs are to be shown."""
        if shots is not None:
            raise ValueError("questions show no sentence pairs: give them a passage instead")
        prompts = iter(self._prompts(tokenizer, [PromptRow(s) for s in sources if s is not None]))
        return [begin_ids(tokenizer) if source is None else next(prompts) for source in sources]

    def _prompts(self, tokenizer: Any, rows: Sequence[PromptRow]) -> list[list[int]]:
        begin = begin_ids(tokenizer)
        texts = [f"{row.source}\nAnswer:\n" for row in rows]
        return [begin + ids for ids in encode_texts(tokenizer, texts)]


class QuestionChatTemplate(QuestionTemplate, ChatTemplate):
    """A question as a user's turn; for instruction-tuned models. `date` as of `ChatTemplate`."""

    asks_for_a_line = False

    def _prompts(self, tokenizer: Any, rows: Sequence[PromptRow]) -> list[list[int]]:
        return ask(tokenizer, [[turn("user", row.source)] for row in rows], self._date)


_DATED: dict[str, type[Template]] = {"chat": ChatTemplate, "question_chat": QuestionChatTemplate}

COUNTRY = "country"  # "Germany" for German, as the code of LANDeRMT's authors; to measure that
TEMPLATES: dict[str, Template] = {
    "plain": PlainTemplate(),
    COUNTRY: PlainTemplate(country),
    "tag": TagTemplate(),
    "chat": ChatTemplate(),
    "question": QuestionTemplate(),
    "question_chat": QuestionChatTemplate(),
}


def template(name: str) -> Template:
    """Return the template of that name.

    Chat templates may have a date in it, as in "chat@2024-07-26".

    Raises:
        ValueError: there is none; the sentence names the nearest. Or what follows @ is no date.
    """
    kind, at, date = name.partition("@")
    if at and kind in _DATED:
        return _DATED[kind](date)
    check_known("data.template", name, TEMPLATES)
    return TEMPLATES[name]


def whole_name(name: str) -> str:
    """Return the name of a template with its date, if it has one: what is stored with a run."""
    return f"{name}@{DATE}" if name in _DATED else name


def begin_ids(tokenizer: Any) -> list[int]:
    """Return the begin token as a list, empty if texts do not begin with one.

    They do if the tokenizer's own encoding puts it (Llama, Gemma, Mistral), or if it has a begin
    token that is not also the end token, which only its author's training code put. They do not
    without a begin token (Qwen), or if it doubles as the end of documents (GPT-NeoX).
    """
    begin = tokenizer.bos_token_id
    own = tokenizer("x")["input_ids"][:1] == [begin]
    return [begin] if begin is not None and (own or begin != tokenizer.eos_token_id) else []


def _in_words(text: str, source: str, target: str) -> str:
    return f"Translate from {source} into {target}.\n{source}: {text}\n{target}:"


def _as_request(text: str, source: str, target: str) -> str:
    return f"Translate from {source} into {target}. Answer with the translation only.\n\n{text}"
