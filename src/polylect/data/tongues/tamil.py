"""Tamil: verb last, case suffixes on oblique stems, agreement in person, number and gender.

Direct objects always stand in the accusative. The participle of a relative clause stands before
its head. Words that double a following hard consonant (க ச த ப) carry a "+" until they are joined.
"""

import unicodedata

from polylect.data.tongues.grammar import (
    KINDS,
    NUMERALS,
    Meaning,
    NounPhrase,
    Place,
    Relative,
    Tongue,
    sentence,
    table,
)


def _table(text: str) -> dict[str, list[str]]:
    return table(unicodedata.normalize("NFC", text))


# Persons: gender nominative accusative dative plural
_PERSONS = _table("""
man m மனிதன் மனிதனை மனிதனுக்கு மனிதர்கள்
boy m சிறுவன் சிறுவனை சிறுவனுக்கு சிறுவர்கள்
king m அரசன் அரசனை அரசனுக்கு அரசர்கள்
prince m இளவரசன் இளவரசனை இளவரசனுக்கு இளவரசர்கள்
farmer m உழவன் உழவனை உழவனுக்கு உழவர்கள்
fisherman m மீனவன் மீனவனை மீனவனுக்கு மீனவர்கள்
student m மாணவன் மாணவனை மாணவனுக்கு மாணவர்கள்
friend m நண்பன் நண்பனை நண்பனுக்கு நண்பர்கள்
thief m திருடன் திருடனை திருடனுக்கு திருடர்கள்
merchant m வணிகன் வணிகனை வணிகனுக்கு வணிகர்கள்
woman f பெண் பெண்ணை பெண்ணுக்கு பெண்கள்
girl f சிறுமி சிறுமியை சிறுமிக்கு சிறுமிகள்
queen f அரசி அரசியை அரசிக்கு அரசிகள்
princess f இளவரசி இளவரசியை இளவரசிக்கு இளவரசிகள்
grandmother f பாட்டி பாட்டியை பாட்டிக்கு பாட்டிகள்
sister f சகோதரி சகோதரியை சகோதரிக்கு சகோதரிகள்
singer f பாடகி பாடகியை பாடகிக்கு பாடகிகள்
maid f பணிப்பெண் பணிப்பெண்ணை பணிப்பெண்ணுக்கு பணிப்பெண்கள்
actress f நடிகை நடிகையை நடிகைக்கு நடிகைகள்
""")

# Animals and things: nominative accusative plural
_THINGS = _table("""
dog நாய் நாயை நாய்கள்
cat பூனை பூனையை பூனைகள்
horse குதிரை குதிரையை குதிரைகள்
cow பசு பசுவை பசுக்கள்
elephant யானை யானையை யானைகள்
monkey குரங்கு குரங்கை குரங்குகள்
goat ஆடு ஆட்டை ஆடுகள்
bird பறவை பறவையை பறவைகள்
lion சிங்கம் சிங்கத்தை சிங்கங்கள்
banana வாழைப்பழம் வாழைப்பழத்தை வாழைப்பழங்கள்
orange ஆரஞ்சு ஆரஞ்சை ஆரஞ்சுகள்
egg முட்டை முட்டையை முட்டைகள்
carrot கேரட் கேரட்டை கேரட்டுகள்
pear பேரிக்காய் பேரிக்காயை பேரிக்காய்கள்
melon முலாம்பழம் முலாம்பழத்தை முலாம்பழங்கள்
book புத்தகம் புத்தகத்தை புத்தகங்கள்
letter கடிதம் கடிதத்தை கடிதங்கள்
story கதை கதையை கதைகள்
poem கவிதை கவிதையை கவிதைகள்
box பெட்டி பெட்டியை பெட்டிகள்
bag பை பையை பைகள்
basket கூடை கூடையை கூடைகள்
bottle பாட்டில் பாட்டிலை பாட்டில்கள்
key சாவி சாவியை சாவிகள்
chair நாற்காலி நாற்காலியை நாற்காலிகள்
table மேசை மேசையை மேசைகள்
ring மோதிரம் மோதிரத்தை மோதிரங்கள்
hat தொப்பி தொப்பியை தொப்பிகள்
umbrella குடை குடையை குடைகள்
rope கயிறு கயிற்றை கயிறுகள்
boat படகு படகை படகுகள்
door கதவு கதவை கதவுகள்
window ஜன்னல் ஜன்னலை ஜன்னல்கள்
bell மணி மணியை மணிகள்
doll பொம்மை பொம்மையை பொம்மைகள்
""")

