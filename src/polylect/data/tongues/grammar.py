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

from polylect.hints import nearest

_NOUNS_BY_KIND = {
    "person": "man boy king prince farmer fisherman student friend thief merchant "
    "woman girl queen princess grandmother sister singer maid actress",
    "animal": "dog cat horse cow elephant monkey goat bird lion",
    "food": "banana orange egg carrot pear melon",
    "text": "book letter story poem",
    "thing": "box bag basket bottle key chair table ring hat umbrella rope boat door window "
    "bell doll",
    "place": "garden house school village city forest temple palace shop kitchen hospital",
    # Further tags, for verbs that are choosy.
    "opens": "box bag bottle umbrella door window",
    "breaks": "box bottle chair table door window bell doll",
    "moves": "box basket chair table boat door horse cow goat",
}

# Verb: who can do it | to what | and whether there is a receiver.
_VERB_FRAMES = {
    "sleep": "person animal | |",
    "sing": "person | |",
    "dance": "person | |",
    "laugh": "person | |",
    "cry": "person | |",
    "run": "person animal | |",
    "play": "person animal | |",
    "jump": "person animal | |",
    "smile": "person | |",
    "shout": "person | |",
    "see": "person animal | person animal food thing |",
    "seek": "person animal | person animal food thing text |",
    "buy": "person | animal food thing text |",
    "steal": "person animal | animal food thing text |",
    "hide": "person | food thing text |",
    "carry": "person animal | food thing |",
    "touch": "person animal | animal food thing |",
    "wash": "person | food thing |",
    "eat": "person | food |",
    "peel": "person | food |",
    "open": "person | opens |",
    "break": "person animal | breaks |",
    "push": "person animal | moves |",
    "pull": "person animal | moves |",
    "catch": "person animal | animal |",
    "call": "person | person animal |",
    "rescue": "person | person animal |",
    "wake": "person animal | person animal |",
    "write": "person | text |",
    "understand": "person | text |",
    "choose": "person | animal food thing text |",
    "lose": "person | animal food thing text |",
    "give": "person | food thing text | person",
    "show": "person | food thing text | person",
    "send": "person | food thing text | person",
    "sell": "person | food thing text | person",
}

_ADJECTIVE_KINDS = {
    "red": "thing",
    "white": "thing animal",
    "black": "thing animal",
    "green": "thing food",
    "blue": "thing",
    "yellow": "thing food",
    "big": "thing animal food place",
    "small": "thing animal food place",
    "new": "thing text place",
    "old": "thing text place",
    "beautiful": "animal thing text place",
    "heavy": "thing food",
    "clean": "thing place",
    "expensive": "thing food text",
    "long": "text",
    "good": "person food text",
    "brave": "person",
    "happy": "person",
    "rich": "person",
    "poor": "person",
    "lazy": "person animal",
    "strong": "person animal",
    "hungry": "person animal",
    "quiet": "place",
}


@dataclass(frozen=True)
class Frame:
    """What a verb takes: the nouns that can be its subject and its object (empty: intransitive)."""

    agents: frozenset[str]
    patients: frozenset[str]
    recipient: bool


def _nouns(kinds: str) -> frozenset[str]:
    return frozenset(noun for kind in kinds.split() for noun in _NOUNS_BY_KIND[kind].split())


def _frame(description: str) -> Frame:
    agents, patients, recipient = description.split("|")
    return Frame(_nouns(agents), _nouns(patients), bool(recipient.strip()))


KINDS = {
    noun: kind
    for kind in ("person", "animal", "food", "text", "thing", "place")
    for noun in _NOUNS_BY_KIND[kind].split()
}
NOUNS = tuple(KINDS)
ANIMATE = _nouns("person animal")
VERBS = {verb: _frame(description) for verb, description in _VERB_FRAMES.items()}
ADJECTIVES = {adjective: frozenset(kinds.split()) for adjective, kinds in _ADJECTIVE_KINDS.items()}
TENSES = ("past", "present", "future")
NUMERALS = ("two", "three", "four", "five", "six")
# Determiner: can it be plural, can it be singular.
DETERMINERS = {
    "the": (True, True),
    "this": (True, True),
    "my": (True, True),
    "our": (True, True),
    "a": (False, True),
    "every": (False, True),
    "some": (True, False),
    "many": (True, False),
    **dict.fromkeys(NUMERALS, (True, False)),
}
RELATIONS = ("in", "behind", "near", "in_front_of")
TIMES = {
    "yesterday": ("past",),
    "last_week": ("past",),
    "last_year": ("past",),
    "every_day": ("present",),
    "often": ("present",),
    "tomorrow": ("future",),
    "next_week": ("future",),
    "next_year": ("future",),
    "today": TENSES,
    "at_noon": TENSES,
    "in_the_evening": TENSES,
    "at_night": TENSES,
}
LEXEMES = (*NOUNS, *VERBS, *ADJECTIVES, *DETERMINERS, *RELATIONS, *TIMES)


@no_type_check
def _known(what: str, name: str, names: Iterable[str]) -> None:
    if name not in names:
        raise ValueError(f"Unknown {what} {name!r} in a meaning; {nearest(name, names)}")


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
        _known("noun", self.noun, KINDS)
        _known("determiner", self.det, DETERMINERS)
        if not DETERMINERS[self.det][0 if self.plural else 1]:
            number = "plural" if self.plural else "singular"
            raise ValueError(f"The determiner {self.det!r} has no {number} ({self.noun!r}).")
        if self.adjective is not None:
            _known("adjective", self.adjective, ADJECTIVES)
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
        _known("relation", self.relation, RELATIONS)
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
        _known("verb", self.verb, VERBS)
        _known("tense", self.tense, TENSES)
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
        _known("verb", self.verb, VERBS)
        _known("tense", self.tense, TENSES)
        patient = self.object.noun if self.object else None
        recipient = self.recipient.noun if self.recipient else None
        _check_frame(self.verb, self.subject.noun, patient, recipient)
        if self.time is not None:
            _known("time", self.time, TIMES)
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
