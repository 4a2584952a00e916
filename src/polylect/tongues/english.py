"""English: do-support, a and an, who and that."""

from polylect.tongues.concepts import ADJECTIVES, DETERMINERS, KINDS
from polylect.tongues.grammar import Meaning, NounPhrase, Place, Relative, Tongue, sentence, table

# concept: singular plural
_NOUNS = table("""
man man men
boy boy boys
king king kings
prince prince princes
farmer farmer farmers
fisherman fisherman fishermen
student student students
friend friend friends
thief thief thieves
merchant merchant merchants
woman woman women
girl girl girls
queen queen queens
princess princess princesses
grandmother grandmother grandmothers
sister sister sisters
singer singer singers
maid maid maids
actress actress actresses
dog dog dogs
cat cat cats
horse horse horses
cow cow cows
elephant elephant elephants
monkey monkey monkeys
goat goat goats
bird bird birds
lion lion lions
banana banana bananas
orange orange oranges
egg egg eggs
carrot carrot carrots
pear pear pears
melon melon melons
book book books
letter letter letters
story story stories
poem poem poems
box box boxes
bag bag bags
basket basket baskets
bottle bottle bottles
key key keys
chair chair chairs
table table tables
ring ring rings
hat hat hats
umbrella umbrella umbrellas
rope rope ropes
boat boat boats
door door doors
window window windows
bell bell bells
doll doll dolls
garden garden gardens
house house houses
school school schools
village village villages
city city cities
forest forest forests
temple temple temples
palace palace palaces
shop shop shops
kitchen kitchen kitchens
hospital hospital hospitals
""")

# concept: base third-person-singular past
_VERBS = table("""
sleep sleep sleeps slept
sing sing sings sang
dance dance dances danced
laugh laugh laughs laughed
cry cry cries cried
run run runs ran
play play plays played
jump jump jumps jumped
smile smile smiles smiled
shout shout shouts shouted
see see sees saw
seek seek seeks sought
buy buy buys bought
steal steal steals stole
hide hide hides hid
carry carry carries carried
touch touch touches touched
wash wash washes washed
eat eat eats ate
peel peel peels peeled
open open opens opened
break break breaks broke
push push pushes pushed
pull pull pulls pulled
catch catch catches caught
call call calls called
rescue rescue rescues rescued
wake wake wakes woke
write write writes wrote
understand understand understands understood
choose choose chooses chose
lose lose loses lost
give give gives gave
show show shows showed
send send sends sent
sell sell sells sold
""")

_PLURALS = {"this": "these"}
_RELATIONS = {"in": "in", "behind": "behind", "near": "near", "in_front_of": "in front of"}
_TIMES = {
    "yesterday": "yesterday",
    "last_week": "last week",
    "last_year": "last year",
    "every_day": "every day",
    "often": "often",
    "tomorrow": "tomorrow",
    "next_week": "next week",
    "next_year": "next year",
    "today": "today",
    "at_noon": "at noon",
    "in_the_evening": "in the evening",
    "at_night": "at night",
}


def _phrase(phrase: NounPhrase | None) -> str:
    if phrase is None:
        return ""
    noun = _NOUNS[phrase.noun][phrase.plural]
    words = f"{phrase.adjective} {noun}" if phrase.adjective else noun
    det = _PLURALS.get(phrase.det, phrase.det) if phrase.plural else phrase.det
    if det == "a" and words[0] in "aeiou":
        det = "an"
    relative = f" {_relative(phrase.relative, phrase)}" if phrase.relative else ""
    return f"{det} {words}{relative}"


def _place(place: Place | None) -> str:
    return f"{_RELATIONS[place.relation]} {_phrase(place.phrase)}" if place else ""


def _finite(verb: str, tense: str, plural: bool) -> str:
    base, third, past = _VERBS[verb]
    if tense == "future":
        return f"will {base}"
    if tense == "past":
        return past
    return base if plural else third


def _relative(clause: Relative, head: NounPhrase) -> str:
    """Return a relative clause: who sings; that sleeps; that the man buys."""
    pronoun = "who" if KINDS[head.noun] == "person" else "that"
    verb = _finite(clause.verb, clause.tense, (clause.subject or head).plural)
    parts = (pronoun, _phrase(clause.subject), verb, _phrase(clause.object), _place(clause.place))
    return " ".join(part for part in parts if part)


def _auxiliary(tense: str, plural: bool) -> str:
    if tense == "present":
        return "do" if plural else "does"
    return "did" if tense == "past" else "will"


def render(meaning: Meaning) -> str:
    """Return one English sentence."""
    subject, plural = _phrase(meaning.subject), meaning.subject.plural
    base = _VERBS[meaning.verb][0]
    auxiliary = _auxiliary(meaning.tense, plural)
    time = _TIMES[meaning.time] if meaning.time else ""
    recipient = f"to {_phrase(meaning.recipient)}" if meaning.recipient else ""
    rest = (_phrase(meaning.object), recipient, _place(meaning.place))
    if meaning.question:
        negation = "not" if meaning.negated else ""
        return sentence((auxiliary, subject, negation, base, *rest, time), "?")
    verb = (
        f"{auxiliary} not {base}"
        if meaning.negated
        else _finite(meaning.verb, meaning.tense, plural)
    )
    return sentence((time, subject, verb, *rest), ".")


LEXICON = {
    **{concept: forms[0] for concept, forms in (_NOUNS | _VERBS).items()},
    **{word: word for word in (*ADJECTIVES, *DETERMINERS)},  # the concepts have English names
    **_RELATIONS,
    **_TIMES,
}
TONGUE = Tongue("en", "English", "latin", LEXICON, render)
