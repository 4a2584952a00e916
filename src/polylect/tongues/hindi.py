"""Hindi: verb last, oblique case before postpositions, ergative past, correlative clauses.

The direct object takes को if it is a person, an animal that is definite, or any animal after verbs
that touch or call it. With ने in the past the verb agrees with an object without को, else it is
masculine singular. A thing that is a direct object has a plural that differs from its singular,
because nothing else would show the number of "the things". कल is both yesterday and tomorrow: only
the tense tells.
"""

from polylect.tongues.concepts import ANIMATE, KINDS
from polylect.tongues.grammar import Meaning, NounPhrase, Place, Relative, Tongue, sentence
from polylect.tongues.hindi_words import (
    ADJECTIVES,
    AGREEING,
    DETERMINERS,
    NOUNS,
    RELATIONS,
    TIMES,
    VERBS,
)


def _noun_forms(gender: str, word: str, *invariable: str) -> tuple[str, str, str, str]:
    """Return the forms: singular direct and oblique, plural direct and oblique."""
    stem = word[:-1]
    if gender == "m":
        if word.endswith("ा"):
            if invariable:
                return word, word, word, word + "ओं"
            return word, stem + "े", stem + "े", stem + "ों"
        return word, word, word, stem + "ियों" if word.endswith("ी") else word + "ों"
    if word.endswith("िया"):
        return word, word, word + "ँ", stem + "ों"
    if word.endswith("ा"):
        return word, word, word + "एँ", word + "ओं"
    for ending, short in (("ी", "ि"), ("ई", "इ")):
        if word.endswith(ending):
            return word, word, f"{stem}{short}याँ", f"{stem}{short}यों"
    return word, word, word + "ें", word + "ों"


_FORMS = {concept: _noun_forms(*row) for concept, row in NOUNS.items()}
# masculine singular and plural, feminine singular and plural
_PERFECTIVE = {"give": ("दिया", "दिए", "दी", "दीं"), "touch": ("छुआ", "छुए", "छुई", "छुईं")}
_FUTURE = {"give": ("देगा", "देंगे", "देगी", "देंगी"), "touch": ("छुएगा", "छुएँगे", "छुएगी", "छुएँगी")}


def _feminine(phrase: NounPhrase) -> bool:
    return NOUNS[phrase.noun][0] == "f"


def _agree(word: str, feminine: bool, changed: bool) -> str:
    """Return an adjective in ा in agreement: ी for the feminine, े for oblique or plural."""
    if not word.endswith("ा"):
        return word
    if word.endswith("या"):  # नया, नए, नई
        return word[:-2] + ("ई" if feminine else "ए") if feminine or changed else word
    return word[:-1] + ("ी" if feminine else "े") if feminine or changed else word


def _determiner(phrase: NounPhrase, oblique: bool) -> str:
    if phrase.det == "this":
        if oblique:
            return "इन" if phrase.plural else "इस"
        return "ये" if phrase.plural else "यह"
    if phrase.det in AGREEING:
        return _agree(AGREEING[phrase.det], _feminine(phrase), oblique or phrase.plural)
    return DETERMINERS[phrase.det]


def _phrase(phrase: NounPhrase, after: str = "", det: str | None = None) -> str:
    """Return the phrase, oblique before the postposition `after`; `det` replaces its determiner."""
    oblique = bool(after)
    noun = _FORMS[phrase.noun][2 * phrase.plural + oblique]
    adjective = ""
    if phrase.adjective:
        word = ADJECTIVES[phrase.adjective][0]
        adjective = _agree(word, _feminine(phrase), oblique or phrase.plural)
    det = _determiner(phrase, oblique) if det is None else det
    return " ".join(part for part in (det, adjective, noun, after) if part)


def _place(place: Place | None) -> str:
    return _phrase(place.phrase, RELATIONS[place.relation]) if place else ""


def _ergative(verb: str, tense: str, transitive: bool) -> bool:
    return tense == "past" and (transitive or "ergative" in VERBS[verb])


def _takes_ko(verb: str, phrase: NounPhrase | None) -> bool:
    """Say whether this direct object takes को."""
    if phrase is None or phrase.noun not in ANIMATE:
        return False
    definite = phrase.det in ("the", "this", "my", "our", "every")
    return definite or KINDS[phrase.noun] == "person" or "marking" in VERBS[verb]


