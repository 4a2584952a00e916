"""Swapped files and columns are refused with what is right; what cannot be told is not."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from polylect.data.corpora.corpus import corpora
from polylect.data.corpora.sides import Column
from polylect.data.datamodule import TranslationData

EN = [
    "The soup on the table is already cold.",
    "He opened the window because it was too hot in the kitchen.",
    "Tomorrow we are going home with our friends.",
    "Nobody knows who wrote this letter.",
]
DE = [
    "Die Suppe auf dem Tisch ist schon kalt.",
    "Er öffnete das Fenster, weil es in der Küche zu heiß war.",
    "Morgen fahren wir mit unseren Freunden nach Hause.",
    "Niemand weiß, wer diesen Brief geschrieben hat.",
]
HI = [
    "मेज़ पर रखा सूप ठंडा हो चुका है।",
    "उसने खिड़की खोली क्योंकि रसोई में बहुत गर्मी थी।",
    "कल हम अपने दोस्तों के साथ घर जा रहे हैं।",
    "कोई नहीं जानता कि यह चिट्ठी किसने लिखी।",
]
TEXTS = {"en": EN, "de": DE, "hi": HI}
IDS = [f"doc-{number}" for number in range(17, 21)]


def table(path: Path, *columns: list[str], header: str = "") -> Path:
    rows = ["\t".join(row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join([header, *rows] if header else rows), encoding="utf-8")
    return path


def read(folder: Path, spec: Any, direction: str, **settings: Any) -> list[tuple[str | None, str]]:
    (corpus,) = corpora("train", spec, [direction], folder, **settings)[direction]
    return [(row.source, row.target) for row in corpus.rows()]


def pairs(direction: str) -> list[tuple[str, str]]:
    source, target = direction.split("-")
    return list(zip(TEXTS[source], TEXTS[target], strict=True))


@pytest.mark.parametrize("direction", ["en-de", "de-en", "en-hi", "hi-de"])
@pytest.mark.parametrize(
    ("order", "columns"),
    [
        ("target source", (1, 0)),
        ("id source target", (1, 2)),
        ("id target source", (2, 1)),
        ("source id target", (0, 2)),
        ("source source target", (0, 2)),
        ("id constant target source", (3, 2)),
    ],
)
def test_the_likely_columns_of_a_table_are_named_and_right(
    direction: str, order: str, columns: tuple[int, int], tmp_path: Path
) -> None:
    source, target = direction.split("-")
    texts_by_field = {
        "source": TEXTS[source],
        "target": TEXTS[target],
        "id": IDS,
        "constant": ["news"] * 4,
    }
    table(tmp_path / "x.tsv", *(texts_by_field[name] for name in order.split()))
    left, right = columns
    spec = f"{{kind: tsv, path: x.tsv, source: {left}, target: {right}}}"
    with pytest.raises(ValueError, match=spec) as error:
        read(tmp_path, "x.tsv", direction)
    assert "\n" not in str(error.value) and f"{tmp_path / 'x.tsv'}:1" in str(error.value)
    named = {"kind": "tsv", "path": "x.tsv", "source": left, "target": right}
    assert read(tmp_path, named, direction) == pairs(direction)
    off = {"kind": "tsv", "path": "x.tsv", "check_sides": False}
    assert len(read(tmp_path, off, direction)) == 4
    assert len(read(tmp_path, "x.tsv", direction, check_sides=False)) == 4


def test_columns_behind_those_that_are_right_do_not_matter(tmp_path: Path) -> None:
    table(tmp_path / "x.tsv", EN, DE, IDS, HI, EN)
    assert read(tmp_path, "x.tsv", "en-de") == pairs("en-de")


def test_a_third_language_in_the_column_is_noticed(tmp_path: Path) -> None:
    table(tmp_path / "x.tsv", EN, HI, DE)
    with pytest.raises(ValueError, match="source: 0, target: 2"):
        read(tmp_path, "x.tsv", "en-de")


def test_a_header_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    table(tmp_path / "x.tsv", DE, EN, header="en\tde")
    for spec in ("x.tsv", {"kind": "tsv", "path": "x.tsv", "source": "en", "target": "de"}):
        with pytest.raises(ValueError, match="source: 1, target: 0") as error:
            read(tmp_path, spec, "en-de")
        assert ("header: true" in str(error.value)) == (spec != "x.tsv")


@pytest.mark.parametrize("path", ["x.{lang}", {"source": "x.{src}", "target": "x.{tgt}"}])
def test_swapped_files_are_named(path: Any, tmp_path: Path) -> None:
    (tmp_path / "x.en").write_text("\n".join(DE), encoding="utf-8")
    (tmp_path / "x.de").write_text("\n".join(EN), encoding="utf-8")
    spec = {"kind": "aligned", **({"path": path} if isinstance(path, str) else path)}
    with pytest.raises(ValueError, match=r"source: 'x.\{tgt\}', target: 'x.\{src\}'") as error:
        read(tmp_path, spec, "en-de")
    assert "the source side reads as German (de) in 4 of 4 texts" in str(error.value)
    right = {"kind": "aligned", "source": "x.{tgt}", "target": "x.{src}"}
    assert read(tmp_path, right, "en-de") == pairs("en-de")


def test_swapped_fields_are_named(tmp_path: Path) -> None:
    records = [{"source": de, "target": en} for en, de in pairs("en-de")]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(ValueError, match="source: target, target: source"):
        read(tmp_path, "x.jsonl", "en-de")
    right = {"kind": "jsonl", "path": "x.jsonl", "source": "target", "target": "source"}
    assert read(tmp_path, right, "en-de") == pairs("en-de")


def test_swapped_variants_are_named(tmp_path: Path) -> None:
    variant = '<tuv xml:lang="{}"><seg>{}</seg></tuv>'
    units = (
        f"<tu>{variant.format('en', de)}{variant.format('de', en)}</tu>"
        for en, de in pairs("en-de")
    )
    (tmp_path / "x.tmx").write_text(f"<tmx><body>{''.join(units)}</body></tmx>", encoding="utf-8")
    with pytest.raises(ValueError, match=r"codes: \{en: de, de: en\}"):
        read(tmp_path, "x.tmx", "en-de")
    right = {"kind": "tmx", "path": "x.tmx", "codes": {"en": "de", "de": "en"}}
    assert read(tmp_path, right, "en-de") == pairs("en-de")


def test_short_texts_are_told_together(tmp_path: Path) -> None:
    english = ["Good morning", "Thank you", "Where is it?", "Come here", "I am hungry", "We know"]
    german = [
        "Guten Morgen",
        "Vielen Dank",
        "Wo ist es?",
        "Komm her",
        "Ich habe Hunger",
        "Wir wissen",
    ]
    table(tmp_path / "x.tsv", german, english)
    with pytest.raises(ValueError, match="source: 1, target: 0"):
        read(tmp_path, "x.tsv", "en-de")


@pytest.mark.parametrize(
    ("direction", "source", "target"),
    [
        ("en-de", ["1", "2", "3"], ["4", "5", "6"]),
        ("en-de", ["Angela Merkel", "Berlin", "UNESCO"], ["Angela Merkel", "Berlin", "UNESCO"]),
        ("qaa-qab", EN, DE),  # synthetic languages may look like anything
        ("de-qaa", EN, EN),
        ("en-de", DE[:1], EN[:1]),  # one row proves nothing where scripts are the same
        ("pt-pt_BR", ["Apanhei o autocarro.", "O comboio chega."], ["Peguei o ônibus.", "O trem."]),
        ("hr-sr_Latn", ["Tko je napisao ovo pismo?"] * 3, ["Ko je napisao ovo pismo?"] * 3),
        ("ast-es", ["La sopa yá ta fría."] * 3, ["La sopa ya está fría."] * 3),
        ("en-hi", EN, [f"{text} OK, let's go!" for text in HI]),  # mixed
        ("en-hi", EN, ["Mez par rakha soup thanda ho chuka hai."] * 3),  # in Latin letters
        ("de-hi", DE, ["மேசையில் உள்ள சூப் ஆறிவிட்டது."] * 4),
        ("en-de", EN, EN),
    ],
)
def test_what_cannot_be_told_or_has_no_better_order_is_read(
    direction: str, source: list[str], target: list[str], tmp_path: Path
) -> None:
    rows = list(zip(source, target, strict=False))
    table(tmp_path / "x.tsv", *(list(column) for column in zip(*rows, strict=True)))
    assert read(tmp_path, "x.tsv", direction) == rows


def test_a_side_in_another_language_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    table(tmp_path / "x.tsv", EN, EN)
    read(tmp_path, "x.tsv", "en-de")
    assert "the target side reads as English (en) in 4 of 4 texts; see that" in caplog.text
    caplog.clear()
    read(tmp_path, "x.tsv", "en-de", check_sides=False)
    table(tmp_path / "x.tsv", IDS, IDS)
    read(tmp_path, "x.tsv", "en-de")
    assert not caplog.text


def test_only_the_first_rows_are_read_ahead(tmp_path: Path) -> None:
    path = table(tmp_path / "x.tsv", EN * 100, DE * 100)
    path.write_text(path.read_text(encoding="utf-8") + "\nno second column", encoding="utf-8")
    (corpus,) = corpora("train", "x.tsv", ["en-de"], tmp_path)["en-de"]
    rows = corpus.rows()
    assert [next(rows).line for _ in range(300)] == list(range(1, 301))
    with pytest.raises(ValueError, match=r"x.tsv:401: the line has 1 columns"):
        list(rows)


def test_monolingual_text_has_columns_too(tmp_path: Path) -> None:
    table(tmp_path / "x.tsv", IDS, HI)
    with pytest.raises(ValueError, match=r"\{kind: tsv, path: x.tsv, target: 1\}"):
        read(tmp_path, "x.tsv", "hi")
    table(tmp_path / "x.tsv", HI, IDS)
    assert read(tmp_path, "x.tsv", "hi") == [(None, text) for text in HI]


@pytest.mark.parametrize("texts", [["17", "18"], ["a1b2c3", "99ffee"], ["https://a.b/c"] * 2])
def test_identifiers(texts: list[str]) -> None:
    assert Column(texts, {"source": "en", "target": "de"}).holds_identifiers


@pytest.mark.parametrize("texts", [EN, ["Berlin", "Hamburg"], ["我有3本书。", "他住5楼。"], [""]])
def test_no_identifiers(texts: list[str]) -> None:
    assert not Column(texts, {"source": "en", "target": "de"}).holds_identifiers


def test_the_whole_data_may_go_unchecked(tmp_path: Path) -> None:
    table(tmp_path / "x.tsv", DE, EN)
    settings = {"directions": ["en-de"], "train": "x.tsv", "root": str(tmp_path)}
    with pytest.raises(ValueError, match="check_sides: false"):
        TranslationData(**settings).setup("fit")
    data = TranslationData(**settings, check_sides=False)
    data.setup("fit")
    assert len(data.pairs("en-de", "train")) == 4
