"""Numbers and placeholders that a translation must keep, and loops it must not fall into."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

# A comma, a point, an apostrophe or a space between digits may belong to the number: European,
# Swiss, Indian ("1,87,500") and Arabic (U+066B, U+066C) writing. A space only joins groups of
# three ("187 500"), since other numbers may simply stand side by side.
_NUMBER = re.compile(r"\d+(?:(?:[.,'’٫٬]\d+)|(?:[ \u00a0\u2009\u202f]\d{3}(?!\d)))*")
_SEPARATOR = re.compile(r"[^\d]")

_PLACEHOLDER = re.compile(
    r"""
    \$?\{[^{}\s]*\}                                    # {0}  {name}  {}  ${path}
    | (?<!\d)%(?:\(\w+\))?(?:\d+\$)?[-+0\#]*\d*(?:\.\d+)?[sdifgxXeEcru@](?![A-Za-z])
                                                       # %s  %d  %(name)s  %1$s  %.2f
    | </?(?:[A-Za-z][^<>]*|\d+)>                       # <b>  </b>  <br/>  <a href="...">  <0>
    """,
    re.VERBOSE,
)

# One block over and over: 12 characters or more that are at least four copies, or three copies of
# a phrase. 200 characters are a long sentence.
_LOOP = re.compile(r"(.)\1{11}|(..)\2{5}|(.{3,200}?)\3{3}|(.{15,200}?)\4{2}")
_SIGNS = re.compile(r"([^\w\s])(?:\s*\1){11}")


def numbers_lost(source: str, hypothesis: str, references: Sequence[str] = ()) -> list[str]:
    """Return the numbers of the source, as written there but in ASCII digits,
    that the hypothesis lacks.

    Digits of all scripts count as the same, and so do all ways to group them: "1,87,500",
    "187 500" and "१८७५००" are one number, and "1.5" and "1,5" another. Where an ambiguous writing
    can be read in two ways, either will do. A number that a reference also leaves out (because it
    is in words, say) need not be kept.
    """
    values_by_text = [
        {value for number in _numbers(text) for way in _readings(number) for value in way}
        for text in (hypothesis, *references)
    ]

    def is_in(number: str, values: set[str]) -> bool:
        return any(values.issuperset(way) for way in _readings(number))

    return [
        number
        for number in _numbers(source)
        if not is_in(number, values_by_text[0])
        and all(is_in(number, values) for values in values_by_text[1:])
    ]


def numbers_expected(source: str, references: Sequence[str] = ()) -> bool:
    """Return whether there is a number that a translation should keep."""
    return bool(numbers_lost(source, "", references))


def placeholders_lost(source: str, hypothesis: str, references: Sequence[str] = ()) -> list[str]:
    """Return the placeholders and tags of the source
    that the hypothesis has less often, or not at all.

    Format fields ("{0}", "%s", "${path}") and markup tags ("<b>"), sorted. As with numbers, what a
    reference leaves out need not be kept.
    """
    expected = Counter(_PLACEHOLDER.findall(source))
    for reference in references:
        expected &= Counter(_PLACEHOLDER.findall(reference))
    return sorted((expected - Counter(_PLACEHOLDER.findall(hypothesis))).elements())


def loops(text: str) -> bool:
    """Return whether the text is stuck: one block again and again, with nothing in between.

    Either four times in a row over at least 12 characters ("No, no, no, no"), or three times if
    the block has 15 characters or more (a phrase). Case and punctuation may vary.
    A row of 12 equal signs is a loop as well.
    """
    # The space at the end completes the last copy of a block of words.
    return bool(_LOOP.search(words(text) + " ") or _SIGNS.search(text))


def words(text: str) -> str:
    """Return the letters, marks and digits in lower case, with one space between words."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    spaced = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in folded)
    return " ".join(spaced.split())


def _numbers(text: str) -> list[str]:
    return _NUMBER.findall("".join(_ascii_digit(char) for char in text))


def _ascii_digit(char: str) -> str:
    return char if char < "\x80" else str(unicodedata.decimal(char, char))


def _readings(number: str) -> list[tuple[str, ...]]:
    """Return the readings of a number: one number, one with decimals, or several numbers.

    "1,234.50" -> ("1234.5",), ("1", "234", "50");  "12.05.2020" -> ("12", "5", "2020")
    """
    groups = _SEPARATOR.split(number)
    separators = _SEPARATOR.findall(number)
    ways = [tuple(_normalise_digits(group) for group in groups)]
    if _is_grouping(groups, separators):
        ways.append((_normalise_digits("".join(groups)),))
    elif separators and separators[-1] in ".,٫" and separators[-1] not in separators[:-1]:
        *whole, fraction = groups
        if len(whole) == 1 or _is_grouping(whole, separators[:-1]):
            ways.append(
                (f"{_normalise_digits(''.join(whole))}.{fraction}".rstrip("0").rstrip("."),)
            )
    return ways


def _is_grouping(groups: Sequence[str], separators: Sequence[str]) -> bool:
    """Say whether groups are thousands: one kind of separator, 3 digits last, 2 or 3 before."""
    return (
        len(groups) > 1
        and all(one == other for one, other in pairwise(separators))
        and len(groups[0]) <= 3
        and len(groups[-1]) == 3
        and all(len(group) in (2, 3) for group in groups[1:-1])
    )


def _normalise_digits(digits: str) -> str:
    return digits.lstrip("0") or "0"
