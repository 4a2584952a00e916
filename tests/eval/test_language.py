"""Outputs are told apart by script and by py3langid, and nothing is guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylect.eval.language import OTHER, UNDECIDED, detect

SCRIPTS = {
    "en": ["Latin"], "de": ["Latin"], "fr": ["Latin"], "cs": ["Latin"], "hi": ["Devanagari"],
    "mr": ["Devanagari"], "ta": ["Tamil"], "ml": ["Malayalam"], "te": ["Telugu"],
    "bn": ["Bengali"], "ja": ["Han", "Hiragana", "Katakana"], "zh": ["Han"],
}  # fmt: skip

SENTENCES = [
    ("en", "The children were already asleep when we came home."),
    ("en", "She writes a letter to her brother every week."),
    ("de", "Die Kinder schliefen schon, als wir nach Hause kamen."),
    ("de", "Jeden Morgen kauft er frisches Brot beim Bäcker."),
    ("fr", "Les enfants dormaient déjà quand nous sommes rentrés."),
    ("fr", "Elle écrit chaque semaine une lettre à son frère."),
    ("cs", "Když jsme přišli domů, děti už spaly."),
    ("cs", "Každý týden píše svému bratrovi dlouhý dopis."),
    ("hi", "जब हम घर आए तब बच्चे सो चुके थे।"),
    ("hi", "वह हर हफ़्ते अपने भाई को एक पत्र लिखती है।"),
    ("mr", "आम्ही घरी आलो तेव्हा मुले झोपली होती."),
    ("mr", "ती दर आठवड्याला तिच्या भावाला पत्र लिहिते आणि पाठवते."),
    ("ta", "நாங்கள் வீட்டிற்கு வந்தபோது குழந்தைகள் தூங்கிவிட்டார்கள்."),
    ("ta", "அவள் தன் அண்ணனுக்கு ஒரு கடிதம் எழுதுகிறாள்."),
    ("ml", "ഞങ്ങൾ വീട്ടിൽ എത്തിയപ്പോൾ കുട്ടികൾ ഉറങ്ങിയിരുന്നു."),
    ("te", "మేము ఇంటికి వచ్చేసరికి పిల్లలు నిద్రపోయారు."),
    ("bn", "আমরা যখন বাড়ি ফিরলাম তখন বাচ্চারা ঘুমিয়ে পড়েছিল।"),
    ("ja", "私たちが家に帰ったとき、子どもたちはもう寝ていました。"),
    ("zh", "我们回到家的时候，孩子们已经睡着了。"),
]


@pytest.mark.parametrize("scripts", [SCRIPTS, None], ids=["scripts", "py3langid alone"])
def test_every_sentence_is_recognised_among_twelve_languages(scripts):
    texts = [text for _, text in SENTENCES]
    assert detect(texts, list(SCRIPTS), scripts) == [code for code, _ in SENTENCES]


@pytest.mark.parametrize("text", ["", "  ", "12 + 30 = 42", "OK", "a red car", "लाल कार", "茶です"])
def test_too_little_text_is_undecided(text):
    assert detect([text], ["en", "hi", "ja"], SCRIPTS) == [UNDECIDED]


def test_an_ideograph_counts_for_more_than_a_letter():
    assert detect(["孩子们睡着了", "abcdef"], ["zh", "en"], SCRIPTS) == ["zh", UNDECIDED]


def test_a_script_of_no_candidate_is_other():
    assert detect(["Дети уже спали, когда мы пришли."], ["en", "hi"], SCRIPTS) == [OTHER]


def test_names_in_another_script_do_not_decide():
    text = "कल Barack Obama ने New York में बच्चों को किताबें दीं।"
    assert detect([text], ["en", "hi"], SCRIPTS) == ["hi"]


def test_between_close_languages_a_few_words_are_undecided():
    assert detect(["सुंदर नगर भवन द्वार"], ["hi", "mr", "ne"]) == [UNDECIDED]


def test_synthetic_tongues_are_judged_by_script_or_not_at_all():
    scripts = {"qaa": ["Georgian"], "qab": ["Latin"], "en": ["Latin"]}
    georgian, latin = "ბომა ლური კეთი ზანო", "The children were already asleep."
    assert detect([georgian, latin], ["qaa", "en"], scripts) == ["qaa", "en"]
    # Latin letters may be qab, of which py3langid knows nothing.
    assert detect([latin, georgian], ["qab", "en"], scripts) == [UNDECIDED, OTHER]
    assert detect([latin], ["qab", "en"], {"qab": [], "en": ["Latin"]}) == [UNDECIDED]


def test_of_codes_that_cannot_be_told_apart_the_first_is_the_answer():
    scripts = {"zh": ["Han"], "zh_Hant": ["Han"], "en": ["Latin"]}
    text = "我們回到家的時候，孩子們已經睡著了。"
    assert detect([text], ["zh_Hant", "en", "zh"], scripts) == ["zh_Hant"]
    assert detect([text], ["zh", "en", "zh_Hant"], scripts) == ["zh"]


def test_scripts_of_one_language_are_told_apart():
    scripts = {"sr_Latn": ["Latin"], "sr_Cyrl": ["Cyrillic"]}
    texts = ["Deca su već spavala kad smo došli.", "Деца су већ спавала кад смо дошли."]
    assert detect(texts, ["sr_Cyrl", "sr_Latn"], scripts) == ["sr_Latn", "sr_Cyrl"]


def test_aliases_of_py3langid_labels():
    text = "Barna sov allerede da vi kom hjem fra byen i går."
    assert detect([text], ["nb", "en"]) == ["nb"]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="at least one candidate"):
        detect(["text"], [])
    with pytest.raises(ValueError, match="'Klingon' is not the Unicode name of a script"):
        detect(["text"], ["tlh"], {"tlh": ["Klingon"]})


@given(st.text(max_size=40), st.lists(st.sampled_from([*SCRIPTS, "qaa", "xx"]), min_size=1))
def test_any_text_gets_a_candidate_or_no_answer(text, candidates):
    (actual,) = detect([text], candidates, SCRIPTS)
    assert actual in {*candidates, UNDECIDED, OTHER}
    assert detect([text], candidates, SCRIPTS, min_letters=10**6) == [UNDECIDED]