# Places: nominative locative dative plural
_PLACES = _table("""
garden தோட்டம் தோட்டத்தில் தோட்டத்துக்கு தோட்டங்கள்
house வீடு வீட்டில் வீட்டுக்கு வீடுகள்
school பள்ளி பள்ளியில் பள்ளிக்கு பள்ளிகள்
village கிராமம் கிராமத்தில் கிராமத்துக்கு கிராமங்கள்
city நகரம் நகரத்தில் நகரத்துக்கு நகரங்கள்
forest காடு காட்டில் காட்டுக்கு காடுகள்
temple கோயில் கோயிலில் கோயிலுக்கு கோயில்கள்
palace அரண்மனை அரண்மனையில் அரண்மனைக்கு அரண்மனைகள்
shop கடை கடையில் கடைக்கு கடைகள்
kitchen சமையலறை சமையலறையில் சமையலறைக்கு சமையலறைகள்
hospital மருத்துவமனை மருத்துவமனையில் மருத்துவமனைக்கு மருத்துவமனைகள்
""")

# concept: past participle, present participle, future stem, infinitive
_VERBS = _table("""
sleep தூங்கிய தூங்குகிற தூங்குவ தூங்க
sing பாடிய பாடுகிற பாடுவ பாட
dance நடனமாடிய நடனமாடுகிற நடனமாடுவ நடனமாட
laugh சிரித்த சிரிக்கிற சிரிப்ப சிரிக்க
cry அழுத அழுகிற அழுவ அழ
run ஓடிய ஓடுகிற ஓடுவ ஓட
play விளையாடிய விளையாடுகிற விளையாடுவ விளையாட
jump குதித்த குதிக்கிற குதிப்ப குதிக்க
smile புன்னகைத்த புன்னகைக்கிற புன்னகைப்ப புன்னகைக்க
shout கத்திய கத்துகிற கத்துவ கத்த
see பார்த்த பார்க்கிற பார்ப்ப பார்க்க
seek தேடிய தேடுகிற தேடுவ தேட
buy வாங்கிய வாங்குகிற வாங்குவ வாங்க
steal திருடிய திருடுகிற திருடுவ திருட
hide மறைத்த மறைக்கிற மறைப்ப மறைக்க
carry சுமந்த சுமக்கிற சுமப்ப சுமக்க
touch தொட்ட தொடுகிற தொடுவ தொட
wash கழுவிய கழுவுகிற கழுவுவ கழுவ
eat சாப்பிட்ட சாப்பிடுகிற சாப்பிடுவ சாப்பிட
peel உரித்த உரிக்கிற உரிப்ப உரிக்க
open திறந்த திறக்கிற திறப்ப திறக்க
break உடைத்த உடைக்கிற உடைப்ப உடைக்க
push தள்ளிய தள்ளுகிற தள்ளுவ தள்ள
pull இழுத்த இழுக்கிற இழுப்ப இழுக்க
catch பிடித்த பிடிக்கிற பிடிப்ப பிடிக்க
call அழைத்த அழைக்கிற அழைப்ப அழைக்க
rescue காப்பாற்றிய காப்பாற்றுகிற காப்பாற்றுவ காப்பாற்ற
wake எழுப்பிய எழுப்புகிற எழுப்புவ எழுப்ப
write எழுதிய எழுதுகிற எழுதுவ எழுத
understand புரிந்துகொண்ட புரிந்துகொள்கிற புரிந்துகொள்வ புரிந்துகொள்ள
choose தேர்ந்தெடுத்த தேர்ந்தெடுக்கிற தேர்ந்தெடுப்ப தேர்ந்தெடுக்க
lose தொலைத்த தொலைக்கிற தொலைப்ப தொலைக்க
give கொடுத்த கொடுக்கிற கொடுப்ப கொடுக்க
show காட்டிய காட்டுகிற காட்டுவ காட்ட
send அனுப்பிய அனுப்புகிற அனுப்புவ அனுப்ப
sell விற்ற விற்கிற விற்ப விற்க
""")

_ADJECTIVES = _table("""
red சிவப்பு+
white வெள்ளை+
black கறுப்பு+
green பச்சை+
blue நீல+
yellow மஞ்சள்
big பெரிய
small சிறிய
new புதிய
old பழைய
beautiful அழகான
heavy கனமான
clean சுத்தமான
expensive விலையுயர்ந்த
long நீண்ட
good நல்ல
brave தைரியமான
happy மகிழ்ச்சியான
rich பணக்கார+
poor ஏழை+
lazy சோம்பேறியான
strong வலிமையான
hungry பசியுள்ள
quiet அமைதியான
""")

