"""Filters of training pairs: tests on one pair, and on what was seen elsewhere."""

import unicodedata
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from polylect.data.languages import UNSPACED, language, script_share, split_direction
from polylect.data.store import Pair
from polylect.did_you_mean import check_known

# name: (default, what its value must be, the test of it). False or None switches a filter off.
# In this order a pair meets the filters; it is counted by the first that drops it.
FILTERS: dict[str, tuple[Any, str, Callable[[Any], bool]]] = {
    "empty": (True, "true or false", lambda v: v is True),
    "max_characters": (None, "a whole number above 0", lambda v: type(v) is int and v > 0),
    "max_words": (None, "a whole number above 0", lambda v: type(v) is int and v > 0),
    "length_ratio": (None, "a number of at least 1", lambda v: type(v) in (int, float) and v >= 1),
    "script": (
        None,
        "a share above 0, at most 1",
        lambda v: type(v) in (int, float) and 0 < v <= 1,
    ),
    "identical": (False, "true or false", lambda v: v is True),
    "overlap": (True, "true or false", lambda v: v is True),
    "ngrams": (None, "a whole number above 1", lambda v: type(v) is int and v > 1),
    "duplicate": (False, "true or false", lambda v: v is True),
}


SCORED = {"overlap", "ngrams"}
"""Filters that look at dev and test texts."""


def check_filters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters that are on, with their values, in order.

    Raises:
        ValueError: a filter that does not exist, or a value that it cannot have.
    """
    for name, value in settings.items():
        check_known("filters", name, FILTERS)
        _, wanted, is_right = FILTERS[name]
        if value is not None and value is not False and not is_right(value):
            raise ValueError(f"filters.{name} must be {wanted}, or false for off; got {value!r}")
    values = {name: settings.get(name, default) for name, (default, _, _) in FILTERS.items()}
    return {name: value for name, value in values.items() if value not in (None, False)}


class HashSet:
    """A set of 64-bit hashes with open addressing: 16 to 32 bytes each, a Python set takes 100."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: int) -> bool:
        return self._slots[self._find(key)] != 0

    def add(self, key: int) -> bool:
        """Put the hash in; True if it was not there."""
        slot = self._find(key)
        if self._slots[slot]:
            return False
        self._slots[slot] = key or 1
        self._count += 1
        if 2 * self._count > len(self._slots):
            self._grow()
        return True

    def _find(self, key: int) -> int:
        """Return the slot of the hash, or the free one where it would go. 0 marks free slots."""
        slots, mask, key = self._slots, len(self._slots) - 1, key or 1
        slot = key & mask
        while slots[slot] and slots[slot] != key:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        full = self._slots
        self._slots = array("Q", bytes(16 * len(full)))
        for key in full:
            if key:
                self._slots[self._find(key)] = key


class _Ignored(dict[int, int | str | None]):
    """A table for `str.translate` that has `instead` for all but letters, marks and numbers."""

    def __init__(self, instead: str | None) -> None:
        self.instead = instead

    def __missing__(self, code: int) -> int | str | None:
        # `\W` of re would not do: to it the vowel signs of Indic scripts are no word characters.
        is_kept = unicodedata.category(chr(code))[0] in "LMN"
        self[code] = code if is_kept else self.instead
        return self[code]


_IGNORED, _PARTED = _Ignored(None), _Ignored(" ")
_MASK = 2**64 - 1


