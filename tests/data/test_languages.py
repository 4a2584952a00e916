import subprocess
import sys
import unicodedata

import pytest

from polylect.data.languages import LANGUAGES, language, script_share, split_direction


def test_all_languages_have_a_name_and_scripts_that_letters_belong_to() -> None:
    names = [entry.name for entry in LANGUAGES.values()]
    assert len(LANGUAGES) >= 110 and len(set(names)) == len(names)
    scripts = {script for entry in LANGUAGES.values() for script in entry.scripts}
    own: dict[str, list[str]] = {script: [] for script in scripts}
    for letter in map(chr, range(0x10000)):
        if unicodedata.category(letter)[0] == "L":
            first, *rest = unicodedata.name(letter).split()
            name = "Han" if first == "CJK" else first.title()
            name = name if name in own else f"{name} {rest[0].title()}" if rest else ""
            own.get(name, []).append(letter)
    for script, letters in own.items():
        assert letters and script_share("".join(letters), (script,)) == 1.0, script


def test_other_codes_belong_to_one_language_each() -> None:
    others = [(other, entry.code) for entry in LANGUAGES.values() for other in entry.also]
    assert len(dict(others)) == len(others) and not dict(others).keys() & LANGUAGES.keys()
    assert all(len(other) == 3 for other, _ in others)
    two_letters = {code for code in LANGUAGES if len(code) == 2}
    assert {code for _, code in others} == two_letters  # each of ISO 639-1 is in ISO 639-2
    # Codes of FLORES-200, of which some are those of the standard variety.
    some = {
        "deu": "de",
        "npi": "ne",
        "swh": "sw",
        "arb": "ar",
        "ory": "or",
        "zsm": "ms",
        "fre": "fr",
    }
    assert {other: code for other, code in others if other in some} == some


def test_scheduled_languages_of_india_are_known() -> None:
    codes = "as bn brx doi gu hi kn ks kok mai ml mni mr ne or pa sa sat sd ta te ur"
    assert set(codes.split()) <= LANGUAGES.keys()


@pytest.mark.parametrize(
    ("code", "name", "scripts"),
    [
        ("ta", "Tamil", ("Tamil",)),
        ("zh_Hant", "Chinese (Traditional)", ("Han",)),
        ("pt_BR", "Portuguese (Brazil)", ("Latin",)),
        ("sr_Latn", "Serbian (Latin script)", ("Latin",)),
        ("qab", "Language QAB", ()),
    ],
)
def test_language(code: str, name: str, scripts: tuple[str, ...]) -> None:
    assert (language(code).name, language(code).scripts) == (name, scripts)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("tamil", "ta (Tamil)"),
        ("deu", "de (German)"),
        ("jp", "ja (Japanese)"),
        ("qua", "qu (Quechua)"),  # qa-qt are private, qu- is not
        ("pt_brazil", "unknown suffix 'brazil'"),
    ],
)
def test_unknown_code_names_the_nearest(code: str, hint: str) -> None:
    with pytest.raises(ValueError, match="unknown") as error:
        language(code)
    assert hint in str(error.value) and code in str(error.value)


def test_split_direction() -> None:
    assert split_direction("en-pt_BR") == ("en", "pt_BR")
    assert split_direction("de") == (None, "de")
    assert split_direction("qaa-qtz") == ("qaa", "qtz")


@pytest.mark.parametrize(
    ("direction", "message"),
    [
        ("en-de-fr", "is not a direction"),
        ("", "is not a direction"),
        ("en-", "is not a direction"),
        ("en-en", "same language"),
        ("en-xq", "'en-xq': unknown language code 'xq'"),
    ],
)
def test_bad_directions(direction: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_direction(direction)


@pytest.mark.parametrize(
    ("text", "scripts", "share"),
    [
        ("Grüße", ("Latin",), 1.0),
        ("e\u0301te\u0301", ("Latin",), 1.0),  # combining accents belong to no script
        ("நான் ab", ("Tamil",), 4 / 6),  # vowel signs and the pulli are counted
        ("नमस्ते", ("Devanagari",), 1.0),
        ("日本語のカタカナ", ("Hiragana", "Katakana", "Han"), 1.0),
        ("日本語の", ("Han",), 3 / 4),
        ("12, 34!", ("Tamil",), 1.0),
        ("", ("Tamil",), 1.0),
        ("anything", (), 1.0),
        ("привет", ("Latin",), 0.0),
    ],
)
def test_script_share(text: str, scripts: tuple[str, ...], share: float) -> None:
    assert script_share(text, scripts) == pytest.approx(share)


def test_importing_needs_no_torch() -> None:
    modules = "polylect.data.languages, polylect.data.prompt, polylect.data.corpora.corpus"
    code = f"import sys, {modules}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("code", "right"),
    [
        ("eng_Latn", "en"),
        ("deu_Latn", "de"),
        ("tam_Taml", "ta"),
        ("zho_Hans", "zh_Hans"),
        ("hin_Latn", "hi_Latn"),
        ("por_BR", "pt_BR"),
    ],
)
def test_codes_of_other_collections_name_ours(code: str, right: str) -> None:
    assert language(right)
    with pytest.raises(ValueError, match=rf"unknown language code '{code}'.* write {right} \("):
        language(code)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("en→de", "en-de"), ("en->de", "en-de"), ("en–de ", "en-de"), (" en-de", "en-de"),
        ("en-pt-BR", "en-pt_BR"), ("zh-TW-en", "zh_TW-en"), ("en-zh-hans", "en-zh_Hans"),
        ("zh-Hans", "zh_Hans"), ("pt-BR", "pt_BR"), ("EN_DE", "en-de"), ("en-iw", "en-he"),
    ],
)  # fmt: skip
def test_what_was_meant_by_a_direction(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"write '{meant}'$"):
        split_direction(text)
    split_direction(meant)


@pytest.mark.parametrize("text", ["en-de-fr", "de-en,fr-en", "en-", "-", "en-in-de"])
def test_what_may_be_several_directions_is_not_guessed(text: str) -> None:
    with pytest.raises(ValueError, match="is not a direction: write 'source-target'"):
        split_direction(text)
