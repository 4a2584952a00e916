"""Meanings: what the sentences of the embedded laboratory say, before any language says it.

A `Meaning` is one clause: who does what to whom, to whom it is given, where, when, with tense,
negation and the yes/no question; a noun phrase has a determiner, a number, perhaps an adjective
and perhaps a relative clause. Everything is named by English words that stand for concepts.
A meaning that violates the grammar cannot be built, so every tongue can say every meaning.

What is made by the million is marked `no_type_check`: it checks itself, and a run-time type checker
would take more time than all the rest.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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


@no_type_check
def _check_known(what: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        raise ValueError(f"Unknown {what} {name!r} in a meaning; {did_you_mean(name, names)}")


@no_type_check
@dataclass(frozen=True, slots=True)
class NounPhrase:
    """`det` [adjective] noun [relative]. Raises ValueError where the grammar has no such phrase."""

    noun: str
    det: str = "the"
    plural: bool = False
    adjective: str | None = None
    relative: "Relative | None" = None

    def __post_init__(self) -> None:
        _check_known("noun", self.noun, KINDS)
        _check_known("determiner", self.det, DETERMINERS)
        if not DETERMINERS[self.det][0 if self.plural else 1]:
            number = "plural" if self.plural else "singular"
            raise ValueError(f"The determiner {self.det!r} has no {number} ({self.noun!r}).")
        if self.adjective is not None:
            _check_known("adjective", self.adjective, ADJECTIVES)
        if self.relative is None:
            return
        if self.det != "the":
            raise ValueError(f"A relative clause needs the determiner 'the', not {self.det!r}.")
        self.relative.check(self.noun)

    def __str__(self) -> str:
        adjective = f" {self.adjective}" if self.adjective else ""
        relative = f" [{self.relative}]" if self.relative else ""
        return f"{self.det}{adjective} {self.noun}{'+' if self.plural else ''}{relative}"


@no_type_check
@dataclass(frozen=True, slots=True)
class Place:
    """Where: a relation ("in", "behind", "near", "in_front_of") and a noun phrase."""

    relation: str
    phrase: NounPhrase

    def __post_init__(self) -> None:
        _check_known("relation", self.relation, RELATIONS)
        if KINDS[self.phrase.noun] != "place":
            raise ValueError(f"{self.phrase.noun!r} is no place.")

    def __str__(self) -> str:
        return f"{self.relation} {self.phrase}"


@no_type_check
@dataclass(frozen=True, slots=True)
class Relative:
    """A relative clause; its head is the verb's subject, or its object if `subject` is given.

    Whatever the clause's verb is done to is inanimate: German does not tell "die Katze, die die
    Frau sieht" (the cat that sees the woman) from the cat that the woman sees.
    """

    verb: str
    tense: str
    subject: NounPhrase | None = None
    object: NounPhrase | None = None
    place: Place | None = None

    def check(self, head: str) -> None:
        """Raises ValueError if the clause cannot belong to the noun `head`."""
        _check_known("verb", self.verb, VERBS)
        _check_known("tense", self.tense, TENSES)
        agent = self.subject.noun if self.subject else head
        patient = head if self.subject else self.object.noun if self.object else None
        _check_frame(self.verb, agent, patient, None)
        if patient in ANIMATE:
            raise ValueError(f"The object in a relative clause must be inanimate, not {patient!r}.")

    def __str__(self) -> str:
        parts = (self.subject and f"that {self.subject}", self.tense, self.verb)
        return " ".join(str(part) for part in (*parts, self.object, self.place) if part)


@no_type_check
def _check_frame(verb: str, agent: str, patient: str | None, recipient: str | None) -> None:
    frame = VERBS[verb]
    if agent not in frame.agents:
        raise ValueError(f"{agent!r} cannot be the subject of {verb!r}.")
    if patient not in (frame.patients or {None}):
        raise ValueError(f"The verb {verb!r} does not go with the object {patient!r}.")
    if (recipient is not None) != frame.recipient:
        needs = "needs a" if frame.recipient else "takes no"
        raise ValueError(f"The verb {verb!r} {needs} recipient.")
    if recipient is not None and KINDS[recipient] != "person":
        raise ValueError(f"The recipient must be a person, not {recipient!r}.")


@no_type_check
@dataclass(frozen=True, slots=True)
class Meaning:
    """One sentence before it is said. `str(meaning)` is its stable text form.

    Raises ValueError for an unknown concept or for a combination outside the grammar.
    """

    subject: NounPhrase
    verb: str
    tense: str
    object: NounPhrase | None = None
    recipient: NounPhrase | None = None
    place: Place | None = None
    time: str | None = None
    negated: bool = False
    question: bool = False

    def __post_init__(self) -> None:
        _check_known("verb", self.verb, VERBS)
        _check_known("tense", self.tense, TENSES)
        patient = self.object.noun if self.object else None
        recipient = self.recipient.noun if self.recipient else None
        _check_frame(self.verb, self.subject.noun, patient, recipient)
        if self.time is not None:
            _check_known("time", self.time, TIMES)
            if self.tense not in TIMES[self.time]:
                raise ValueError(f"The time {self.time!r} does not go with the {self.tense} tense.")
        if self.object and self.object.relative and (self.place or self.recipient):
            raise ValueError("An object with a relative clause stands with no place or recipient.")

    def __str__(self) -> str:
        mood = ("question" if self.question else "statement") + (" not" if self.negated else "")
        text = f"{self.tense} {mood} | {self.subject} | {self.verb}"
        for name in ("object", "recipient", "place", "time"):
            value = getattr(self, name)
            if value is not None:
                text += f" | {name} {value}"
        return text


@dataclass(frozen=True)
class Tongue:
    """A language that can say every meaning; `lexicon` has the dictionary form of each concept."""

    code: str
    name: str
    script: str
    lexicon: Mapping[str, str]
    render: Callable[[Meaning], str]


def table(text: str) -> dict[str, list[str]]:
    """Reads a lexicon: on each line a concept and its forms, parted by blanks."""
    rows = (line.split() for line in text.strip().splitlines())
    return {concept: forms for concept, *forms in rows}


def sentence(parts: Iterable[str], end: str) -> str:
    """Joins the parts that are not empty, with a capital first letter."""
    text = " ".join(part for part in parts if part)
    return text[0].upper() + text[1:] + end
