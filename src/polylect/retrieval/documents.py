"""Passages that may hold the answer to a question, found by BM25."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import bm25s
import numpy as np
import regex

from polylect.data.text import clean_lines
from polylect.retrieval.terms import terms, tokens_of_text

logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import asks for debug messages

_SENTENCE = regex.compile(
    r".+?(?:[.!?।॥።؟۔][\p{Pe}\p{Pf}\"']*(?=\s)|[。！？][\p{Pe}\p{Pf}]*|\n|$)\s*", regex.DOTALL
)


class BM25:
    """Texts ranked by BM25 in the form of Lucene (Kamphuis et al., ECIR 2020).

    The score of a text is the sum over the query's terms, repeated ones included, of
    log(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / mean length)),
    with f the term's count in the text and n the number of the N texts that have it.

    Args:
        texts: any scripts; see `terms`.
        k1, b: how soon repetition saturates, and how much the length of a text counts.

    Raises:
        ValueError: no text has a term, or k1 or b is out of range.
    """

    def __init__(
        self, texts: Iterable[str], *, k1: float | int = 1.5, b: float | int = 0.75
    ) -> None:
        if k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"BM25 needs k1 of at least 0 and b from 0 to 1, got {k1} and {b}.")
        words = [terms(text) for text in texts]
        if not any(words):
            raise ValueError(f"none of the {len(words)} texts to search has a word in it.")
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")
        self._index.index(words, create_empty_token=False, show_progress=False)
        self._vocabulary = frozenset(self._index.vocab_dict)

    def best(self, query: str, k: int) -> list[tuple[int, float]]:
        """Return the positions and scores of the at most `k` best texts, the best first.

        Of equal ones the first stand first. Texts without any of the query's terms are left out.
        """
        query_terms = [term for term in terms(query) if term in self._vocabulary]
        if not query_terms or k < 1:
            return []
        scores = self._index.get_scores(query_terms)
        hits = np.flatnonzero(scores > 0)
        if len(hits) > k:
            least = np.partition(scores[hits], len(hits) - k)[len(hits) - k]
            hits = hits[scores[hits] >= least]
        order = np.argsort(-scores[hits], kind="stable")[:k]
        return [(int(i), float(scores[i])) for i in hits[order]]


@dataclass(frozen=True)
class Passage:
    """Neighbouring sentences of a document."""

    document: str
    text: str


@dataclass(frozen=True)
class Hit:
    """A passage that was found, and its BM25 score."""

    passage: Passage
    score: float


class Documents:
    """Documents cut into passages, which are searched.

    Args:
        texts: the documents by name; each line is cleaned, see `polylect.data.text`.
        words: length of a passage; see `cut`.
        k1, b: see `BM25`.

    Raises:
        ValueError: there is nothing to search, or a number is out of its range.
    """

    def __init__(
        self,
        texts: Mapping[str, str],
        *,
        words: int = 100,
        k1: float | int = 1.5,
        b: float | int = 0.75,
    ) -> None:
        if words < 1:
            raise ValueError(f"a passage needs at least 1 word, got words={words}.")
        self._passages = [
            Passage(name, part)
            for name, text in texts.items()
            for part in cut(clean_lines(text), words)
        ]
        self._ranking = BM25((passage.text for passage in self._passages), k1=k1, b=b)

    def __len__(self) -> int:
        return len(self._passages)

    def hits(self, question: str, k: int = 1) -> list[Hit]:
        """Return the `k` best passages, the best first.

        There are fewer where no more share a word with it.
        """
        return [Hit(self._passages[i], score) for i, score in self._ranking.best(question, k)]


def cut(text: str, words: int) -> list[str]:
    """Return the text in passages of at most `words` words (letters, in scripts without spaces).

    Only a sentence that is longer by itself makes a longer passage: none is cut.
    """
    passages: list[str] = []
    room = 0
    for sentence in _SENTENCE.findall(text.strip()):
        length = sum(token[0].isalnum() for token in tokens_of_text(sentence))
        if not length:
            continue
        if length > room:
            passages.append("")
            room = words
        passages[-1] += sentence
        room -= length
    return [passage.strip() for passage in passages]
