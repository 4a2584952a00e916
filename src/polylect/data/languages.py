"""Languages: codes, English names and scripts; directions; the script of a text.

Codes are ISO 639-1 where it exists, ISO 639-3 otherwise, with an optional script (ISO 15924) or
region (ISO 3166) after an underscore: "ta", "mai", "zh_Hant", "pt_BR". The private-use codes "qaa"
to "qtz" (ISO 639-2) are free for synthetic languages. Script names are those of Unicode.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from polylect.did_you_mean import did_you_mean


@dataclass(frozen=True)
class Language:
    """A language: its code, its English name, the scripts it is written in, and its other codes.

    Empty `scripts` mean that any script is right (synthetic languages). `also` are its codes in
    ISO 639-2 and ISO 639-3, and that of the standard variety, by which corpora name it ("npi").
    """

    code: str
    name: str
    scripts: tuple[str, ...]
    also: tuple[str, ...] = ()


# ISO 15924 code: (name in prompts, Unicode scripts).
SCRIPT_CODES = {
    "Arab": ("Arabic script", ("Arabic",)),
    "Beng": ("Bengali script", ("Bengali",)),
    "Cyrl": ("Cyrillic", ("Cyrillic",)),
    "Deva": ("Devanagari", ("Devanagari",)),
    "Grek": ("Greek script", ("Greek",)),
    "Guru": ("Gurmukhi", ("Gurmukhi",)),
    "Hans": ("Simplified", ("Han",)),
    "Hant": ("Traditional", ("Han",)),
    "Hebr": ("Hebrew script", ("Hebrew",)),
    "Knda": ("Kannada script", ("Kannada",)),
    "Latn": ("Latin script", ("Latin",)),
    "Mlym": ("Malayalam script", ("Malayalam",)),
    "Mong": ("Mongolian script", ("Mongolian",)),
    "Mtei": ("Meetei Mayek", ("Meetei Mayek",)),
    "Olck": ("Ol Chiki", ("Ol Chiki",)),
    "Taml": ("Tamil script", ("Tamil",)),
    "Telu": ("Telugu script", ("Telugu",)),
    "Tfng": ("Tifinagh", ("Tifinagh",)),
}
_REGIONS = {
    "AR": "Argentina", "AT": "Austria", "AU": "Australia", "BR": "Brazil", "CA": "Canada",
    "CH": "Switzerland", "CN": "China", "DE": "Germany", "ES": "Spain", "FR": "France",
    "GB": "United Kingdom", "HK": "Hong Kong", "IN": "India", "IR": "Iran", "KE": "Kenya",
    "LK": "Sri Lanka", "MX": "Mexico", "NG": "Nigeria", "PK": "Pakistan", "PT": "Portugal",
    "SG": "Singapore", "TW": "Taiwan", "TZ": "Tanzania", "US": "United States",
    "ZA": "South Africa",
}  # fmt: skip
# What CAT tools write as a region is a script (CLDR, likely subtags).
CHINESE_SCRIPTS = {"CN": "Hans", "SG": "Hans", "TW": "Hant", "HK": "Hant", "MO": "Hant"}
# What people write instead: country codes, and codes that ISO 639-1 has given up.
_MISTAKEN = {
    "cn": "zh", "cz": "cs", "dk": "da", "gr": "el", "jp": "ja", "kr": "ko", "se": "sv", "ua": "uk",
    "in": "id", "iw": "he", "ji": "yi", "jw": "jv",
}  # fmt: skip
_PRIVATE = re.compile(r"q[a-t][a-z]")


def _languages() -> dict[str, Language]:
    table = files("polylect.data").joinpath("languages.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines()[1:])
    return {
        code: Language(
            code, name, tuple(scripts.split(", ")), tuple(also.split(", ")) if also else ()
        )
        for code, name, scripts, also in rows
    }


LANGUAGES: dict[str, Language] = _languages()


def language(code: str) -> Language:
    """Return the language of a code, with a script or region suffix resolved.

    Raises:
        ValueError: the code is not known; the sentence names the nearest known codes.
    """
    base, _, suffix = code.partition("_")
    if code in LANGUAGES:
        return LANGUAGES[code]
    if _PRIVATE.fullmatch(code):
        return Language(code, f"Language {code.upper()}", ())
    if base in LANGUAGES and suffix in SCRIPT_CODES:
        name, scripts = SCRIPT_CODES[suffix]
        return Language(code, f"{LANGUAGES[base].name} ({name})", scripts)
    if base in LANGUAGES and re.fullmatch("[A-Z]{2}", suffix):
        region = _REGIONS.get(suffix, suffix)
        return Language(code, f"{LANGUAGES[base].name} ({region})", LANGUAGES[base].scripts)
    if (right_code := _other_spelling(code)) is not None:
        raise ValueError(
            f"unknown language code {code!r} (ISO 639-1, else 639-3): write {right_code} "
            f"({language(right_code).name})"
        )
    if base in LANGUAGES and suffix:
        raise ValueError(
            f"unknown suffix {suffix!r} in language code {code!r}: use a region such as 'BR' or "
            f"one of the scripts {', '.join(SCRIPT_CODES)}"
        )
    code_of = {
        other: entry.code
        for entry in LANGUAGES.values()
        for other in (entry.name.lower(), *entry.also)
    }
    code_of |= _MISTAKEN | {known: known for known in LANGUAGES}
    if suffix and base.lower() in code_of:  # deu_Latn, as FLORES writes de
        right = LANGUAGES[code_of[base.lower()]]
        own = suffix in SCRIPT_CODES and SCRIPT_CODES[suffix][1] == right.scripts
        code_suffix = "" if own and suffix not in ("Hans", "Hant") else f"_{suffix}"
        raise ValueError(
            f"unknown language code {code!r}; here it is {right.code}{code_suffix} ({right.name})"
        )
    hint = did_you_mean(
        code.lower(), code_of, lambda w: f"{code_of[w]} ({LANGUAGES[code_of[w]].name})"
    )
    raise ValueError(f"unknown language code {code!r} (ISO 639-1, else 639-3); {hint}")


UNSPACED = {"Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"}
"""Scripts that do not part words by spaces."""


def names(pair: tuple[str, str]) -> tuple[str, str]:
    """Return the English names of the languages of a pair of codes."""
    return language(pair[0]).name, language(pair[1]).name


# The country that a language is named after, of those with which LANDeRMT was published.
_COUNTRIES = {
    "de": "Germany", "fr": "France", "it": "Italy", "zh": "China", "es": "Spain", "ru": "Russia",
    "ja": "Japan",
}  # fmt: skip


def country(code: str) -> str:
    """Return the country of a language ("Germany" for "de"), or its name where there is none."""
    return _COUNTRIES.get(code.partition("_")[0]) or language(code).name


def _other_spelling(code: str) -> str | None:
    """Return our code for another spelling: "eng_Latn" of FLORES is en, "zh-hans" zh_Hans.

    A script that the language is written in by itself is left out.
    """
    base, _, suffix = code.replace("-", "_").lower().partition("_")
    code_of = {other: entry.code for entry in LANGUAGES.values() for other in entry.also}
    code_of |= _MISTAKEN | {entry: entry for entry in LANGUAGES}
    if base not in code_of:
        return None
    own = code_of[base]
    if suffix.capitalize() in SCRIPT_CODES:
        scripts = SCRIPT_CODES[suffix.capitalize()][1]
        needs_script = own == "zh" or scripts != LANGUAGES[own].scripts
        return f"{own}_{suffix.capitalize()}" if needs_script else own
    if suffix.upper() in _REGIONS:
        return f"{own}_{suffix.upper()}"
    return None if suffix else own


def find_language(text: str) -> str | None:
    """Return our code of a language by its English name or a code; None where it names none."""
    by_name = {entry.name.lower(): entry.code for entry in LANGUAGES.values()}
    return by_name.get(text.lower()) or _other_spelling(re.sub(r"\W+", "_", text))


def _guess_direction(text: str) -> str | None:
    """Return the direction of "eng_Latn-deu_Latn", "en_de", "en → pt-BR" or "English-German".

    None where it is none, or may be several; of these, one that is spelt as the text is goes first.
    """
    parts = re.findall(r"[^\W_]+", text)
    pairs, single = [], []
    for cut in range(1, len(parts)):
        codes = [find_language("_".join(part)) for part in (parts[:cut], parts[cut:])]
        if None not in codes and codes[0] != codes[1]:
            pairs.append("-".join(map(str, codes)))
    if len(parts) == 2 and not parts[1].islower() and (code := find_language("_".join(parts))):
        single.append(code)  # "zh-Hans"
    as_spelt = [guess for guess in pairs + single if re.split("[-_]", guess) == parts]
    guesses = as_spelt or pairs or single
    return guesses[0] if len(guesses) == 1 and guesses[0] != text else None


def _meant(direction: str) -> str:
    guess = _guess_direction(direction)
    meant = f"direction {direction!r}: codes are ISO 639-1, else 639-3: write {guess!r}"
    return meant if guess else ""


def split_direction(direction: str) -> tuple[str | None, str]:
    """Return ("en", "de") for "en-de", and (None, "de") for monolingual text in "de".

    Raises:
        ValueError: not a direction, or a code in it is not known.
    """
    parts = direction.split("-")
    if not 1 <= len(parts) <= 2 or not all(parts):
        raise ValueError(
            _meant(direction)
            or f"{direction!r} is not a direction: write 'source-target' such as 'en-ta', or one "
            "code for monolingual text; scripts and regions follow an underscore ('en-pt_BR')"
        )
    for code in parts:
        try:
            language(code)
        except ValueError as error:
            raise ValueError(_meant(direction) or f"direction {direction!r}: {error}") from None
    if len(parts) == 1:
        return None, parts[0]
    if parts[0] == parts[1]:
        raise ValueError(f"direction {direction!r} has the same language on both sides")
    return parts[0], parts[1]


# Where a character's Unicode name does not begin with its script's name.
_NAME_PREFIXES = {
    "CJK": "Han", "IDEOGRAPHIC": "Han", "KANGXI": "Han", "CANADIAN": "Canadian Aboriginal",
    "OL CHIKI": "Ol Chiki", "MEETEI MAYEK": "Meetei Mayek",
}  # fmt: skip
_SCRIPTS_BY_NAME = """
Arabic Armenian Balinese Bengali Bopomofo Cherokee Cyrillic Devanagari Ethiopic Georgian Greek
Gujarati Gurmukhi Hangul Hebrew Hiragana Javanese Kannada Katakana Khmer Lao Latin Malayalam
Mongolian Myanmar Nko Oriya Sinhala Sundanese Syriac Tamil Telugu Thaana Thai Tibetan Tifinagh
"""
_PREFIX_TO_SCRIPT = _NAME_PREFIXES | {name.upper(): name for name in _SCRIPTS_BY_NAME.split()}


class _Membership(dict[int, str | None]):
    """A table for `str.translate`: "1" for letters of the scripts, "0" for other letters.

    Counting in the translated text takes half the time of a loop over characters.
    """

    def __init__(self, scripts: tuple[str, ...]) -> None:
        self.scripts = scripts

    def __missing__(self, code: int) -> str | None:
        script = script_of(chr(code))
        self[code] = None if script is None else "1" if script in self.scripts else "0"
        return self[code]


_membership = cache(_Membership)


def check_distinct_directions(directions: Sequence[Any]) -> None:
    """Raises ValueError where one of `data.directions` is no direction or stands there twice."""
    for direction in directions:
        if not isinstance(direction, str):
            raise ValueError(
                f"data.directions has {direction!r}, which is no text; "
                "YAML reads no, on and yes as truth values: quote them"
            )
        split_direction(direction)
    if len(set(directions)) < len(directions):
        raise ValueError(f"data.directions names a direction twice: {', '.join(directions)}")


def script_of(character: str) -> str | None:
    """Return the Unicode script of a letter or mark.

    It is None for other characters and for letters that scripts share.
    """
    if unicodedata.category(character)[0] not in "LM":
        return None
    name = unicodedata.name(character, "").removeprefix("FULLWIDTH ").removeprefix("HALFWIDTH ")
    first, _, rest = name.partition(" ")
    second = rest.partition(" ")[0]
    return _PREFIX_TO_SCRIPT.get(first) or _PREFIX_TO_SCRIPT.get(f"{first} {second}")


def script_share(text: str, scripts: tuple[str, ...]) -> float:
    """Return the share of the letters of `text` (Unicode L* and M*)
    that belong to `scripts`, in [0, 1].

    Letters and marks shared by several scripts (combining accents) are not counted. A text without
    letters, and empty `scripts` (any script), give 1.0.
    """
    if not scripts:
        return 1.0
    letters = text.translate(_membership(scripts))
    return letters.count("1") / len(letters) if letters else 1.0
