"""German: verb second, verb last in relative clauses, case on everything before the noun.

The past is the Präteritum, so that no verb has a separable part; "nicht" stands after the objects
and before the place; a relative clause of the object stands after the verb's last part.
"""

from polylect.tongues.concepts import NUMERALS
from polylect.tongues.german_words import ADJECTIVES, DETERMINERS, NOUNS, RELATIONS, TIMES, VERBS
from polylect.tongues.grammar import Meaning, NounPhrase, Place, Tongue, sentence


def _paradigm(nominative: str, accusative: str, dative: str) -> dict[str, dict[str, str]]:
    """Return the forms by case and by gender or plural (m f n p) of a table; "-" is no ending."""
    cases = {"nom": nominative, "acc": accusative, "dat": dative}
    return {
        case: dict(zip("mfnp", row.replace("-", "").split(" "), strict=True))
        for case, row in cases.items()
    }


_THE = _paradigm("der die das die", "den die das die", "dem der dem den")
_STRONG = _paradigm("er e es e", "en e es e", "em er em en")
_MIXED_DETERMINER = _paradigm("- e - e", "en e - e", "em er em en")
_WEAK_ADJECTIVE = _paradigm("e e e en", "en e e en", "en en en en")
_MIXED_ADJECTIVE = _paradigm("er e es en", "en e es en", "en en en en")
_STEMS = {"this": "dies", "every": "jed", "some": "einig", "many": "viel"}
_CONTRACTIONS = {("in", "dem"): "im", ("bei", "dem"): "beim"}


def _determiner(det: str, case: str, gender: str) -> str:
    if det == "the":
        return _THE[case][gender]
    if det in NUMERALS:
        return DETERMINERS[det]
    if det in _STEMS:
        return _STEMS[det] + _STRONG[case][gender]
    return DETERMINERS[det] + _MIXED_DETERMINER[case][gender]


def _adjective(adjective: str | None, det: str, case: str, gender: str) -> str:
    if adjective is None:
        return ""
    if det in ("the", "this", "every"):
        endings = _WEAK_ADJECTIVE
    elif det in ("a", "my", "our"):
        endings = _MIXED_ADJECTIVE
    else:
        endings = _STRONG
    return ADJECTIVES[adjective][-1] + endings[case][gender]


def _noun(noun: str, plural: bool, case: str) -> str:
    singular, _, plural_form, *weak = NOUNS[noun]
    if plural:
        return plural_form + ("n" if case == "dat" and plural_form[-1] not in "ns" else "")
    return plural_form if weak and case != "nom" else singular


def _words(phrase: NounPhrase, case: str) -> list[str]:
    gender = "p" if phrase.plural else NOUNS[phrase.noun][1]
    det = _determiner(phrase.det, case, gender)
    adjective = _adjective(phrase.adjective, phrase.det, case, gender)
    noun = _noun(phrase.noun, phrase.plural, case)
    return [det, adjective, noun] if adjective else [det, noun]


def _phrase(phrase: NounPhrase | None, case: str) -> str:
    return " ".join(_words(phrase, case)) if phrase else ""


def _place(place: Place | None) -> str:
    if place is None:
        return ""
    preposition = RELATIONS[place.relation]
    det, *rest = _words(place.phrase, "dat")
    start = _CONTRACTIONS.get((preposition, det), f"{preposition} {det}")
    return " ".join((start, *rest))


def _finite(verb: str, tense: str, plural: bool) -> str:
    infinitive, third, past = VERBS[verb]
    if tense == "future":
        return "werden" if plural else "wird"
    if tense == "present":
        return infinitive if plural else third
    if not plural:
        return past
    return past + ("n" if past.endswith("e") else "en")


def _last(verb: str, tense: str) -> str:
    return VERBS[verb][0] if tense == "future" else ""


def _relative(head: NounPhrase) -> str:
    """Return comma, pronoun and the clause with its verb at the end; "" without a clause."""
    clause = head.relative
    if clause is None:
        return ""
    gender = "p" if head.plural else NOUNS[head.noun][1]
    parts = (
        _THE["acc" if clause.subject else "nom"][gender],
        _phrase(clause.subject, "nom"),
        _phrase(clause.object, "acc"),
        _place(clause.place),
        _last(clause.verb, clause.tense),
        _finite(clause.verb, clause.tense, (clause.subject or head).plural),
    )
    return ", " + " ".join(part for part in parts if part)


def render(meaning: Meaning) -> str:
    """Return one German sentence."""
    subject = _phrase(meaning.subject, "nom")
    clause = _relative(meaning.subject)
    verb = _finite(meaning.verb, meaning.tense, meaning.subject.plural)
    time = TIMES[meaning.time] if meaning.time else ""
    rest = [
        _phrase(meaning.recipient, "dat"),
        _phrase(meaning.object, "acc"),
        "nicht" if meaning.negated else "",
        _place(meaning.place),
        _last(meaning.verb, meaning.tense),
    ]
    if meaning.question:
        before, after = (verb,), (time, *rest)
    elif time:
        before, after = (time, verb), rest
    else:
        before, after = (), (verb, *rest)
    # The comma that closes the subject's clause falls away at the end of the sentence.
    subject += clause + ("," if clause and any(after) else "")
    extraposed = _relative(meaning.object) if meaning.object else ""
    end = extraposed + ("?" if meaning.question else ".")
    return sentence((*before, subject, *after), end)


LEXICON = {
    **{concept: forms[0] for concept, forms in (NOUNS | VERBS | ADJECTIVES).items()},
    **DETERMINERS,
    **RELATIONS,
    **TIMES,
}
TONGUE = Tongue("de", "German", "latin", LEXICON, render)
