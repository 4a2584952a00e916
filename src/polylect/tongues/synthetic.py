"""Synthetic tongues: languages with dials, so that interference is planted and its size is known.

A content word is three open syllables, a function word two, a grammatical marker one closed
syllable, so stems and markers never run together in two ways. A word can come from another tongue
with its meaning (shared) or with another meaning (contradicting).
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

from polylect.did_you_mean import did_you_mean
from polylect.tongues.concepts import ADJECTIVES, LEXEMES, NOUNS, VERBS
from polylect.tongues.grammar import Meaning, NounPhrase, Place, Relative, Tongue, sentence

# Consonants and vowels of each script; the first fourteen consonants can close a syllable too.
SCRIPTS = {
    "latin": ("bdfghklmnprstvzjwc", "aeiou"),
    "greek": ("βγδζθκλμνξπρτφχψσ", "αεηιοω"),
    "cyrillic": ("бвгджзклмнпрстфхцчш", "аэиоу"),
    "georgian": ("ბგდვზთკლმნპრსტფქღყშჩ", "აეიოუ"),
    "armenian": ("բգդզթժլխկհձմնշպջսվտրք", "աեիու"),
}
_CASELESS = ("georgian",)
ORDERS = ("SVO", "SOV", "VSO", "V2")
MORPHOLOGIES = ("isolating", "suffix", "prefix")
MARKERS = ("plural", "accusative", "dative", "past", "future", "not", "whether", "which")
CONCEPTS = (*LEXEMES, *MARKERS)
_CLASSES = {
    **dict.fromkeys(CONCEPTS, "function"),
    **dict.fromkeys(NOUNS, "noun"),
    **dict.fromkeys(VERBS, "verb"),
    **dict.fromkeys(ADJECTIVES, "adjective"),
    **dict.fromkeys(MARKERS, "marker"),
}
# Consonants and vowels of a word of each class; k is a consonant that closes a syllable.
_SHAPES = {
    "noun": "cvcvcv",
    "verb": "cvcvcv",
    "adjective": "cvcvcv",
    "function": "cvcv",
    "marker": "cvk",
}


def _one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(
            f"A synthetic tongue has no {name} {value!r}; {did_you_mean(value, allowed)}"
        )


class SyntheticTongue:
    """A language made from a seed and dials; has all that a `Tongue` has.

    Args:
        code: private-use language code, "qaa" to "qtz".
        seed: another seed, other words.
        order: "SVO", "SOV", "VSO" or "V2" (verb second, and last in relative clauses).
        morphology: how number, case and tense are marked: by a word of its own ("isolating",
            without case for the direct object), by a "suffix" or by a "prefix".
        adjective: whether it stands "before" or "after" its noun.
        script: "latin", "greek", "cyrillic", "georgian" or "armenian".
        shared_with: the tongue whose words the two next dials are about.
        shared: share of the concepts with the same word for the same concept in both tongues.
        contradicting: share of the concepts whose word means another concept in the other tongue.
            Both are exact to rounding, over the concepts with a word of their own in the other
            tongue; `overlap` measures them.

    Raises:
        ValueError: for an unknown value or dials that cannot be met together.
    """

    def __init__(
        self,
        *,
        code: str,
        seed: int = 0,
        order: str = "SVO",
        morphology: str = "suffix",
        adjective: str = "before",
        script: str = "latin",
        shared_with: "Tongue | SyntheticTongue | None" = None,
        shared: float | int = 0.0,
        contradicting: float | int = 0.0,
    ) -> None:
        if not (len(code) == 3 and code.isalpha() and "qaa" <= code <= "qtz"):
            raise ValueError(f"A synthetic tongue needs a code from 'qaa' to 'qtz', not {code!r}.")
        _one_of("order", order, ORDERS)
        _one_of("morphology", morphology, MORPHOLOGIES)
        _one_of("adjective place", adjective, ("before", "after"))
        _one_of("script", script, tuple(SCRIPTS))
        _check_dials(code, script, shared_with, shared, contradicting)
        self.code, self.name, self.script = code, f"Synthetic {code}", script
        self.order, self.morphology, self.adjective = order, morphology, adjective
        rng = random.Random(f"tongue:{code}:{seed}")
        self.lexicon: Mapping[str, str] = _lexicon(rng, script, shared_with, shared, contradicting)

    def render(self, meaning: Meaning) -> str:
        """Return one sentence."""
        place, time = self._place(meaning.place), self._time(meaning.time)
        subject, verb = self._phrase(meaning.subject), self._verb(meaning.verb, meaning.tense)
        negation = self._word("not") if meaning.negated else ""
        objects = [self._phrase(meaning.object, "accusative")]
        objects.append(self._phrase(meaning.recipient, "dative"))
        question = self._word("whether") if meaning.question else ""
        if self.order == "SVO":
            parts = [question, time, subject, negation, verb, *objects, place]
        elif self.order == "SOV":
            parts = [time, subject, place, *objects[::-1], negation, verb, question]
        elif self.order == "VSO":
            parts = [question, negation, verb, subject, *objects, place, time]
        elif meaning.question:
            parts = [verb, subject, time, *objects, negation, place]
        else:
            first, then = (time, subject) if time else (subject, "")
            parts = [first, verb, then, *objects, negation, place]
        end = "?" if meaning.question else "."
        if self.script in _CASELESS:
            return " ".join(part for part in parts if part) + end
        return sentence(parts, end)

    def _word(self, concept: str) -> str:
        return self.lexicon[concept]

    def _time(self, time: str | None) -> str:
        return self._word(time) if time else ""

    def _add_markers(self, concept: str, *markers: str) -> str:
        """Return the word with its markers; the last marker is the outermost."""
        word = self._word(concept)
        for marker in markers:
            if self.morphology == "isolating":
                word = f"{word} {self._word(marker)}"
            elif self.morphology == "suffix":
                word += self._word(marker)
            else:
                word = self._word(marker) + word
        return word

    def _verb(self, verb: str, tense: str) -> str:
        return self._add_markers(verb, *(() if tense == "present" else (tense,)))

    def _phrase(self, phrase: NounPhrase | None, case: str = "") -> str:
        if phrase is None:
            return ""
        markers = ["plural"] if phrase.plural else []
        if case and not (case == "accusative" and self.morphology == "isolating"):
            markers.append(case)
        noun = self._add_markers(phrase.noun, *markers)
        adjective = self._word(phrase.adjective) if phrase.adjective else ""
        pair = (adjective, noun) if self.adjective == "before" else (noun, adjective)
        words = [self._word(phrase.det), *pair]
        if phrase.relative:
            clause = self._relative(phrase.relative)
            words = [*clause, *words] if self.order == "SOV" else [*words, *clause]
        return " ".join(word for word in words if word)

    def _place(self, place: Place | None) -> str:
        if place is None:
            return ""
        phrase, relation = self._phrase(place.phrase), self._word(place.relation)
        return f"{phrase} {relation}" if self.order == "SOV" else f"{relation} {phrase}"

    def _relative(self, clause: Relative) -> list[str]:
        which, verb = self._word("which"), self._verb(clause.verb, clause.tense)
        subject, object_ = self._phrase(clause.subject), self._phrase(clause.object, "accusative")
        place = self._place(clause.place)
        if self.order == "SOV":
            return [subject, place, object_, verb, which]
        if self.order == "V2":
            return [which, subject, object_, place, verb]
        if self.order == "VSO":
            return [which, verb, subject, object_, place]
        return [which, subject, verb, object_, place]


def _check_dials(
    code: str,
    script: str,
    other: Tongue | SyntheticTongue | None,
    shared: float | int,
    contradicting: float | int,
) -> None:
    if not (0 <= shared <= 1 and 0 <= contradicting <= 1):
        raise ValueError(
            f"The dials of {code!r} must lie between 0 and 1, "
            f"not shared={shared}, contradicting={contradicting}."
        )
    if shared + contradicting > 1 + 1e-9:
        raise ValueError(
            f"The dials of {code!r} ask for more words than there are: "
            f"shared={shared} + contradicting={contradicting} is above 1."
        )
    if other is None:
        if shared or contradicting:
            raise ValueError(f"The tongue {code!r} has dials to turn but no shared_with.")
        return
    if other.code == code:
        raise ValueError(f"The tongue {code!r} cannot share words with itself.")
    if (shared or contradicting) and other.script != script:
        raise ValueError(
            f"The tongue {code!r} takes words from {other.code!r}, which is written in "
            f"{other.script}, so its script cannot be {script}."
        )


def _invent(rng: random.Random, script: str, concept: str) -> str:
    consonants, vowels = SCRIPTS[script]
    letters = {"c": consonants, "v": vowels, "k": consonants[:14]}
    shape = (letters[sound] for sound in _SHAPES[_CLASSES[concept]])
    return "".join(choice[int(rng.random() * len(choice))] for choice in shape)


def _shuffle(rng: random.Random, items: Sequence[str]) -> list[str]:
    return sorted(items, key=lambda _: rng.random())


def _lexicon(
    rng: random.Random,
    script: str,
    other: Tongue | SyntheticTongue | None,
    shared: float | int,
    contradicting: float | int,
) -> dict[str, str]:
    words: dict[str, str] = {}
    theirs = dict(other.lexicon) if other else {}
    if shared or contradicting:
        words = _borrow(rng, theirs, shared, contradicting)
    taken = {*theirs.values(), *words.values()}
    for concept in CONCEPTS:
        while concept not in words:
            word = _invent(rng, script, concept)
            if word not in taken:
                taken.add(word)
                words[concept] = word
    return words


def _borrow(
    rng: random.Random, theirs: Mapping[str, str], shared: float | int, contradicting: float | int
) -> dict[str, str]:
    """Return the words from the other tongue: some as they are, some of rotated meaning."""
    candidates = _unambiguous_concepts(theirs)
    keep = round(shared * len(candidates))
    swap = min(round(contradicting * len(candidates)), len(candidates) - keep)
    if swap == 1:
        raise ValueError(
            f"contradicting={contradicting} of {len(candidates)} words is one word, which cannot "
            "change its meaning alone; use 0 or a larger share."
        )
    order = _shuffle(rng, candidates)
    words = {concept: theirs[concept] for concept in order[:keep]}
    # Within a word class where possible: only then the context does not give the meaning away.
    rotating = sorted(order[keep : keep + swap], key=_CLASSES.__getitem__)
    for group in _groups(rotating):
        for concept, donor in zip(group, group[1:] + group[:1], strict=True):
            words[concept] = theirs[donor]
    return words


def _unambiguous_concepts(theirs: Mapping[str, str]) -> list[str]:
    """Return the concepts whose word in the other tongue has no second meaning there."""
    counts = Counter(theirs.values())
    return [concept for concept in CONCEPTS if counts[theirs.get(concept)] == 1]


def _groups(concepts: Sequence[str]) -> list[list[str]]:
    """Return word classes of at least two concepts; a single one joins a neighbouring class."""
    groups: list[list[str]] = []
    for _, group in groupby(concepts, key=_CLASSES.__getitem__):
        members = list(group)
        if groups and 1 in (len(members), len(groups[-1])):
            groups[-1] += members
        else:
            groups.append(members)
    return groups


def overlap(a: Tongue | SyntheticTongue, b: Tongue | SyntheticTongue) -> tuple[float, float]:
    """Return (shared, contradicting): two shares of the concepts with a word of their own in `b`.

    Those are the concepts with the same word in `a`, and those whose word in `a` means something
    else in `b`.
    """
    concepts = [concept for concept in _unambiguous_concepts(b.lexicon) if concept in a.lexicon]
    shared = sum(a.lexicon[concept] == b.lexicon[concept] for concept in concepts)
    theirs = set(b.lexicon.values())
    in_use = sum(a.lexicon[concept] in theirs for concept in concepts)
    return shared / len(concepts), (in_use - shared) / len(concepts)