def _verb(verb: str, tense: str, agree: NounPhrase | None) -> str:
    """Return the verb in agreement with the phrase; masculine singular if there is none."""
    stem = VERBS[verb][0]
    feminine, plural = (_feminine(agree), agree.plural) if agree else (False, False)
    form = 2 * feminine + plural
    if tense == "present":
        ending = "ती" if feminine else "ते" if plural else "ता"
        return f"{stem}{ending} {'हैं' if plural else 'है'}"
    vowel = stem[-1] in "ाो"
    if tense == "past":
        endings = ("या", "ए", "ई", "ईं") if vowel else ("ा", "े", "ी", "ीं")
        return _PERFECTIVE[verb][form] if verb in _PERFECTIVE else stem + endings[form]
    endings = ("एगा", "एँगे", "एगी", "एँगी") if vowel else ("ेगा", "ेंगे", "ेगी", "ेंगी")
    return _FUTURE[verb][form] if verb in _FUTURE else stem + endings[form]


def _controller(
    subject: NounPhrase, object_: NounPhrase | None, ergative: bool, takes_ko: bool
) -> NounPhrase | None:
    """Return the phrase that the verb agrees with; None where it agrees with none."""
    if not ergative:
        return subject
    return None if takes_ko else object_


def _own_clause(head: NounPhrase, clause: Relative, pronoun: str) -> str:
    """Return the clause whose subject is its head, which is named by `pronoun`."""
    ergative = _ergative(clause.verb, clause.tense, clause.object is not None)
    object_ = _phrase(clause.object) if clause.object else ""
    agree = _controller(head, clause.object, ergative, False)
    parts = (pronoun, _place(clause.place), object_, _verb(clause.verb, clause.tense, agree))
    return " ".join(part for part in parts if part)


def _correlative(head: NounPhrase, clause: Relative, ergative: bool) -> str:
    """Return जो लड़की सोती है, वह: the clause first, then a pronoun in place of the subject."""
    inner = _ergative(clause.verb, clause.tense, clause.object is not None)
    which = ("जिन" if head.plural else "जिस") if inner else "जो"
    named = _phrase(head, "ने" if inner else "", det=which)
    direct, oblique = ("वे", "उन्होंने") if head.plural else ("वह", "उसने")
    return f"{_own_clause(head, clause, named)}, {oblique if ergative else direct}"


def _following(head: NounPhrase, clause: Relative) -> str:
    """Return the clause that follows the whole sentence and belongs to its object."""
    if clause.subject is None:
        if _ergative(clause.verb, clause.tense, clause.object is not None):
            return _own_clause(head, clause, "जिन्होंने" if head.plural else "जिसने")
        return _own_clause(head, clause, "जो")
    ergative = _ergative(clause.verb, clause.tense, True)
    subject = _phrase(clause.subject, "ने" if ergative else "")
    agree = _controller(clause.subject, head, ergative, False)
    return f"जो {subject} {_verb(clause.verb, clause.tense, agree)}"


def _object(phrase: NounPhrase | None, takes_ko: bool) -> str:
    if phrase is None:
        return ""
    if phrase.relative is None:
        return _phrase(phrase, "को" if takes_ko else "")
    if takes_ko:
        return _phrase(phrase, "को", det="उन" if phrase.plural else "उस")
    return _phrase(phrase, det="वे" if phrase.plural else "वह")


def render(meaning: Meaning) -> str:
    """Return one Hindi sentence."""
    subject, object_ = meaning.subject, meaning.object
    ergative = _ergative(meaning.verb, meaning.tense, object_ is not None)
    takes_ko = _takes_ko(meaning.verb, object_)
    time = TIMES[meaning.time] if meaning.time else ""
    if subject.relative:
        opening = (_correlative(subject, subject.relative, ergative), time)
    else:
        opening = (time, _phrase(subject, "ने" if ergative else ""))
    parts = (
        "क्या" if meaning.question else "",
        *opening,
        _place(meaning.place),
        _phrase(meaning.recipient, "को") if meaning.recipient else "",
        _object(object_, takes_ko),
        "नहीं" if meaning.negated else "",
        _verb(meaning.verb, meaning.tense, _controller(subject, object_, ergative, takes_ko)),
        _following(object_, object_.relative) if object_ and object_.relative else "",
    )
    return sentence(parts, "?" if meaning.question else "।")


LEXICON = {
    **{concept: row[1] for concept, row in NOUNS.items()},
    **{concept: row[0] + "ना" for concept, row in VERBS.items()},
    **{concept: row[0] for concept, row in ADJECTIVES.items()},
    **{det: word for det, word in (DETERMINERS | AGREEING).items() if word},
    **RELATIONS,
    **TIMES,
}
TONGUE = Tongue("hi", "Hindi", "devanagari", LEXICON, render)
