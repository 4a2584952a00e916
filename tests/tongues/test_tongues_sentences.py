"""The readable fragments: every sentence here was written by hand none is copied from output."""

from dataclasses import replace

import pytest

from polylect import tongues
from polylect.tongues import Meaning, Place, Relative
from polylect.tongues import NounPhrase as P
from polylect.tongues.concepts import DETERMINERS

# fmt: off
# The same meanings in all five fragments.
SHARED = [
    (
        Meaning(P("boy"), "see", "past", P("dog", "a"), time="yesterday"),
        "Yesterday the boy saw a dog.",
        "Gestern sah der Junge einen Hund.",
        "Hier, le garçon a vu un chien.",
        "कल लड़के ने एक कुत्ता देखा।",
        "நேற்று சிறுவன் ஒரு நாயைப் பார்த்தான்.",
    ),
    (
        Meaning(P("woman", plural=True), "sell", "future", P("basket", "this", True, "red"),
                P("student", "my")),
        "The women will sell these red baskets to my student.",
        "Die Frauen werden meinem Studenten diese roten Körbe verkaufen.",
        "Les femmes vont vendre ces paniers rouges à mon étudiant.",
        "औरतें मेरे छात्र को ये लाल टोकरियाँ बेचेंगी।",
        "பெண்கள் என் மாணவனுக்கு இந்தச் சிவப்புக் கூடைகளை விற்பார்கள்.",
    ),
    (
        Meaning(P("girl", "my"), "call", "present", P("elephant", "the", True, "big"),
                place=Place("in", P("garden")), negated=True),
        "My girl does not call the big elephants in the garden.",
        "Mein Mädchen ruft die großen Elefanten nicht im Garten.",
        "Ma fille n'appelle pas les grands éléphants dans le jardin.",
        "मेरी लड़की बगीचे में बड़े हाथियों को नहीं बुलाती है।",
        "என் சிறுமி தோட்டத்தில் பெரிய யானைகளை அழைப்பதில்லை.",
    ),
    (
        Meaning(P("friend", "a", adjective="rich"), "buy", "past",
                P("umbrella", "this", adjective="old"), time="today", question=True),
        "Did a rich friend buy this old umbrella today?",
        "Kaufte ein reicher Freund heute diesen alten Regenschirm?",
        "Est-ce qu'un ami riche a acheté ce vieux parapluie aujourd'hui ?",
        "क्या आज एक अमीर दोस्त ने यह पुराना छाता ख़रीदा?",
        "இன்று ஒரு பணக்கார நண்பன் இந்தப் பழைய குடையை வாங்கினானா?",
    ),
    (
        Meaning(
            P("queen", relative=Relative("write", "past", object=P("poem", "a", False, "long"))),
            "wake", "present", P("lion")),
        "The queen who wrote a long poem wakes the lion.",
        "Die Königin, die ein langes Gedicht schrieb, weckt den Löwen.",
        "La reine qui a écrit un long poème réveille le lion.",
        "जिस रानी ने एक लंबी कविता लिखी, वह शेर को जगाती है।",
        "ஒரு நீண்ட கவிதையை எழுதிய அரசி சிங்கத்தை எழுப்புகிறாள்.",
    ),
    (
        Meaning(P("thief", "many", True), "seek", "present",
                P("ring", "the", True, relative=Relative("buy", "past", subject=P("king")))),
        "Many thieves seek the rings that the king bought.",
        "Viele Diebe suchen die Ringe, die der König kaufte.",
        "Beaucoup de voleurs cherchent les bagues que le roi a achetées.",
        "कई चोर वे अँगूठियाँ ढूँढ़ते हैं जो राजा ने ख़रीदीं।",
        "பல திருடர்கள் அரசன் வாங்கிய மோதிரங்களைத் தேடுகிறார்கள்.",
    ),
    (
        Meaning(P("monkey", "three", True, "small"), "jump", "future",
                place=Place("near", P("temple")), time="tomorrow"),
        "Tomorrow three small monkeys will jump near the temple.",
        "Morgen werden drei kleine Affen beim Tempel springen.",
        "Demain, trois petits singes vont sauter près du temple.",
        "कल तीन छोटे बंदर मंदिर के पास कूदेंगे।",
        "நாளை மூன்று சிறிய குரங்குகள் கோயிலுக்கு அருகில் குதிக்கும்.",
    ),
    (
        Meaning(P("princess", "our"), "give", "past", P("book", "my", True),
                P("farmer", "the", True, "poor"), negated=True, question=True),
        "Did our princess not give my books to the poor farmers?",
        "Gab unsere Prinzessin den armen Bauern meine Bücher nicht?",
        "Est-ce que notre princesse n'a pas donné mes livres aux paysans pauvres ?",
        "क्या हमारी राजकुमारी ने ग़रीब किसानों को मेरी किताबें नहीं दीं?",
        "எங்கள் இளவரசி ஏழை உழவர்களுக்கு என் புத்தகங்களைக் கொடுக்கவில்லையா?",
    ),
    (
        Meaning(P("man"), "rescue", "past",
                P("cat", "the", True,
                  relative=Relative("sleep", "present", place=Place("behind", P("house", "our")))),
                time="last_week"),
        "Last week the man rescued the cats that sleep behind our house.",
        "Letzte Woche rettete der Mann die Katzen, die hinter unserem Haus schlafen.",
        "La semaine dernière, l'homme a sauvé les chats qui dorment derrière notre maison.",
        "पिछले हफ़्ते आदमी ने उन बिल्लियों को बचाया जो हमारे घर के पीछे सोती हैं।",
        "கடந்த வாரம் மனிதன் எங்கள் வீட்டுக்குப் பின்னால் தூங்குகிற பூனைகளைக் காப்பாற்றினான்.",
    ),
    (
        Meaning(P("actress", "every"), "dance", "present",
                place=Place("in_front_of", P("hospital", "a", adjective="new")),
                time="in_the_evening"),
        "In the evening every actress dances in front of a new hospital.",
        "Am Abend tanzt jede Schauspielerin vor einem neuen Krankenhaus.",
        "Le soir, chaque actrice danse devant un nouvel hôpital.",
        "शाम को हर अभिनेत्री एक नए अस्पताल के सामने नाचती है।",
        "மாலையில் ஒவ்வொரு நடிகையும் ஒரு புதிய மருத்துவமனைக்கு முன்னால் நடனமாடுகிறாள்.",
    ),
    (
        Meaning(P("goat", "this", True), "break", "future", P("door", adjective="green"),
                negated=True),
        "These goats will not break the green door.",
        "Diese Ziegen werden die grüne Tür nicht zerbrechen.",
        "Ces chèvres ne vont pas casser la porte verte.",
        "ये बकरियाँ हरा दरवाज़ा नहीं तोड़ेंगी।",
        "இந்த ஆடுகள் பச்சைக் கதவை உடைக்காது.",
    ),
    (
        Meaning(P("grandmother", "our"), "show", "present",
                P("story", "every", adjective="beautiful"), P("boy", "two", True)),
        "Our grandmother shows every beautiful story to two boys.",
        "Unsere Großmutter zeigt zwei Jungen jede schöne Geschichte.",
        "Notre grand-mère montre chaque belle histoire à deux garçons.",
        "हमारी दादी दो लड़कों को हर सुंदर कहानी दिखाती है।",
        "எங்கள் பாட்டி இரண்டு சிறுவர்களுக்கு ஒவ்வொரு அழகான கதையையும் காட்டுகிறாள்.",
    ),
    (
        Meaning(P("fisherman", "some", True, "hungry"), "eat", "past", P("banana", plural=True),
                place=Place("in", P("city", plural=True)), time="at_noon"),
        "At noon some hungry fishermen ate the bananas in the cities.",
        "Am Mittag aßen einige hungrige Fischer die Bananen in den Städten.",
        "À midi, quelques pêcheurs affamés ont mangé les bananes dans les villes.",
        "दोपहर को कुछ भूखे मछुआरों ने शहरों में केले खाए।",
        "நண்பகலில் சில பசியுள்ள மீனவர்கள் நகரங்களில் வாழைப்பழங்களைச் சாப்பிட்டார்கள்.",
    ),
    (
        Meaning(
            P("man", "the", True,
              relative=Relative("shout", "past", place=Place("in", P("shop", "this")))),
            "touch", "past", P("cow", "a"), time="last_year"),
        "Last year the men who shouted in this shop touched a cow.",
        "Letztes Jahr berührten die Männer, die in diesem Laden schrien, eine Kuh.",
        "L'année dernière, les hommes qui ont crié dans ce magasin ont touché une vache.",
        "जो आदमी इस दुकान में चिल्लाए, उन्होंने पिछले साल एक गाय को छुआ।",
        "இந்தக் கடையில் கத்திய மனிதர்கள் கடந்த ஆண்டு ஒரு பசுவைத் தொட்டார்கள்.",
    ),
]
# What only one language shows.
OWN = [
    (
        "en",
        Meaning(P("elephant", "a"), "sleep", "present"),
        "An elephant sleeps.",
    ),
    (
        "en",
        Meaning(P("maid", plural=True), "understand", "present",
                P("letter", "a", adjective="old"), time="often", question=True),
        "Do the maids understand an old letter often?",
    ),
    (
        "de",
        Meaning(P("prince"), "send", "present", P("letter", "some", True, "expensive"),
                P("merchant", "every"), time="today"),
        "Heute schickt der Prinz jedem Händler einige teure Briefe.",
    ),
    (
        "de",
        Meaning(
            P("girl",
              relative=Relative("sing", "future",
                                place=Place("in", P("palace", "the", False, "old")))),
            "smile", "present", time="often"),
        "Oft lächelt das Mädchen, das im alten Palast singen wird.",
    ),
    (
        "de",
        Meaning(P("farmer"), "catch", "future",
                P("monkey", relative=Relative("steal", "past", object=P("bell"))), negated=True),
        "Der Bauer wird den Affen nicht fangen, der die Glocke stahl.",
    ),
    (
        "de",
        Meaning(P("student", "this", True), "run", "past",
                place=Place("behind", P("house", "the", True, "small"))),
        "Diese Studenten rannten hinter den kleinen Häusern.",
    ),
    (
        "fr",
        Meaning(P("bird", adjective="beautiful"), "sleep", "past",
                place=Place("in", P("hospital")), negated=True),
        "Le bel oiseau n'a pas dormi dans l'hôpital.",
    ),
    (
        "fr",
        Meaning(P("actress"), "give", "present", P("egg", "this"), P("friend", adjective="happy"),
                question=True),
        "Est-ce que l'actrice donne cet œuf à l'ami heureux ?",
    ),
    (
        "fr",
        Meaning(P("horse", "the", True, "beautiful"), "run", "past",
                place=Place("near", P("school", "my"))),
        "Les beaux chevaux ont couru près de mon école.",
    ),
    (
        "fr",
        Meaning(P("woman"), "open", "present",
                P("box", relative=Relative("lose", "past", subject=P("man", "a")))),
        "La femme ouvre la boîte qu'un homme a perdue.",
    ),
    (
        "fr",
        Meaning(P("dog", "many", True), "play", "future", place=Place("near", P("city", "a"))),
        "Beaucoup de chiens vont jouer près d'une ville.",
    ),
    (
        "fr",
        Meaning(P("student", "many", True), "play", "present",
                place=Place("near", P("shop", "the", True))),
        "Beaucoup d'étudiants jouent près des magasins.",
    ),
    (
        "hi",
        Meaning(P("singer", relative=Relative("sing", "past")), "lose", "past", P("bell")),
        "जिस गायिका ने गाया, उसने घंटी खोई।",
    ),
    (
        "hi",
        Meaning(P("girl"), "understand", "present",
                P("book", relative=Relative("write", "future", subject=P("king")))),
        "लड़की वह किताब समझती है जो राजा लिखेगा।",
    ),
    (
        "hi",
        Meaning(P("man"), "call", "past", P("woman", "a")),
        "आदमी ने एक औरत को बुलाया।",
    ),
    (
        "hi",
        Meaning(P("monkey", plural=True), "steal", "past", P("goat", "five", True, "black")),
        "बंदरों ने पाँच काली बकरियाँ चुराईं।",
    ),
    (
        "hi",
        Meaning(P("queen", plural=True), "laugh", "past",
                place=Place("in", P("kitchen", "the", True))),
        "रानियाँ रसोइयों में हँसीं।",
    ),
    (
        "hi",
        Meaning(P("farmer"), "wash", "past", P("table", "our", True), negated=True),
        "किसान ने हमारी मेज़ें नहीं धोईं।",
    ),
    (
        "hi",
        Meaning(P("friend", "my"), "rescue", "past",
                P("dog", "the", True,
                  relative=Relative("steal", "past", object=P("egg", "two", True)))),
        "मेरे दोस्त ने उन कुत्तों को बचाया जिन्होंने दो अंडे चुराए।",
    ),
    (
        "ta",
        Meaning(P("king"), "call", "future", P("queen", "my"), negated=True),
        "அரசன் என் அரசியை அழைக்க மாட்டான்.",
    ),
    (
        "ta",
        Meaning(P("elephant", "a"), "sleep", "present", place=Place("in", P("forest")),
                question=True),
        "ஒரு யானை காட்டில் தூங்குகிறதா?",
    ),
    (
        "ta",
        Meaning(P("queen", "a"), "see", "past", P("cat", "every")),
        "ஓர் அரசி ஒவ்வொரு பூனையையும் பார்த்தாள்.",
    ),
    (
        "ta",
        Meaning(P("dog", plural=True), "run", "past", place=Place("in", P("forest")),
                question=True),
        "நாய்கள் காட்டில் ஓடினவா?",
    ),
    (
        "ta",
        Meaning(P("bird", "the", True, "black"), "play", "present", time="often"),
        "அடிக்கடி கறுப்புப் பறவைகள் விளையாடுகின்றன.",
    ),
    (
        "ta",
        Meaning(P("girl"), "choose", "past",
                P("boat", relative=Relative("buy", "future", subject=P("farmer", plural=True)))),
        "சிறுமி உழவர்கள் வாங்கும் படகைத் தேர்ந்தெடுத்தாள்.",
    ),
    (
        "ta",
        Meaning(P("goat", "every"), "carry", "past", P("banana", adjective="big")),
        "ஒவ்வொரு ஆடும் பெரிய வாழைப்பழத்தைச் சுமந்தது.",
    ),
    (
        "en",
        Meaning(P("thief", plural=True), "steal", "past", P("orange", "a", adjective="big"),
                place=Place("in", P("kitchen", "my")), negated=True),
        "The thieves did not steal a big orange in my kitchen.",
    ),
    (
        "de",
        Meaning(P("student", "a"), "show", "present", P("egg", "four", True), P("prince", "a")),
        "Ein Student zeigt einem Prinzen vier Eier.",
    ),
    (
        "fr",
        Meaning(P("man", "this"), "sell", "future", P("book", "the", True, "new"), P("king")),
        "Cet homme va vendre les nouveaux livres au roi.",
    ),
    (
        "ta",
        Meaning(P("horse", "my"), "break", "future", P("chair", "this")),
        "என் குதிரை இந்த நாற்காலியை உடைக்கும்.",
    ),
]
# fmt: on