_DETERMINERS = {
    "the": "",
    "this": "இந்த+",
    "my": "என்",
    "our": "எங்கள்",
    "a": "ஒரு",
    "every": "ஒவ்வொரு",
    "some": "சில",
    "many": "பல",
    **dict(zip(NUMERALS, ["இரண்டு", "மூன்று", "நான்கு", "ஐந்து", "ஆறு"], strict=True)),
}
# "in" is the locative, the others follow the dative.
_RELATIONS = {"in": "-இல்", "behind": "பின்னால்", "near": "அருகில்", "in_front_of": "முன்னால்"}
_TIMES = {
    "yesterday": "நேற்று",
    "last_week": "கடந்த வாரம்",
    "last_year": "கடந்த ஆண்டு",
    "every_day": "தினமும்",
    "often": "அடிக்கடி",
    "tomorrow": "நாளை",
    "next_week": "அடுத்த வாரம்",
    "next_year": "அடுத்த ஆண்டு",
    "today": "இன்று",
    "at_noon": "நண்பகலில்",
    "in_the_evening": "மாலையில்",
    "at_night": "இரவில்",
}

_VIRAMA = "்"
_VOWELS = "அஆஇஈஉஊஎஏஐஒஓஔ"
_ENDINGS = {"m": "ான்", "f": "ாள்", "p": "ார்கள்"}


def _case(phrase: NounPhrase, case: str) -> str:
    """The noun in the nominative, accusative, dative or locative."""
    kind = KINDS[phrase.noun]
    row = {"person": _PERSONS, "place": _PLACES}.get(kind, _THINGS)[phrase.noun]
    if phrase.plural:
        stem = row[-1][:-1]  # without the virama
        return {"nom": row[-1], "acc": stem + "ை+", "dat": stem + "ுக்கு+", "loc": stem + "ில்"}[case]
    if kind == "person":
        return {"nom": row[1], "acc": row[2] + "+", "dat": row[3] + "+"}[case]
    if kind == "place":
        return {"loc": row[1], "dat": row[2] + "+"}[case]
    return {"nom": row[0], "acc": row[1] + "+"}[case]


def _each(phrase: NounPhrase, case: str) -> str:
    """The noun after ஒவ்வொரு (every), which takes the suffix உம் after that of the case."""
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
    adjective = _ADJECTIVES[phrase.adjective][0] if phrase.adjective else ""
    noun = _each(phrase, case) if phrase.det == "every" else _case(phrase, case)
    words = [_DETERMINERS[phrase.det], adjective, noun]
    return (_relative(phrase.relative) if phrase.relative else []) + [w for w in words if w]


def _place(place: Place | None) -> list[str]:
    if place is None:
        return []
    if place.relation == "in":
        return _phrase(place.phrase, "loc")
    return [*_phrase(place.phrase, "dat"), _RELATIONS[place.relation]]


def _relative(clause: Relative) -> list[str]:
    """All of the clause stands before its head and ends in a participle."""
    past, present, _, infinitive = _VERBS[clause.verb]
    participle = {"past": past, "present": present, "future": infinitive + "ும்"}[clause.tense]
    subject, object_ = _phrase(clause.subject, "nom"), _phrase(clause.object, "acc")
    return [*subject, *_place(clause.place), *object_, participle]


def _class(subject: NounPhrase) -> str:
    """m, f, p (rational plural), n, np (irrational plural)."""
    if KINDS[subject.noun] != "person":
        return "np" if subject.plural else "n"
    return "p" if subject.plural else _PERSONS[subject.noun][0]


def _finite(verb: str, tense: str, who: str) -> str:
    past, present, future, infinitive = _VERBS[verb]
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
    _, _, future, infinitive = _VERBS[verb]
    if tense == "past":
        return infinitive + "வில்லை"
    if tense == "present":
        return future + "தில்லை"
    return f"{infinitive} மாட்ட{_ENDINGS[who]}" if who in _ENDINGS else infinitive + "ாது"


def _question(verb: str) -> str:
    """The verb with the question suffix ஆ."""
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
    """One Tamil sentence."""
    who = _class(meaning.subject)
    make = _negative if meaning.negated else _finite
    verb = make(meaning.verb, meaning.tense, who)
    subject = _phrase(meaning.subject, "nom")
    time = [_TIMES[meaning.time]] if meaning.time else []
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
    **{concept: row[1] for concept, row in _PERSONS.items()},
    **{concept: row[0] for concept, row in (_THINGS | _PLACES).items()},
    **{concept: row[3] for concept, row in _VERBS.items()},
    **{concept: row[0].removesuffix("+") for concept, row in _ADJECTIVES.items()},
    **{det: word.removesuffix("+") for det, word in _DETERMINERS.items() if word},
    **_RELATIONS,
    **_TIMES,
}
TONGUE = Tongue("ta", "Tamil", "tamil", LEXICON, render)
