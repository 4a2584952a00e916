"""Meanings at random: deterministic, distinct, and split so that no split knows another's.

A meaning belongs to the split that its own hash says, so two streams of different splits never
meet, whatever their seeds and sizes.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import no_type_check

from polylect.did_you_mean import did_you_mean
from polylect.tongues.concepts import (
    ADJECTIVES,
    ANIMATE,
    DETERMINERS,
    KINDS,
    RELATIONS,
    TENSES,
    TIMES,
    VERBS,
)
from polylect.tongues.grammar import Meaning, NounPhrase, Place, Relative

# Per cent of all meanings; the rest is for training.
_HELD_OUT = {"test": 5, "dev": 5}
SPLITS = ("train", "dev", "test")

_PLACES = tuple(noun for noun, kind in KINDS.items() if kind == "place")
_PERSONS = tuple(noun for noun, kind in KINDS.items() if kind == "person")
_ADJECTIVES_OF = {
    kind: tuple(name for name, kinds in ADJECTIVES.items() if kind in kinds)
    for kind in sorted(set(KINDS.values()))
}
_AGENTS = {verb: tuple(sorted(frame.agents)) for verb, frame in VERBS.items()}
_PATIENTS = {verb: tuple(sorted(frame.patients)) for verb, frame in VERBS.items()}
_VERB_NAMES = tuple(VERBS)
_TIMES_OF = {tense: tuple(t for t, tenses in TIMES.items() if tense in tenses) for tense in TENSES}
# What can be said of a noun in a relative clause, and by whom.
_DONE_TO = {
    noun: tuple(v for v, f in VERBS.items() if noun in f.patients and not f.recipient)
    for noun in KINDS
    if noun not in ANIMATE
}
_DONE_BY = {
    noun: tuple(
        verb
        for verb, frame in VERBS.items()
        if noun in frame.agents and not frame.recipient and not frame.patients & ANIMATE
    )
    for noun in sorted(ANIMATE)
}

# (determiner, plural), as often as they stand here.
_DEFINITE = (
    *(("the", False), ("the", True)) * 2,
    *((det, plural) for det in ("this", "my", "our") for plural in (False, True)),
)
_INDEFINITE = (
    *(("a", False), ("every", False)) * 2,
    *((det, True) for det, (plural, singular) in DETERMINERS.items() if not singular),
)
# How often a noun has an adjective: the kinds that are rarely spoken of more often, so that no
# adjective is rare.
_MODIFIED = {"person": 0.2, "animal": 0.35, "food": 0.5, "text": 0.7, "thing": 0.5, "place": 0.2}
_PLACE_DETERMINERS = (("the", False), ("the", True), ("this", False), ("our", False))


@no_type_check
def _pick(rng: random.Random, items: Sequence):
    # random() is the one method whose numbers Python promises to keep.
    return items[int(rng.random() * len(items))]


def _adjective(rng: random.Random, noun: str) -> str | None:
    kind = KINDS[noun]
    return _pick(rng, _ADJECTIVES_OF[kind]) if rng.random() < _MODIFIED[kind] else None


def _phrase(
    rng: random.Random, noun: str, definite: bool = False, related: float = 0.0
) -> NounPhrase:
    """Draw a phrase with that noun; `related` is the probability of a relative clause."""
    if rng.random() < related:
        plural = rng.random() < 0.5
        return NounPhrase(noun, "the", plural, _adjective(rng, noun), _relative(rng, noun))
    det, plural = _pick(rng, _DEFINITE if definite or rng.random() < 0.4 else _INDEFINITE)
    return NounPhrase(noun, det, plural, _adjective(rng, noun))


def _simple_phrase(rng: random.Random, noun: str) -> NounPhrase:
    """Draw a phrase without an adjective, as relative clauses are long enough."""
    return NounPhrase(noun, *_pick(rng, _DEFINITE if rng.random() < 0.5 else _INDEFINITE))


def _place(rng: random.Random, definite: bool) -> Place:
    determiners = _PLACE_DETERMINERS
    if not definite and rng.random() < 0.3:
        determiners = (("a", False), ("every", False))
    det, plural = _pick(rng, determiners)
    noun = _pick(rng, _PLACES)
    return Place(_pick(rng, RELATIONS), NounPhrase(noun, det, plural, _adjective(rng, noun)))


def _other(rng: random.Random, nouns: Sequence[str], *excluded: str | None) -> str:
    while (noun := _pick(rng, nouns)) in excluded:
        pass
    return noun


def _relative(rng: random.Random, head: str) -> Relative:
    """Draw a clause about the noun: what it does, or, of a thing, what is done to it."""
    tense = _pick(rng, TENSES)
    if head not in ANIMATE:
        verb = _pick(rng, _DONE_TO[head])
        return Relative(verb, tense, subject=_simple_phrase(rng, _pick(rng, _AGENTS[verb])))
    verb = _pick(rng, _DONE_BY[head])
    if _PATIENTS[verb]:
        return Relative(verb, tense, object=_simple_phrase(rng, _pick(rng, _PATIENTS[verb])))
    return Relative(verb, tense, place=_place(rng, False) if rng.random() < 0.6 else None)


def _repeated_phrase(phrase: NounPhrase) -> NounPhrase:
    """Return the phrase as it is when its noun is mentioned again: the man, the men."""
    det = phrase.det if phrase.det in ("my", "our") else "the"
    return NounPhrase(phrase.noun, det, phrase.plural)


def _object(
    rng: random.Random,
    verb: str,
    subject: NounPhrase,
    cast: Sequence[NounPhrase],
    negated: bool,
) -> NounPhrase | None:
    if not _PATIENTS[verb]:
        return None
    candidates = [p for p in cast if p.noun in VERBS[verb].patients and p.noun != subject.noun]
    if candidates and rng.random() < 0.8:
        return _repeated_phrase(_pick(rng, candidates))
    related = 0.0 if subject.relative or VERBS[verb].recipient else 0.2
    return _phrase(rng, _other(rng, _PATIENTS[verb], subject.noun), negated, related)


def _time(rng: random.Random, tense: str, negated: bool, last_is_clause: bool) -> str | None:
    time = _pick(rng, _TIMES_OF[tense]) if rng.random() < 0.45 else None
    # "Often not" and "not often" would be two meanings; and where the time ends the sentence it
    # would seem to belong to a clause before it.
    return None if last_is_clause or (negated and time in ("every_day", "often")) else time


def sample(rng: random.Random, cast: Sequence[NounPhrase] = ()) -> Meaning:
    """Return one meaning of any split. `cast`: phrases of the sentence before,
    one of which is its subject, and another, where the verb allows it, mostly its object.
    """
    actors = [phrase for phrase in cast if phrase.noun in ANIMATE]
    actor = _repeated_phrase(_pick(rng, actors)) if actors else None
    verb = _pick(rng, _VERB_NAMES)
    while actor and actor.noun not in VERBS[verb].agents:
        verb = _pick(rng, _VERB_NAMES)
    tense = _pick(rng, TENSES)
    negated, question = rng.random() < 0.2, rng.random() < 0.18
    # Negated sentences are definite ("not a man", "not every man" would need other words), and
    # no question has a relative clause at its subject, which Hindi would have to put first.
    related = 0.0 if question else 0.18
    subject = actor or _phrase(rng, _pick(rng, _AGENTS[verb]), negated, related)
    object_ = _object(rng, verb, subject, cast, negated)
    clause = subject.relative or (object_ and object_.relative)
    recipient = place = None
    if VERBS[verb].recipient:
        recipient = _phrase(rng, _other(rng, _PERSONS, subject.noun), negated)
    elif not clause and rng.random() < (0.45 if object_ else 0.7):
        place = _place(rng, negated)
    time = _time(rng, tense, negated, question and bool(clause))
    if not (object_ or clause or place or time):
        place = _place(rng, negated)
    return Meaning(subject, verb, tense, object_, recipient, place, time, negated, question)


def split_of(meaning: Meaning) -> str:
    """Return the split a meaning belongs to: 90 per cent "train", 5 "dev", 5 "test"."""
    digest = hashlib.blake2b(str(meaning).encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "big") % 100
    for split, share in _HELD_OUT.items():
        if number < share:
            return split
        number -= share
    return "train"


def check_request(split: str, size: int) -> None:
    """Raises ValueError for an unknown split or a negative size."""
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; {did_you_mean(split, SPLITS)}")
    if size < 0:
        raise ValueError(f"The number of sentences must not be negative, but is {size}.")


def stream(split: str, seed: int, salt: str = "") -> Iterator[Meaning]:
    """Yield endless distinct meanings of a split; another salt gives another stream."""
    rng = random.Random(f"meanings:{salt}:{seed}")
    seen = set()
    while True:
        meaning = sample(rng)
        if split_of(meaning) == split and meaning not in seen:
            seen.add(meaning)
            yield meaning


def story_stream(split: str, seed: int, sentences: int, salt: str) -> Iterator[tuple[Meaning, ...]]:
    """Yield endless distinct stories: after the first sentence,
    who was spoken of is spoken of again.
    """
    rng = random.Random(f"stories:{salt}:{seed}")
    seen = set()
    while True:
        story: list[Meaning] = []
        while len(story) < sentences:
            last = story[-1] if story else None
            cast = [p for p in (last.subject, last.object, last.recipient) if p] if last else []
            meaning = sample(rng, cast)
            if split_of(meaning) == split and meaning not in story:
                story.append(meaning)
        if tuple(story) not in seen:
            seen.add(tuple(story))
            yield tuple(story)


def retelling_stream(split: str, seed: int, salt: str) -> Iterator[tuple[Meaning, Meaning]]:
    """Yield endless distinct pairs of meanings that tell of the same, but in two tenses."""
    rng = random.Random(f"retellings:{salt}:{seed}")
    for first in stream(split, seed, f"retellings:{salt}"):
        tense = _other(rng, TENSES, first.tense)
        time = _pick(rng, _TIMES_OF[tense]) if first.time else None
        second = replace(first, tense=tense, time=time)
        if split_of(second) == split and (second.time is None or second.time != first.time):
            yield first, second
