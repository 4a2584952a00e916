"""German: verb second, verb last in relative clauses, case on everything before the noun.

The past is the Präteritum, so that no verb has a separable part; "nicht" stands after the objects
and before the place; a relative clause of the object stands after the verb's last part.
"""

from polylect.data.tongues.grammar import (
    NUMERALS,
    Meaning,
    NounPhrase,
    Place,
    Tongue,
    sentence,
    table,
)

# concept: singular gender plural; "weak" nouns take the plural form outside the nominative.
_NOUNS = table("""
man Mann m Männer
boy Junge m Jungen weak
king König m Könige
prince Prinz m Prinzen weak
farmer Bauer m Bauern weak
fisherman Fischer m Fischer
student Student m Studenten weak
friend Freund m Freunde
thief Dieb m Diebe
merchant Händler m Händler
woman Frau f Frauen
girl Mädchen n Mädchen
queen Königin f Königinnen
princess Prinzessin f Prinzessinnen
grandmother Großmutter f Großmütter
sister Schwester f Schwestern
singer Sängerin f Sängerinnen
maid Magd f Mägde
actress Schauspielerin f Schauspielerinnen
dog Hund m Hunde
cat Katze f Katzen
horse Pferd n Pferde
cow Kuh f Kühe
elephant Elefant m Elefanten weak
monkey Affe m Affen weak
goat Ziege f Ziegen
bird Vogel m Vögel
lion Löwe m Löwen weak
banana Banane f Bananen
orange Orange f Orangen
egg Ei n Eier
carrot Karotte f Karotten
pear Birne f Birnen
melon Melone f Melonen
book Buch n Bücher
letter Brief m Briefe
story Geschichte f Geschichten
poem Gedicht n Gedichte
box Kiste f Kisten
bag Tasche f Taschen
basket Korb m Körbe
bottle Flasche f Flaschen
key Schlüssel m Schlüssel
chair Stuhl m Stühle
table Tisch m Tische
ring Ring m Ringe
hat Hut m Hüte
umbrella Regenschirm m Regenschirme
rope Seil n Seile
boat Boot n Boote
door Tür f Türen
window Fenster n Fenster
bell Glocke f Glocken
doll Puppe f Puppen
garden Garten m Gärten
house Haus n Häuser
school Schule f Schulen
village Dorf n Dörfer
city Stadt f Städte
forest Wald m Wälder
temple Tempel m Tempel
palace Palast m Paläste
shop Laden m Läden
kitchen Küche f Küchen
hospital Krankenhaus n Krankenhäuser
""")

# concept: infinitive, which is also the present plural; third person singular; past singular
_VERBS = table("""
sleep schlafen schläft schlief
sing singen singt sang
dance tanzen tanzt tanzte
laugh lachen lacht lachte
cry weinen weint weinte
run rennen rennt rannte
play spielen spielt spielte
jump springen springt sprang
smile lächeln lächelt lächelte
shout schreien schreit schrie
see sehen sieht sah
seek suchen sucht suchte
buy kaufen kauft kaufte
steal stehlen stiehlt stahl
hide verstecken versteckt versteckte
carry tragen trägt trug
touch berühren berührt berührte
wash waschen wäscht wusch
eat essen isst aß
peel schälen schält schälte
open öffnen öffnet öffnete
break zerbrechen zerbricht zerbrach
push schieben schiebt schob
pull ziehen zieht zog
catch fangen fängt fing
call rufen ruft rief
rescue retten rettet rettete
wake wecken weckt weckte
write schreiben schreibt schrieb
understand verstehen versteht verstand
choose wählen wählt wählte
lose verlieren verliert verlor
give geben gibt gab
show zeigen zeigt zeigte
send schicken schickt schickte
sell verkaufen verkauft verkaufte
""")

# concept: dictionary form, and the stem before endings where it differs
_ADJECTIVES = table("""
red rot
white weiß
black schwarz
green grün
blue blau
yellow gelb
big groß
small klein
new neu
old alt
beautiful schön
heavy schwer
clean sauber
expensive teuer teur
long lang
good gut
brave mutig
happy glücklich
rich reich
poor arm
lazy faul
strong stark
hungry hungrig
quiet ruhig
""")

