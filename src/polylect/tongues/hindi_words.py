"""The words of Hindi, and what of their forms no rule of its grammar gives."""

import unicodedata

from polylect.tongues.concepts import NUMERALS
from polylect.tongues.grammar import table


def _table(text: str) -> dict[str, list[str]]:
    return table(unicodedata.normalize("NFC", text))


# concept: gender, direct singular; the other forms follow from the ending
NOUNS = _table("""
man m आदमी
boy m लड़का
king m राजा invariable
prince m राजकुमार
farmer m किसान
fisherman m मछुआरा
student m छात्र
friend m दोस्त
thief m चोर
merchant m व्यापारी
woman f औरत
girl f लड़की
queen f रानी
princess f राजकुमारी
grandmother f दादी
sister f बहन
singer f गायिका
maid f नौकरानी
actress f अभिनेत्री
dog m कुत्ता
cat f बिल्ली
horse m घोड़ा
cow f गाय
elephant m हाथी
monkey m बंदर
goat f बकरी
bird f चिड़िया
lion m शेर
banana m केला
orange m संतरा
egg m अंडा
carrot f गाजर
pear f नाशपाती
melon m ख़रबूज़ा
book f किताब
letter f चिट्ठी
story f कहानी
poem f कविता
box m डिब्बा
bag m थैला
basket f टोकरी
bottle f बोतल
key f चाबी
chair f कुर्सी
table f मेज़
ring f अँगूठी
hat f टोपी
umbrella m छाता
rope f रस्सी
boat f नाव
door m दरवाज़ा
window f खिड़की
bell f घंटी
doll f गुड़िया
garden m बगीचा
house m घर
school m स्कूल
village m गाँव
city m शहर
forest m जंगल
temple m मंदिर
palace m महल
shop f दुकान
kitchen f रसोई
hospital m अस्पताल
""")

# concept: stem; "ergative" marks the intransitive verb that takes ने, "marking" the verbs whose
# animals take को even if they are indefinite
VERBS = _table("""
sleep सो
sing गा ergative
dance नाच
laugh हँस
cry रो
run दौड़
play खेल
jump कूद
smile मुस्कुरा
shout चिल्ला
see देख
seek ढूँढ़
buy ख़रीद
steal चुरा
hide छिपा
carry ढो
touch छू marking
wash धो
eat खा
peel छील
open खोल
break तोड़
push धकेल marking
pull खींच marking
catch पकड़
call बुला marking
rescue बचा marking
wake जगा marking
write लिख
understand समझ
choose चुन
lose खो
give दे
show दिखा
send भेज
sell बेच
""")

ADJECTIVES = _table("""
red लाल
white सफ़ेद
black काला
green हरा
blue नीला
yellow पीला
big बड़ा
small छोटा
new नया
old पुराना
beautiful सुंदर
heavy भारी
clean साफ़
expensive महँगा
long लंबा
good अच्छा
brave बहादुर
happy ख़ुश
rich अमीर
poor ग़रीब
lazy आलसी
strong ताक़तवर
hungry भूखा
quiet शांत
""")

DETERMINERS = {
    "the": "",
    "a": "एक",
    "every": "हर",
    "some": "कुछ",
    "many": "कई",
    **dict(zip(NUMERALS, ["दो", "तीन", "चार", "पाँच", "छह"], strict=True)),
}
# Dictionary form of those that agree; the forms are made by `_determiner`.
AGREEING = {"this": "यह", "my": "मेरा", "our": "हमारा"}
RELATIONS = {"in": "में", "behind": "के पीछे", "near": "के पास", "in_front_of": "के सामने"}
TIMES = {
    "yesterday": "कल",
    "last_week": "पिछले हफ़्ते",
    "last_year": "पिछले साल",
    "every_day": "रोज़",
    "often": "अक्सर",
    "tomorrow": "कल",
    "next_week": "अगले हफ़्ते",
    "next_year": "अगले साल",
    "today": "आज",
    "at_noon": "दोपहर को",
    "in_the_evening": "शाम को",
    "at_night": "रात को",
}
TIMES = {time: unicodedata.normalize("NFC", word) for time, word in TIMES.items()}
