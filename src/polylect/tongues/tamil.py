"""Tamil: verb last, case suffixes on oblique stems, agreement in person, number and gender.

Direct objects always stand in the accusative. The participle of a relative clause stands before
its head. Words that double a following hard consonant (க ச த ப) carry a "+" until they are joined.
"""

from polylect.tongues.concepts import KINDS
from polylect.tongues.grammar import Meaning, NounPhrase, Place, Relative, Tongue, sentence
from polylect.tongues.tamil_words import (
    ADJECTIVES,
    DETERMINERS,
    PERSONS,
    PLACES,
    RELATIONS,
    THINGS,
    TIMES,
    VERBS,
)

_VIRAMA = "்"
_VOWELS = "அஆஇஈஉஊஎஏஐஒஓஔ"
_ENDINGS = {"m": "ான்", "f": "ாள்", "p": "ார்கள்"}


def _case(phrase: NounPhrase, case: str) -> str:
    """Return the noun in the nominative, accusative, dative or locative."""
    kind = KINDS[phrase.noun]
    row = {"person": PERSONS, "place": PLACES}.get(kind, THINGS)[phrase.noun]
    if phrase.plural:
        stem = row[-1][:-1]  # without the virama
        return {"nom": row[-1], "acc": stem + "ை+", "dat": stem + "ுக்கு+", "loc": stem + "ில்"}[case]
    if kind == "person":
        return {"nom": row[1], "acc": row[2] + "+", "dat": row[3] + "+"}[case]
    if kind == "place":
        return {"loc": row[1], "dat": row[2] + "+"}[case]
    return {"nom": row[0], "acc": row[1] + "+"}[case]


def _every_noun(phrase: NounPhrase, case: str) -> str:
    """Return the noun after ஒவ்வொரு (every), which takes the suffix உம் after that of the case."""
    form = _case(phrase, case).removesuffix("+")
    if case == "nom":
        # The stem before the glide is that of the accusative, except in two animals.
        special = {"goat": "ஆடும்", "lion": "சிங்கமும்"}
        accusative = _case(phrase, "acc").removesuffix("+")
        return special.get(phrase.noun, accusative[:-1] + "ும்")
    if case == "acc":
        return form + "யும்"
    return form[:-1] + "ும்"


def _phrase(phrase: NounPhrase | None, case: str) -> list[str]:
    if phrase is None:
        return []
    adjective = ADJECTIVES[phrase.adjective][0] if phrase.adjective else ""
    noun = _every_noun(phrase, case) if phrase.det == "every" else _case(phrase, case)
    words = [DETERMINERS[phrase.det], adjective, noun]
    return (_relative(phrase.relative) if phrase.relative else []) + [w for w in words if w]


def _place(place: Place | None) -> list[str]:
    if place is None:
        return []
    if place.relation == "in":
        return _phrase(place.phrase, "loc")
    return [*_phrase(place.phrase, "dat"), RELATIONS[place.relation]]


def _relative(clause: Relative) -> list[str]:
    """Return the words of a relative clause, which ends in a participle and precedes its head."""
    past, present, _, infinitive = VERBS[clause.verb]
    participle = {"past": past, "present": present, "future": infinitive + "ும்"}[clause.tense]
    subject, object_ = _phrase(clause.subject, "nom"), _phrase(clause.object, "acc")
    return [*subject, *_place(clause.place), *object_, participle]


def _class(subject: NounPhrase) -> str:
    """Return the agreement class: m, f, p (rational plural), n, np (irrational plural)."""
    if KINDS[subject.noun] != "person":
        return "np" if subject.plural else "n"
    return "p" if subject.plural else PERSONS[subject.noun][0]


def _finite(verb: str, tense: str, who: str) -> str:
    past, present, future, infinitive = VERBS[verb]
    if tense == "future":
        return future + _ENDINGS[who] if who in _ENDINGS else infinitive + "ும்"
    participle = past if tense == "past" else present
    if who == "n":
        return participle + "து"
    if who == "np" and tense == "present":
        return present.removesuffix("கிற") + "கின்றன"
    if past.endswith("ிய") and tense == "past":  # தூங்கிய but தூங்கினான், தூங்கின
        participle = past.removesuffix("ய") + "ன"
        return participle if who == "np" else participle + _ENDINGS[who]
    return participle + ("ன" if who == "np" else _ENDINGS[who])


def _negative(verb: str, tense: str, who: str) -> str:
    _, _, future, infinitive = VERBS[verb]
    if tense == "past":
        return infinitive + "வில்லை"
    if tense == "present":
        return future + "தில்லை"
    return f"{infinitive} மாட்ட{_ENDINGS[who]}" if who in _ENDINGS else infinitive + "ாது"


def _question(verb: str) -> str:
    """Return the verb with the question suffix ஆ."""
    if verb[-1] in (_VIRAMA, "ு"):
        return verb[:-1] + "ா"
    return verb + ("யா" if verb[-1] == "ை" else "வா")


def _join(words: list[str], end: str) -> str:
    """Doubles hard consonants after words marked so, and makes ஒரு before a vowel ஓர்."""
    joined = []
    for word, following in zip(words, [*words[1:], " "], strict=True):
        if word.endswith("+"):
            hard = following[0] in "கசதப"
            joined.append(word[:-1] + (following[0] + _VIRAMA if hard else ""))
        else:
            joined.append("ஓர்" if word == "ஒரு" and following[0] in _VOWELS else word)
    return sentence(joined, end)


def render(meaning: Meaning) -> str:
    """Return one Tamil sentence."""
    who = _class(meaning.subject)
    make = _negative if meaning.negated else _finite
    verb = make(meaning.verb, meaning.tense, who)
    subject = _phrase(meaning.subject, "nom")
    time = [TIMES[meaning.time]] if meaning.time else []
    words = [
        # After a relative clause, which the time would otherwise seem to belong to.
        *(subject + time if meaning.subject.relative else time + subject),
        *_place(meaning.place),
        *_phrase(meaning.recipient, "dat"),
        *_phrase(meaning.object, "acc"),
        _question(verb) if meaning.question else verb,
    ]
    return _join(words, "?" if meaning.question else ".")


LEXICON = {
    **{concept: row[1] for concept, row in PERSONS.items()},
    **{concept: row[0] for concept, row in (THINGS | PLACES).items()},
    **{concept: row[3] for concept, row in VERBS.items()},
    **{concept: row[0].removesuffix("+") for concept, row in ADJECTIVES.items()},
    **{det: word.removesuffix("+") for det, word in DETERMINERS.items() if word},
    **RELATIONS,
    **TIMES,
}
TONGUE = Tongue("ta", "Tamil", "tamil", LEXICON, render)
