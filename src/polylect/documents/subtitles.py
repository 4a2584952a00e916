"""SRT: the text of each subtitle, however its lines are divided; numbers and times stay."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from polylect.documents.document import Document, lines_of

_TIMES = re.compile(r"\s*\d+:\d\d:\d\d[,.]\d+\s*-->\s*\d+:\d\d:\d\d[,.]\d+")
_NUMBER = re.compile(r"\s*\d+\s*")
_SPEAKER = re.compile(r"\s*[-–—‐]\s*(?=\S)")
"""The dash before what another person says."""


def read_subtitles(content: str, **_: object) -> Document:
    """Read SRT: what one person says in a subtitle is one text, in as many lines again afterwards.

    Empty lines within a subtitle, and none between two, are taken as they are meant.

    Raises:
        ValueError: there are no times in it.
    """
    lines, ends = lines_of(content)
    if content.strip() and not any(map(_TIMES.match, lines)):
        raise ValueError("no line of the file gives times, as 00:00:01,000 --> 00:00:02,500 does.")
    parts = list(_parts(lines))
    texts = [" ".join(_said(lines[n]) for n in part) for part in parts]

    def write(translations: Sequence[str]) -> str:
        new: dict[int, str] = {}
        for part, text in zip(parts, translations, strict=True):
            dash = _SPEAKER.match(lines[part[0]])
            cut = _in_lines(text, len(part))
            cut[0] = f"{dash[0] if dash else ''}{cut[0]}"
            new |= dict.fromkeys(part, "") | dict(zip(part, cut, strict=False))
        written: list[list[str]] = []
        for number, (line, end) in enumerate(zip(lines, ends, strict=True)):
            if new.get(number, line) or number not in new:
                written.append([new.get(number, line), end])
            else:  # one line less: the last of the file still ends as it did
                written[-1][1] = end
        return "".join(line + end for line, end in written)

    return Document(texts, write)


def _parts(lines: Sequence[str]) -> Iterator[list[int]]:
    """Yield the numbers of the lines of each text: a subtitle's, or what one in it says."""
    times = [number for number, line in enumerate(lines) if _TIMES.match(line)]
    are_numbered = bool(times) and _before(lines, times[0]) < times[0]
    for begin, following in pairwise([*times, None]):
        end = len(lines) if following is None else following
        if following is not None and are_numbered:
            end = _before(lines, following)
        part: list[int] = []
        for number in range(begin + 1, end):
            if _SPEAKER.match(lines[number]) and part:
                yield part
                part = []
            if lines[number].strip():
                part.append(number)
        if part:
            yield part


def _before(lines: Sequence[str], times: int) -> int:
    """Return the line of the number of a subtitle with these times; its times, if it has none."""
    number = times - 1
    while number > 0 and not lines[number].strip():
        number -= 1
    return number if number >= 0 and _NUMBER.fullmatch(lines[number]) else times


def _said(line: str) -> str:
    dash = _SPEAKER.match(line)
    return line[dash.end() if dash else 0 :].strip()


def _in_lines(text: str, count: int) -> list[str]:
    """Cut a text at spaces into at most so many lines of similar length."""
    words, lines = text.split(" "), []
    for left in range(count, 1, -1):
        share, line = len(" ".join(words)) / left, []
        while len(words) > 1 and (not line or len(" ".join([*line, words[0]])) <= share + 3):
            line.append(words.pop(0))
        if line:
            lines.append(" ".join(line))
    return [*lines, " ".join(words)]
