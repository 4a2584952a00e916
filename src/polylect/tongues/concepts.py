"""Concepts of the embedded laboratory: what its meanings are made of, and which go together.

Everything is named by English words; every tongue has a word for each.
"""

from dataclasses import dataclass

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
