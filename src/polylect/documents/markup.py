"""Sentences of a text, and what in them is kept as it is: markup and placeholders."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import pairwise

import regex as re  # of which \p{M} are the vowel signs of Indic scripts

_KEPT = re.compile(
    r"""(?<!`)`++[^`]+`+                            # code
    | <!--(?:(?!<!--).)*?--> | <%(?:(?!<%).)*?%> | \{%(?:(?!\{%).)*?%\}    # comments, templates
    | \$\$[^$]+\$\$ | (?<![\w$\\])\$(?=[^\s$])[^$]*[^\s$\\]\$(?![\w$])   # formulas
    | \\\((?:(?!\\\().)*?\\\)
    | \[\^[^\[\]\s]+\]                             # footnotes
    | !?\[ | \]\((?:[^()\s]|\([^()\s]*\))*(?:\s"[^"]*")?\) | \]\[[^\]]*\] | \]   # links, pictures
    | <(?:https?|ftp|mailto):[^<>\s]*>              # links in brackets
    | </?[A-Za-z](?:[^<>"']|"[^"]*"|'[^']*')*>      # tags
    | &(?:\w+|\#\d+|\#x[0-9A-Fa-f]+);               # entities
    | \{\{[^{}]*\}\} | [$\#]?\{(?:[^{}]|\{[^{}]*\})*\}   # {name}, {{name}}, ${name}, {n, plural, …}
    | %(?:\d+\$)?(?:\(\w+\)|\{\w+\})?[-+\#0]*\d*(?:\.\d+)?[sdifuxXgeqpc@](?![A-Za-z])   # %s, %(n)d
    | %\{\w+\} | %\w+% | %%                         # %{name}, %NAME%
    | \$[A-Z_][A-Z0-9_]+\b | __[A-Z0-9_]+__         # $NAME, __NAME__
    | \\[nrt](?![a-z])                              # \n in the texts of programs
    | (?<!\w)@\w[\w.-]*\w | (?<![\w:]):(?=[\d_+-]*[a-z])[a-z\d_+-]+:(?![\w:])   # @user, :smile:
    | (?:https?|ftp)://(?:[^\s<>()\]]|\([^\s<>()]*\))*(?:[^\s<>()\].,;:!?'"]|\([^\s<>()]*\))
    | (?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+                  # addresses
    | \*+ | ~~ | (?<!\w)_+(?=\w) | (?<=\w)_+(?!\w)      # emphasis
    """,
    re.VERBOSE,
)
_SENTENCE_END = re.compile(
    r"(?<!\b(?:Mr|Mrs|Ms|Dr|Prof|St|Hr|Mme|Mlle|Gen|Col|Capt|Lt|Rev|Sen|vs)\.)"
    r"(?<=[\w\p{M}]{2}[.!?…])[\"')\]»”*_]*\s+(?=[^\Wa-z\d_]|[\"'«“¿¡*_])|(?<=[।॥؟。！？])\s*(?=\S)"
)
_LONGEST = 500  # characters of what is translated together
_SPACE = re.compile(r"\s+|(?<=[、，；])")
_COMMAS = tuple(",;:،、，；—–")

_WORDS = re.compile(r"([^\p{L}\p{M}]*)(.*?)([^\p{L}\p{M}]*)", re.DOTALL)

Ask = Callable[[Sequence[str]], Awaitable[Sequence[str]]]
"""Returns the translations of texts."""


def kept_parts(text: str) -> list[str]:
    """Return the markup and placeholders of a text, in their order."""
    return _KEPT.findall(text)


def sentences(text: str) -> list[str]:
    """Cut a text after its sentences; put together they are the text, white space included.

    What is kept as it is, such as code, is not cut. What is far longer than sentences are, such as
    a list, is cut at a space, after a comma if there is one: models take no texts of any length.
    """
    return [part for sentence in _sentences(text) for part in _no_longer(sentence)]


def _no_longer(sentence: str) -> Iterator[str]:
    spans = [found.span() for found in _KEPT.finditer(sentence)] if len(sentence) > _LONGEST else []
    begin = 0
    while len(sentence) - begin > _LONGEST:
        cuts = [
            found.end()
            for found in _SPACE.finditer(sentence, begin + 1, begin + _LONGEST)
            if not _is_within(found.end(), spans)
        ]
        after_commas = [cut for cut in cuts if sentence[:cut].rstrip()[-1:] in _COMMAS]
        cut = max(after_commas or cuts, default=len(sentence))
        yield sentence[begin:cut]
        begin = cut
    if begin < len(sentence):
        yield sentence[begin:]


def _sentences(text: str) -> list[str]:
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    spans = [found.span() for found in _KEPT.finditer(text)] if ends else []
    cuts = [0, *(end for end in ends if not _is_within(end, spans)), len(text)]
    return [text[a:b] for a, b in pairwise(cuts) if a < b]


def _is_within(place: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether one of the spans, given in their order, has the place within it."""
    at = bisect_left(spans, (place, place))
    return at > 0 and place < spans[at - 1][1]


async def translate_marked(texts: Sequence[str], ask: Ask) -> list[str]:
    """Return the translations of texts in which markup and placeholders are as they were.

    Each sentence is asked for whole. Where the answer has not the same markup and placeholders, in
    number or in spelling, what stands between them is asked for piece by piece. Numbers alone stay.
    """
    cut = [sentences(text) for text in texts]
    flat = [sentence for part in cut for sentence in part]
    answers = list(flat)
    wordy = [n for n, sentence in enumerate(flat) if _has_words(sentence)]
    for number, text in zip(wordy, await ask([flat[n].strip() for n in wordy]), strict=True):
        answers[number] = text
    broken = [n for n, sentence in enumerate(flat) if not _has_same_marks(sentence, answers[n])]
    for number, text in zip(broken, await _by_pieces([flat[n] for n in broken], ask), strict=True):
        answers[number] = text
    answers = [_spaced(sentence, answer) for sentence, answer in zip(flat, answers, strict=True)]
    rest = iter(answers)
    return ["".join(next(rest) for _ in part).strip() for part in cut]


def _has_words(sentence: str) -> bool:
    return any(not is_kept for _, is_kept in _pieces(sentence))


def _has_same_marks(sentence: str, answer: str) -> bool:
    return Counter(kept_parts(sentence)) == Counter(kept_parts(answer))


async def _by_pieces(found: Sequence[str], ask: Ask) -> list[str]:
    cut = [_pieces(sentence) for sentence in found]
    open_pieces = [text for part in cut for text, is_kept in part if not is_kept]
    rest = iter(await ask(open_pieces) if open_pieces else [])
    return [
        "".join(text if is_kept else _of_piece(next(rest)) for text, is_kept in part)
        for part in cut
    ]


def _pieces(sentence: str) -> list[tuple[str, bool]]:
    """Pieces of a sentence, and whether each is kept: markup, and what is no word beside it."""
    pieces, done = [], 0
    for found in _KEPT.finditer(sentence):
        pieces += [*_words(sentence[done : found.start()]), (found[0], True)]
        done = found.end()
    pieces += _words(sentence[done:])
    return [(text, is_kept) for text, is_kept in pieces if text]


def _words(text: str) -> list[tuple[str, bool]]:
    """A piece between markup: its words, and the signs and spaces before and after them."""
    before, words, after = _WORDS.fullmatch(text).groups()
    return [(before, True), (words, False), (after, True)]


def _of_piece(answer: str) -> str:
    """Without what a model has made up: markup, and the end of a sentence, which no piece has."""
    return _KEPT.sub("", answer).strip().rstrip(".!?…।॥؟。！？").rstrip()


def _spaced(source: str, text: str) -> str:
    """The text with the white space that is around the source."""
    before = source[: len(source) - len(source.lstrip())]
    after = source[len(source.rstrip()) :]
    return f"{before}{text.strip()}{after}"
