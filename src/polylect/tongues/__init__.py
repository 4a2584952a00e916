"""The embedded laboratory: parallel text in any amount from one small grammar of meaning.

Five readable fragments (English, German, French, Hindi, Tamil) and synthetic tongues with dials say
the same meanings. Meanings, not sentences, are split: what is said in test or dev is never said in
train, in any tongue.

    >>> meaning = meanings("train", 1)[0]
    >>> [render(meaning, code) for code in TONGUES]
    >>> parallel("en-de", "train", 1000)
"""

import inspect
from collections.abc import Mapping
from itertools import islice
from typing import Any

from polylect.did_you_mean import did_you_mean
from polylect.tongues import english, french, german, hindi, tamil
from polylect.tongues.grammar import Meaning, NounPhrase, Place, Relative, Tongue
from polylect.tongues.sampling import (
    SPLITS,
    check_request,
    retelling_stream,
    split_of,
    story_stream,
    stream,
)
from polylect.tongues.synthetic import SyntheticTongue, overlap

__all__ = [
    "SPLITS",
    "TONGUES",
    "Meaning",
    "NounPhrase",
    "Place",
    "Relative",
    "SyntheticTongue",
    "Tongue",
    "meanings",
    "monolingual",
    "overlap",
    "parallel",
    "render",
    "retellings",
    "split_of",
    "stories",
    "tongue",
]

TONGUES: dict[str, Tongue] = {
    fragment.TONGUE.code: fragment.TONGUE for fragment in (english, german, french, hindi, tamil)
}
# Code of a synthetic tongue: its dials, the keyword arguments of `SyntheticTongue` without `code`;
# `shared_with` is a code.
Synthetic = Mapping[str, Mapping[str, Any]]


def tongue(code: str, synthetic: Synthetic | None = None) -> Tongue | SyntheticTongue:
    """Return the tongue of a code: one of `TONGUES`, or one that `synthetic` describes.

    Raises ValueError for an unknown code or dial, and for tongues that share in a circle.
    """
    return _resolve(code, synthetic or {}, ())


def _resolve(code: str, synthetic: Synthetic, asking: tuple[str, ...]) -> Tongue | SyntheticTongue:
    if code not in synthetic:
        if code in TONGUES:
            return TONGUES[code]
        options = [*TONGUES, *synthetic]
        raise ValueError(f"Unknown tongue {code!r}; {did_you_mean(code, options)}")
    if code in asking:
        raise ValueError(f"Synthetic tongues share in a circle: {' -> '.join((*asking, code))}.")
    dials = dict(synthetic[code])
    names = set(inspect.signature(SyntheticTongue).parameters) - {"code"}
    for name in dials.keys() - names:
        raise ValueError(
            f"The tongue {code!r} has an unknown dial {name!r}; {did_you_mean(name, names)}"
        )
    other = dials.pop("shared_with", None)
    if other is not None:
        dials["shared_with"] = _resolve(other, synthetic, (*asking, code))
    return SyntheticTongue(code=code, **dials)


def render(meaning: Meaning, code: str) -> str:
    """Return the meaning as a sentence of one of `TONGUES`."""
    return tongue(code).render(meaning)


def meanings(split: str, size: int, seed: int = 0) -> list[Meaning]:
    """Return distinct meanings of a split ("train", "dev", "test").

    A longer list begins with the shorter.

    Raises ValueError for an unknown split or a negative size.
    """
    check_request(split, size)
    return list(islice(stream(split, seed), size))


def parallel(
    direction: str | tuple[str, str],
    split: str,
    size: int,
    seed: int = 0,
    synthetic: Synthetic | None = None,
) -> list[tuple[str, str]]:
    """Return (source, target) pairs. Every direction says the same meanings, in the same order.

    Args:
        direction: "en-de" or ("en", "de").
        split, size, seed: as in `meanings`.
        synthetic: dials of the synthetic tongues, as in `tongue`.

    Raises:
        ValueError: for an unknown tongue, split or dial.
    """
    codes = tuple(direction.split("-")) if isinstance(direction, str) else direction
    if len(codes) != 2:
        raise ValueError(f"A direction of parallel text is like 'en-de', not {direction!r}.")
    source, target = (tongue(code, synthetic) for code in codes)
    return [(source.render(m), target.render(m)) for m in meanings(split, size, seed)]


def monolingual(
    code: str, split: str, size: int, seed: int = 0, synthetic: Synthetic | None = None
) -> list[str]:
    """Return sentences of one tongue; each tongue says its own meanings, so no two are aligned.

    Raises ValueError as `parallel` does.
    """
    check_request(split, size)
    say = tongue(code, synthetic).render
    return [say(meaning) for meaning in islice(stream(split, seed, f"monolingual:{code}"), size)]


def stories(
    code: str,
    split: str,
    size: int,
    seed: int = 0,
    sentences: int = 3,
    synthetic: Synthetic | None = None,
) -> list[str]:
    """Return the texts of a few sentences which go on speaking of the same people and things.

    Raises ValueError as `parallel` does, and for a story without sentences.
    """
    check_request(split, size)
    if sentences < 1:
        raise ValueError(f"A story needs at least one sentence, not {sentences}.")
    say = tongue(code, synthetic).render
    sampled = islice(story_stream(split, seed, sentences, code), size)
    return [" ".join(say(meaning) for meaning in story) for story in sampled]


def retellings(
    codes: tuple[str, str],
    split: str,
    size: int,
    seed: int = 0,
    synthetic: Synthetic | None = None,
) -> list[str]:
    """Return the texts in two languages, now the one first, now the other: an event, told again in
    another tense. A model that reads them learns which words belong together and sees no
    translation.

    Raises ValueError as `parallel` does.
    """
    check_request(split, size)
    say = [tongue(code, synthetic).render for code in codes]
    pairs = islice(retelling_stream(split, seed, "-".join(codes)), size)
    return [
        f"{say[number % 2](first)} {say[1 - number % 2](second)}"
        for number, (first, second) in enumerate(pairs)
    ]
