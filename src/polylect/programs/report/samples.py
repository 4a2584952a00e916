"""Translations of the same lines side by side, with what differs from the reference marked."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

import regex

from polylect.data.languages import language, split_direction
from polylect.programs.report.blocks import Block, Heading, Missing, Passage, Sample, Section, Text
from polylect.programs.report.scores import UNREADABLE, Scored
from polylect.run.results.comparison import System, all_runs
from polylect.run.results.scored_run import comparable_directions, pairs_of, references_of

_UNSPACED = {"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"}


def samples_section(scored: Scored, count: int, packages: Sequence[str]) -> Section:
    """Return lines of each set in each direction, with what every system made of them.

    Args:
        count: of lines of each direction, evenly spaced over the test set.
    """
    section = Section("Translations side by side")
    if not scored.sets:
        section.blocks.append(Missing("No run has translations."))
        return section
    section.blocks.append(
        Text(
            "Lines evenly spaced over the test set, chosen by their number alone. Marked in a "
            "translation is what the reference does not have, in the reference what at least one "
            "translation lacks. Of a system with several runs the first one speaks."
        )
    )
    for number, systems in enumerate(scored.sets, 1):
        of_set = f" (set {number})" if len(scored.sets) > 1 else ""
        try:
            section.blocks += _of_set(systems, count, packages, of_set)
        except UNREADABLE as error:
            section.blocks.append(Missing(f"No translations{of_set} beside their sources: {error}"))
    return section


def _of_set(
    systems: Sequence[System], count: int, packages: Sequence[str], of_set: str
) -> Iterator[Block]:
    runs = all_runs(systems)
    directions = comparable_directions(runs)
    pairs = pairs_of(runs, directions, packages)
    outputs = {
        (system.name, direction): system.runs[0].hypotheses(direction)
        for system in systems
        for direction in directions
    }
    for direction in directions:
        yield Heading(f"{direction}{of_set}")
        for line in spaced(len(pairs[direction]), count):
            pair = pairs[direction][line]
            made = {system.name: outputs[system.name, direction][line] for system in systems}
            yield _sample(direction, line, pair.source or "", references_of([pair])[0], made)


def spaced(length: int, count: int) -> list[int]:
    """Return so many of the numbers below `length`, at equal distances; all if there are fewer."""
    count = min(length, count)
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]


def _sample(
    direction: str, line: int, source: str, references: Sequence[str], made: dict[str, str]
) -> Sample:
    from_language, to_language = split_direction(direction)
    compared = [
        (name, _nearest(text, references, to_language), text) for name, text in made.items()
    ]
    passages = [("source", Passage(from_language, [(source, False)]))]
    for reference in references:
        texts = [text for _, nearest, text in compared if nearest == reference]
        pieces = _common_marks([differences(reference, text, to_language) for text in texts])
        passages.append(("reference", Passage(to_language, pieces or [(reference, False)])))
    for name, reference, text in compared:
        passages.append((name, Passage(to_language, differences(text, reference, to_language))))
    return Sample(f"line {line + 1}", passages)


def _nearest(text: str, references: Sequence[str], code: str) -> str:
    own = _words(text, code)
    return max(
        references,
        key=lambda r: SequenceMatcher(None, own, _words(r, code), autojunk=False).ratio(),
    )


def differences(text: str, other: str, code: str) -> list[tuple[str, bool]]:
    """Return the text in pieces, each with whether the other text lacks it there.

    Pieces are runs of words; of characters as readers see them in scripts without spaces.
    """
    words, others = _words(text, code), _words(other, code)
    matcher = SequenceMatcher(None, _bare(words), _bare(others), autojunk=False)
    is_common = [False] * len(words)
    for block in matcher.get_matching_blocks():
        for i in range(block.a, block.a + block.size):
            is_common[i] = True
    return _joined([(word, not common) for word, common in zip(words, is_common, strict=True)])


def _words(text: str, code: str) -> list[str]:
    """Return pieces that make up the text: words, each with the space before it, or characters."""
    if _UNSPACED & set(language(code).scripts):
        return regex.findall(r"\X", text)
    return re.findall(r"\s*\S+|\s+", text)


def _bare(words: Sequence[str]) -> list[str]:
    return [word.strip() for word in words]


def _common_marks(of_each: Sequence[Sequence[tuple[str, bool]]]) -> list[tuple[str, bool]]:
    """Return a text of which each entry has its own marks, with all of them."""
    letters = ["".join(text for text, _ in pieces) for pieces in of_each]
    marks = [[is_marked for text, is_marked in pieces for _ in text] for pieces in of_each]
    if not letters:
        return []
    merged = [any(own) for own in zip(*marks, strict=True)]
    return _joined(list(zip(letters[0], merged, strict=True)))


def _joined(pieces: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Return neighbours with the same mark as one; the space before a mark stays outside of it."""
    joined: list[tuple[str, bool]] = []
    for text, is_marked in pieces:
        is_first = is_marked and not (joined and joined[-1][1])
        inner = text.lstrip() if is_first else text
        for part, mark in ((text[: len(text) - len(inner)], False), (inner, is_marked)):
            if part and joined and joined[-1][1] == mark:
                joined[-1] = (joined[-1][0] + part, mark)
            elif part:
                joined.append((part, mark))
    return joined
