"""French: gender and number agreement, elision, contraction, ne ... pas, est-ce que, qui and que.

The past is the passé composé; all verbs here take "avoir", so the participle agrees only with an
object that stands before it ("la bague que le roi a achetée"). The future is "aller" + infinitive.
"""

from polylect.tongues.concepts import NUMERALS
from polylect.tongues.grammar import Meaning, NounPhrase, Place, Relative, Tongue, sentence, table

# concept: singular gender plural
_NOUNS = table("""
man homme m hommes
boy garçon m garçons
king roi m rois
prince prince m princes
farmer paysan m paysans
fisherman pêcheur m pêcheurs
student étudiant m étudiants
friend ami m amis
thief voleur m voleurs
merchant marchand m marchands
woman femme f femmes
girl fille f filles
queen reine f reines
princess princesse f princesses
grandmother grand-mère f grands-mères
sister sœur f sœurs
singer chanteuse f chanteuses
maid servante f servantes
actress actrice f actrices
dog chien m chiens
cat chat m chats
horse cheval m chevaux
cow vache f vaches
elephant éléphant m éléphants
monkey singe m singes
goat chèvre f chèvres
bird oiseau m oiseaux
lion lion m lions
banana banane f bananes
orange orange f oranges
egg œuf m œufs
carrot carotte f carottes
pear poire f poires
melon melon m melons
book livre m livres
letter lettre f lettres
story histoire f histoires
poem poème m poèmes
box boîte f boîtes
bag sac m sacs
basket panier m paniers
bottle bouteille f bouteilles
key clé f clés
chair chaise f chaises
table table f tables
ring bague f bagues
hat chapeau m chapeaux
umbrella parapluie m parapluies
rope corde f cordes
boat bateau m bateaux
door porte f portes
window fenêtre f fenêtres
bell cloche f cloches
doll poupée f poupées
garden jardin m jardins
house maison f maisons
school école f écoles
village village m villages
city ville f villes
forest forêt f forêts
temple temple m temples
palace palais m palais
shop magasin m magasins
kitchen cuisine f cuisines
hospital hôpital m hôpitaux
""")

# concept: infinitive; present third person singular, plural; participle
_VERBS = table("""
sleep dormir dort dorment dormi
sing chanter chante chantent chanté
dance danser danse dansent dansé
laugh rire rit rient ri
cry pleurer pleure pleurent pleuré
run courir court courent couru
play jouer joue jouent joué
jump sauter saute sautent sauté
smile sourire sourit sourient souri
shout crier crie crient crié
see voir voit voient vu
seek chercher cherche cherchent cherché
buy acheter achète achètent acheté
steal voler vole volent volé
hide cacher cache cachent caché
carry transporter transporte transportent transporté
touch toucher touche touchent touché
wash laver lave lavent lavé
eat manger mange mangent mangé
peel éplucher épluche épluchent épluché
open ouvrir ouvre ouvrent ouvert
break casser casse cassent cassé
push pousser pousse poussent poussé
pull tirer tire tirent tiré
catch attraper attrape attrapent attrapé
call appeler appelle appellent appelé
rescue sauver sauve sauvent sauvé
wake réveiller réveille réveillent réveillé
write écrire écrit écrivent écrit
understand comprendre comprend comprennent compris
choose choisir choisit choisissent choisi
lose perdre perd perdent perdu
give donner donne donnent donné
show montrer montre montrent montré
send envoyer envoie envoient envoyé
sell vendre vend vendent vendu
""")

# concept: masculine, feminine, place; for some the masculine plural and the form before a vowel
_ADJECTIVES = table("""
red rouge rouge after
white blanc blanche after
black noir noire after
green vert verte after
blue bleu bleue after
yellow jaune jaune after
big grand grande before
small petit petite before
new nouveau nouvelle before nouveaux nouvel
old vieux vieille before vieux vieil
beautiful beau belle before beaux bel
heavy lourd lourde after
clean propre propre after
expensive cher chère after
long long longue before
good bon bonne before
brave courageux courageuse after courageux
happy heureux heureuse after heureux
rich riche riche after
poor pauvre pauvre after
lazy paresseux paresseuse after paresseux
strong fort forte after
hungry affamé affamée after
quiet calme calme after
""")

# concept: masculine, feminine, plural
_ARTICLES = {
    "the": ("le", "la", "les"),
    "this": ("ce", "cette", "ces"),
    "my": ("mon", "ma", "mes"),
    "our": ("notre", "notre", "nos"),
    "a": ("un", "une", ""),
    "every": ("chaque", "chaque", ""),
    "some": ("", "", "quelques"),
    "many": ("", "", "beaucoup de"),
    **{
        numeral: ("", "", word)
        for numeral, word in zip(NUMERALS, ["deux", "trois", "quatre", "cinq", "six"], strict=True)
    },
}
_BEFORE_VOWEL = {"ce": "cet ", "ma": "mon ", "le": "l'", "la": "l'", "beaucoup de": "beaucoup d'"}
_CONTRACTIONS = {"à le ": "au ", "à les ": "aux ", "de le ": "du ", "de les ": "des "}
_RELATIONS = {"in": "dans", "behind": "derrière", "near": "près de", "in_front_of": "devant"}
_TIMES = {
    "yesterday": "hier",
    "last_week": "la semaine dernière",
    "last_year": "l'année dernière",
    "every_day": "chaque jour",
    "often": "souvent",
    "tomorrow": "demain",
    "next_week": "la semaine prochaine",
    "next_year": "l'année prochaine",
    "today": "aujourd'hui",
    "at_noon": "à midi",
    "in_the_evening": "le soir",
    "at_night": "la nuit",
}