_DETERMINERS = {
    "the": "der",
    "this": "dieser",
    "my": "mein",
    "our": "unser",
    "a": "ein",
    "every": "jeder",
    "some": "einige",
    "many": "viele",
    **dict(zip(NUMERALS, ["zwei", "drei", "vier", "fünf", "sechs"], strict=True)),
}
_RELATIONS = {"in": "in", "behind": "hinter", "near": "bei", "in_front_of": "vor"}
_TIMES = {
    "yesterday": "gestern",
    "last_week": "letzte Woche",
    "last_year": "letztes Jahr",
    "every_day": "jeden Tag",
    "often": "oft",
    "tomorrow": "morgen",
    "next_week": "nächste Woche",
    "next_year": "nächstes Jahr",
    "today": "heute",
    "at_noon": "am Mittag",
    "in_the_evening": "am Abend",
    "at_night": "in der Nacht",
}


def _paradigm(nominative: str, accusative: str, dative: str) -> dict[str, dict[str, str]]:
    """case, gender or plural (m f n p): form; "-" is no ending."""
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
        return _DETERMINERS[det]
    if det in _STEMS:
        return _STEMS[det] + _STRONG[case][gender]
    return _DETERMINERS[det] + _MIXED_DETERMINER[case][gender]


def _adjective(adjective: str | None, det: str, case: str, gender: str) -> str:
    if adjective is None:
        return ""
    if det in ("the", "this", "every"):
        endings = _WEAK_ADJECTIVE
    elif det in ("a", "my", "our"):
        endings = _MIXED_ADJECTIVE
    else:
        endings = _STRONG
    return _ADJECTIVES[adjective][-1] + endings[case][gender]


def _noun(noun: str, plural: bool, case: str) -> str:
    singular, _, plural_form, *weak = _NOUNS[noun]
    if plural:
        return plural_form + ("n" if case == "dat" and plural_form[-1] not in "ns" else "")
    return plural_form if weak and case != "nom" else singular


def _words(phrase: NounPhrase, case: str) -> list[str]:
    gender = "p" if phrase.plural else _NOUNS[phrase.noun][1]
    det = _determiner(phrase.det, case, gender)
    adjective = _adjective(phrase.adjective, phrase.det, case, gender)
    noun = _noun(phrase.noun, phrase.plural, case)
    return [det, adjective, noun] if adjective else [det, noun]


def _phrase(phrase: NounPhrase | None, case: str) -> str:
    return " ".join(_words(phrase, case)) if phrase else ""


def _place(place: Place | None) -> str:
    if place is None:
        return ""
    preposition = _RELATIONS[place.relation]
    det, *rest = _words(place.phrase, "dat")
    start = _CONTRACTIONS.get((preposition, det), f"{preposition} {det}")
    return " ".join((start, *rest))


def _finite(verb: str, tense: str, plural: bool) -> str:
    infinitive, third, past = _VERBS[verb]
    if tense == "future":
        return "werden" if plural else "wird"
    if tense == "present":
        return infinitive if plural else third
    if not plural:
        return past
    return past + ("n" if past.endswith("e") else "en")


def _last(verb: str, tense: str) -> str:
    return _VERBS[verb][0] if tense == "future" else ""


def _relative(head: NounPhrase) -> str:
    """Comma, pronoun, the rest of the clause with its verb at the end; empty without a clause."""
    clause = head.relative
    if clause is None:
        return ""
    gender = "p" if head.plural else _NOUNS[head.noun][1]
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
    """One German sentence."""
    subject = _phrase(meaning.subject, "nom")
    clause = _relative(meaning.subject)
    verb = _finite(meaning.verb, meaning.tense, meaning.subject.plural)
    time = _TIMES[meaning.time] if meaning.time else ""
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
    **{concept: forms[0] for concept, forms in (_NOUNS | _VERBS | _ADJECTIVES).items()},
    **_DETERMINERS,
    **_RELATIONS,
    **_TIMES,
}
TONGUE = Tongue("de", "German", "latin", LEXICON, render)
