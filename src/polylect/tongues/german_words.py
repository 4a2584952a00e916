"""The words of German, and what of their forms no rule of its grammar gives."""

from polylect.tongues.concepts import NUMERALS
from polylect.tongues.grammar import table

# concept: singular gender plural; "weak" nouns take the plural form outside the nominative.
NOUNS = table("""
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
VERBS = table("""
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
ADJECTIVES = table("""
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

DETERMINERS = {
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
RELATIONS = {"in": "in", "behind": "hinter", "near": "bei", "in_front_of": "vor"}
TIMES = {
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