def _vowel(text: str) -> bool:
    """Say whether a word begins with a vowel sound; none of this fragment has an aspirated h."""
    return text[0] in "aeiouhâàéèêîôûœ"


def _elide(word: str, text: str) -> str:
    """Join two words with elision: que + une femme = qu'une femme; ne + a vu = n'a vu."""
    return f"{word[:-1]}'{text}" if _vowel(text) else f"{word} {text}"


def _agreement(base: str, feminine: bool, plural: bool) -> str:
    """Return the participle in regular agreement."""
    return (
        base + ("e" if feminine else "") + ("s" if plural and (feminine or base[-1] != "s") else "")
    )


def _adjective(adjective: str, feminine: bool, plural: bool, noun: str) -> str:
    masculine, feminine_form, _, *special = _ADJECTIVES[adjective]
    if feminine:
        return feminine_form + ("s" if plural else "")
    if plural:
        return special[0] if special else masculine + "s"
    return special[1] if len(special) > 1 and _vowel(noun) else masculine


def _phrase(phrase: NounPhrase | None) -> str:
    if phrase is None:
        return ""
    singular, gender, plural_form = _NOUNS[phrase.noun]
    text = plural_form if phrase.plural else singular
    if phrase.adjective:
        adjective = _adjective(phrase.adjective, gender == "f", phrase.plural, text)
        before = _ADJECTIVES[phrase.adjective][2] == "before"
        text = f"{adjective} {text}" if before else f"{text} {adjective}"
    masculine, feminine, plural = _ARTICLES[phrase.det]
    det = plural if phrase.plural else feminine if gender == "f" else masculine
    det = _BEFORE_VOWEL[det] if det in _BEFORE_VOWEL and _vowel(text) else f"{det} "
    relative = f" {_relative(phrase.relative, phrase)}" if phrase.relative else ""
    return det + text + relative


def _after_preposition(preposition: str, phrase: NounPhrase | None) -> str:
    if phrase is None:
        return ""
    text = _phrase(phrase)
    if preposition.endswith("de") and _vowel(text):
        return f"{preposition[:-1]}'{text}"
    joined = f"{preposition} {text}"
    for apart, together in _CONTRACTIONS.items():
        # The relations end in "de"; "à" is alone.
        head, separator, tail = joined.partition(apart)
        if separator and head in ("", "près "):
            return head + together + tail
    return joined


def _place(place: Place | None) -> str:
    return _after_preposition(_RELATIONS[place.relation], place.phrase) if place else ""


def _verb(verb: str, tense: str, plural: bool, negated: bool, participle: str = "") -> str:
    """Return the verb with auxiliary and negation; `participle` is what it agrees with."""
    infinitive, singular, plural_form, base = _VERBS[verb]
    if tense == "present":
        finite, rest = plural_form if plural else singular, ""
    elif tense == "past":
        finite, rest = "ont" if plural else "a", " " + (participle or base)
    else:
        finite, rest = "vont" if plural else "va", f" {infinitive}"
    return (_elide("ne", finite) + " pas" if negated else finite) + rest


def _relative(clause: Relative, head: NounPhrase) -> str:
    if clause.subject is None:
        verb = _verb(clause.verb, clause.tense, head.plural, False)
        parts = ("qui", verb, _phrase(clause.object), _place(clause.place))
        return " ".join(part for part in parts if part)
    feminine = _NOUNS[head.noun][1] == "f"
    participle = _agreement(_VERBS[clause.verb][3], feminine, head.plural)
    verb = _verb(clause.verb, clause.tense, clause.subject.plural, False, participle)
    return f"{_elide('que', _phrase(clause.subject))} {verb}"


def render(meaning: Meaning) -> str:
    """Return one French sentence."""
    subject, plural = _phrase(meaning.subject), meaning.subject.plural
    rest = (
        _verb(meaning.verb, meaning.tense, plural, meaning.negated),
        _phrase(meaning.object),
        _after_preposition("à", meaning.recipient),
        _place(meaning.place),
    )
    time = _TIMES[meaning.time] if meaning.time else ""
    if meaning.question:
        return sentence((_elide("est-ce que", subject), *rest, time), " ?")
    return sentence((time + "," if time else "", subject, *rest), ".")


LEXICON = {
    **{concept: forms[0] for concept, forms in (_NOUNS | _VERBS | _ADJECTIVES).items()},
    **{det: next(filter(None, forms)) for det, forms in _ARTICLES.items()},
    **_RELATIONS,
    **_TIMES,
}
TONGUE = Tongue("fr", "French", "latin", LEXICON, render)
