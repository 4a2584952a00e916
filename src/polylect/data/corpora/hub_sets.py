"""Data sets of the Hugging Face hub that translation is trained and tested on, by short names.

What configurations, splits and columns they have, as of 2026; all else is a spec of kind `hf`. A
folder below `data.root` with the name that a set has on the hub is read in its place, as
`hf download --repo-type dataset OWNER/NAME --local-dir OWNER/NAME` makes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from polylect.data.languages import SCRIPT_CODES, language, split_direction
from polylect.did_you_mean import check_known

_INDIC = {"mni": "mni_Mtei", "sd": "snd_Deva"}  # as IndicTrans2 writes them


@dataclass(frozen=True)
class HubSet:
    """What a spec of kind `hf` needs to know of a set.

    Attributes:
        path: on the hub.
        splits: by ours ("train", "val", "test"); others are refused.
        name: of the configuration. {other} is the language that is not English.
        english, other: the columns of a set that has English on one side.
        text: the column of a set that has a configuration for each language.
        flores: whether languages are named as in FLORES-200, as in deu_Latn.
        codes: names of languages beside that.
        data_files: see `polylect.data.corpora.corpus`.
        streaming: whether it is too large to store first.
    """

    path: str
    splits: Mapping[str, str]
    name: str | None = None
    english: str = ""
    other: str = ""
    text: str = ""
    flores: bool = False
    codes: Mapping[str, str] = field(default_factory=dict)
    data_files: str | None = None
    streaming: bool = False


_ALL = {"train": "train", "val": "validation", "test": "test"}
_NO_TEST = {"train": "train", "val": "validation"}
_TRAIN = {"train": "train"}

HUB_SETS = {
    "opus-100": HubSet("Helsinki-NLP/opus-100", _ALL, "{pair}"),
    **{
        f"wmt{year}": HubSet(f"wmt/wmt{year}", _ALL if year < 19 else _NO_TEST, "{pair}")
        for year in (14, 16, 18, 19)
    },
    "ccmatrix": HubSet(
        "sentence-transformers/parallel-sentences-ccmatrix",
        _TRAIN,
        "en-{other}",
        english="english",
        other="non_english",
        streaming=True,
    ),
    "nllb": HubSet(
        "allenai/nllb",
        _TRAIN,
        flores=True,
        data_files="https://storage.googleapis.com/allennlp-data-bucket/nllb/{pair}.gz",
        streaming=True,
    ),
    "samanantar": HubSet("ai4bharat/samanantar", _TRAIN, "{other}", english="src", other="tgt"),
    "bpcc": HubSet(
        "ai4bharat/BPCC",
        {"train": "{other}"},
        "bpcc-seed-latest",
        english="src",
        other="tgt",
        flores=True,
        codes=_INDIC,
    ),
    "flores": HubSet(
        "openlanguagedata/flores_plus",
        {"val": "dev", "test": "devtest"},
        "{lang}",
        text="text",
        flores=True,
        codes={"zh": "cmn_Hans", "zh_Hans": "cmn_Hans", "zh_Hant": "cmn_Hant"},
    ),
    "ntrex": HubSet("mteb/NTREX", {"test": "test"}, flores=True),
    "in22-gen": HubSet("ai4bharat/IN22-Gen", {"test": "train"}, flores=True, codes=_INDIC),
    "in22-conv": HubSet("ai4bharat/IN22-Conv", {"test": "train"}, flores=True, codes=_INDIC),
}


def hub_spec(given: Mapping[str, Any], direction: str, setting: str) -> dict[str, Any]:
    """Return the spec of kind `hf` for a set by its short name.

    Args:
        given: a spec of kind `hub`, whose other keys go before what is known of the set.
        setting: "train", "val" or "test".

    Raises:
        ValueError: an unknown set, one without such a split, or without that direction.
    """
    name = given.get("path")
    check_known(f"{setting} of {direction!r}: path", name, HUB_SETS)
    known = HUB_SETS[name]
    codes = [code for code in split_direction(direction) if code is not None]
    names = {code: flores_code(code) for code in codes} if known.flores else {}
    names |= {code: known.codes[code] for code in codes if code in known.codes}
    names |= given.get("codes") or {}
    split = given.get("split") or known.splits.get(setting)
    if not split:
        raise ValueError(
            f"{setting} of {direction!r}: {name} is for {' and '.join(known.splits)}; with the key "
            "split it is read all the same"
        )
    spec = {"kind": "hf", "path": known.path, "name": known.name, "split": split}
    spec |= {"data_files": known.data_files, "streaming": known.streaming or None, "codes": names}
    sides = ("source", "target")[-len(codes) :]
    if known.english:
        if "en" not in codes or codes == ["en"]:
            raise ValueError(
                f"{setting} of {direction!r}: {name} is read in directions between "
                "English and another language"
            )
        spec |= {
            s: known.english if c == "en" else known.other
            for s, c in zip(sides, codes, strict=True)
        }
    elif known.text:
        spec |= {s: f"{s}.{known.text}" if len(sides) == 2 else known.text for s in sides}
    spec |= {key: value for key, value in given.items() if key not in ("kind", "path", "codes")}
    other = next((names.get(code, code) for code in codes if code != "en"), "")
    for key in ("name", "split"):
        spec[key] = spec[key] and spec[key].replace("{other}", other)
    return {key: value for key, value in spec.items() if value is not None}


_NOT_IN_FLORES = frozenset(
    (
        *("alb", "arm", "baq", "bur", "chi", "cmn", "cze", "dut", "ekk", "fre", "geo", "ger"),
        *("gre", "gug", "ice", "mac", "mao", "may", "per", "rum", "slo", "tib", "wel"),
    )
)
"""Codes of `Language.also` that FLORES-200 does not have: ISO 639-2/B, and three others."""

_FLORES_SCRIPTS = {
    "Armenian": "Armn", "Ethiopic": "Ethi", "Georgian": "Geor", "Gujarati": "Gujr", "Han": "Hans",
    "Hangul": "Hang", "Hiragana": "Jpan", "Khmer": "Khmr", "Lao": "Laoo", "Myanmar": "Mymr",
    "Oriya": "Orya", "Sinhala": "Sinh", "Thaana": "Thaa", "Thai": "Thai", "Tibetan": "Tibt",
    **{names[0]: code for code, (_, names) in SCRIPT_CODES.items() if names != ("Han",)},
}  # fmt: skip


def flores_code(code: str) -> str:
    """Return the name of a language in FLORES-200 and NLLB: deu_Latn for de, zho_Hant for zh_Hant.

    A language in several scripts has the first of `Language.scripts`, unless `code` names one.
    Raises ValueError for a code that is not known.
    """
    base, _, suffix = code.partition("_")
    also = [other for other in language(base).also if other not in _NOT_IN_FLORES]
    scripts = language(base).scripts or ("Latin",)
    script = suffix if suffix in SCRIPT_CODES else _FLORES_SCRIPTS[scripts[0]]
    return f"{also[-1] if also else base}_{script}"
