"""Names of columns and fields that say which side of a direction they hold.

A side is named by the code of its language (of the corpus, of ISO 639-1, 639-2 or 639-3, with or
without a script or region), by its English name, or by its role: "en", "en-US", "eng_Latn",
"English", "source", "src". Words such as "text" and "sentence" beside the name do not matter.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from polylect.data.languages import (
    CHINESE_SCRIPTS,
    LANGUAGES,
    SCRIPT_CODES,
    find_language,
    language,
)

_ROLES = {"source": {"source", "src"}, "target": {"target", "tgt", "trg"}}
_BESIDE = {"text", "sentence", "sent", "segment", "translation"}
_CODE, _LANGUAGE, _ROLE = 3, 2, 1  # the better the name, the higher


@dataclass(frozen=True)
class SideNames:
    """The names by which the sides of a direction are found.

    Attributes:
        codes: by side ("source", "target") the language's code.
        corpus_codes: the same as the corpus calls them.
    """

    codes: Mapping[str, str]
    corpus_codes: Mapping[str, str]

    def best(self, side: str, names: Sequence[str]) -> int | None:
        """Return the position of the name that names the side best, the first of equal ones."""
        ranks = [self._rank(name, side) for name in names]
        return ranks.index(max(ranks)) if any(ranks) else None

    def header(self, cells: Sequence[str]) -> dict[str, int]:
        """Return the column of each side if the cells are a header
        that names them all, else nothing.

        A line with a number in it is no header.
        """
        best = {side: self.best(side, cells) for side in self.codes}
        columns = {side: column for side, column in best.items() if column is not None}
        is_header = len(set(columns.values())) == len(self.codes)
        return columns if is_header and not any(map(_is_number, cells)) else {}

    def lacks_a_side(self, cells: Sequence[str]) -> bool:
        """Return whether the cells are a header that names the language of one side and, where the
        other one would be, another language: "en" and "de" do for the direction en-fr.
        """
        named = {
            side: column
            for side in self.codes
            if (column := self.best(side, cells)) is not None
            and self._rank(cells[column], side) > _ROLE
        }
        if len(named) != 1 or len(self.codes) < 2 or any(map(_is_number, cells)):
            return False
        found = {find_language(" ".join(_words(cell))) for cell in cells}
        return bool(found - {None, *(self.codes[side] for side in named)})

    def _rank(self, name: str, side: str) -> int:
        if _words(name, beside=True) == _words(self.corpus_codes[side], beside=True):
            return _CODE
        words = " ".join(_words(name))
        if self._patterns[side].fullmatch(words):
            return _LANGUAGE
        alone = len(self.codes) == 1 and name.strip().casefold() in _BESIDE
        return _ROLE if words in _ROLES[side] or alone else 0

    @cached_property
    def _patterns(self) -> dict[str, re.Pattern[str]]:
        return {side: _pattern(code) for side, code in self.codes.items()}


def _pattern(code: str) -> re.Pattern[str]:
    """Return the pattern that matches the words of a name of the language, if all of them fit."""
    base, _, suffix = code.partition("_")
    name, entry = language(code).name, LANGUAGES.get(base)
    short = {base, *(entry.also if entry else ()), " ".join(_words(entry.name if entry else name))}
    regions = [r for r, script in CHINESE_SCRIPTS.items() if base == "zh" and script == suffix]
    variant = "|".join([suffix, *regions]).casefold() if suffix else "[a-z]{4}|[a-z]{2}"
    if suffix in SCRIPT_CODES:
        variant += f"|{suffix.casefold()} [a-z]{{2}}"  # zh-Hans-CN
    names = "|".join(map(re.escape, short))
    return re.compile(f"({names})( ({variant}))?|{re.escape(' '.join(_words(name)))}")


def _words(name: str, beside: bool = False) -> list[str]:
    words = re.split(r"[\W_]+", name.casefold())
    return [word for word in words if word and (beside or word not in _BESIDE)]


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?\d[\d.,:/-]*\s*", cell) is not None