@pytest.mark.parametrize("row", SHARED, ids=lambda row: row[1])
def test_all_fragments_say_what_was_written_by_hand(row):
    meaning, *expected = row
    assert [tongues.render(meaning, code) for code in ("en", "de", "fr", "hi", "ta")] == expected


@pytest.mark.parametrize(("code", "meaning", "expected"), OWN, ids=lambda value: str(value)[:40])
def test_one_fragment_says_what_was_written_by_hand(code, meaning, expected):
    assert tongues.render(meaning, code) == expected


@pytest.mark.parametrize("code", tongues.TONGUES)
def test_small_differences_of_meaning_are_heard(code):
    """Number, definiteness, tense, negation, mood: each alone makes another sentence."""
    for base in (meaning for meaning, *_ in SHARED):
        variants = {str(v): v for v in _neighbours(base)}
        renderings = {tongues.render(v, code) for v in variants.values()}
        assert len(renderings) == len(variants) > 10


def _neighbours(base: Meaning):
    yield base
    changes = [{"negated": not base.negated}, {"question": not base.question}]
    changes += [{"tense": tense} for tense in ("past", "present", "future")]
    for role in ("subject", "object", "recipient"):
        phrase = getattr(base, role)
        if phrase:
            changes += [
                {role: replace(phrase, det=det, plural=plural, relative=None)}
                for det in ("the", "this", "my", "our", "a", "every", "some", "many", "two")
                for plural in (False, True)
                if DETERMINERS[det][0 if plural else 1]
            ]
    for change in changes:
        yield replace(base, **{"time": None, **change})