def normalise(text: str) -> str:
    """Return the text without case, punctuation and white space, to compare it with others."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_IGNORED) or text


def text_hash(code: str, text: str) -> int:
    """Return a 64-bit hash of a normalised text in a language, whatever region and script.

    It differs from process to process, as Python's hash does; only whether two are equal counts.
    """
    return hash((code.partition("_")[0], normalise(text))) & _MASK


def ngram_hashes(code: str, text: str, size: int) -> Iterator[int]:
    """Yield a hash for each run of `size` words of a text, case and punctuation aside.

    In scripts without spaces between words, characters take their place. A shorter text has one,
    for all of it. Hashes are as those of `text_hash`.
    """
    base = code.partition("_")[0]
    folded = unicodedata.normalize("NFKC", text).casefold().translate(_PARTED)
    scripts = language(code).scripts
    words = "".join(folded.split()) if UNSPACED.intersection(scripts) else folded.split()
    for start in range(max(1, len(words) - size + 1)):
        yield hash((base, *words[start : start + size]))


def sides(direction: str, source: str | None, target: str) -> Iterator[tuple[str, str]]:
    """Yield language and text of each side of a pair."""
    source_code, target_code = split_direction(direction)
    if source_code and source is not None:
        yield source_code, source
    yield target_code, target


def hold_out(pairs: Iterable[Pair], direction: str, held_out: HashSet) -> None:
    """Put every side and reference of dev or test pairs into the set for the filter "overlap"."""
    source_code, target_code = split_direction(direction)
    for pair in pairs:
        for text in (pair.target, *pair.references):
            held_out.add(text_hash(target_code, text))
        if source_code and pair.source is not None:
            held_out.add(text_hash(source_code, pair.source))


def held_out_ngrams(direction: str, pair: Pair, size: int) -> Iterator[int]:
    """Yield the hashes of sides and references of a dev or test pair for the filter "ngrams"."""
    for target in (pair.target, *pair.references):
        for code, text in sides(direction, pair.source, target):
            yield from ngram_hashes(code, text, size)


class PairFilter:
    """The filters that are on, for the pairs of one direction.

    - empty: a side without text
    - max_characters, max_words: a side longer than this (words are separated by white space)
    - length_ratio: the longer side has more than this times the characters of the shorter one
    - script: a side with a smaller share of its letters in the scripts of its language
    - identical: both sides are the same text
    - overlap: a side equals, case and punctuation aside, a dev or test text in that language,
      of any direction
    - ngrams: a side has a run of so many words in common with a dev or test text in that language
    - duplicate: the pair was there before, case and punctuation aside

    Args:
        settings: as `check_filters` gives them.
        held_out: hashes of all dev and test texts, from `hold_out`.
        ngrams: of them, from `ngram_hashes`.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        direction: str,
        held_out: HashSet,
        ngrams: Collection[int] = frozenset(),
    ) -> None:
        self._direction, self._held_out_ngrams = direction, ngrams
        self._source, self._target = split_direction(direction)
        self._source_scripts = language(self._source).scripts if self._source else ()
        self._target_scripts = language(self._target).scripts
        self._held_out = held_out
        self._seen = HashSet()
        self._tests = [(name, getattr(self, f"_{name}"), settings[name]) for name in settings]
        self._hashes: tuple[int, int] | None = None

    def reason(self, source: str | None, target: str) -> str | None:
        """Return the name of the first filter that drops the pair; None if it is kept."""
        self._hashes = None
        for name, drops, limit in self._tests:
            if drops(source, target, limit):
                return name
        return None

    def _hashes_of(self, source: str | None, target: str) -> tuple[int, int]:
        """Return the hashes of both sides of the pair, made once; 0 for a side that is missing."""
        if self._hashes is None:
            first = text_hash(self._source, source) if self._source and source is not None else 0
            self._hashes = (first, text_hash(self._target, target))
        return self._hashes

    def _empty(self, source: str | None, target: str, _: bool) -> bool:
        return source == "" or target == ""

    def _max_characters(self, source: str | None, target: str, limit: int) -> bool:
        return max(len(source or ""), len(target)) > limit

    def _max_words(self, source: str | None, target: str, limit: int) -> bool:
        return max(len((source or "").split()), len(target.split())) > limit

    def _length_ratio(self, source: str | None, target: str, limit: float | int) -> bool:
        if source is None:
            return False
        return max(len(source), len(target)) > limit * min(len(source), len(target))

    def _script(self, source: str | None, target: str, limit: float | int) -> bool:
        if script_share(target, self._target_scripts) < limit:
            return True
        return source is not None and script_share(source, self._source_scripts) < limit

    def _identical(self, source: str | None, target: str, _: bool) -> bool:
        return source == target

    def _overlap(self, source: str | None, target: str, _: bool) -> bool:
        return any(side in self._held_out for side in self._hashes_of(source, target) if side)

    def _ngrams(self, source: str | None, target: str, size: int) -> bool:
        return any(
            key in self._held_out_ngrams
            for code, text in sides(self._direction, source, target)
            for key in ngram_hashes(code, text, size)
        )

    def _duplicate(self, source: str | None, target: str, _: bool) -> bool:
        return not self._seen.add(hash(self._hashes_of(source, target)) & _MASK)
