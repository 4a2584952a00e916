"""JSON lines and arrays: what is a text, and what is refused with file and line."""

import json
from pathlib import Path
from typing import Any

import pytest

from polylect.data.corpora import records
from polylect.data.corpora.corpus import corpora


def read(path: Path, direction: str = "en-de", **spec: Any) -> list[tuple[str | None, str]]:
    kind = "jsonl" if path.name.endswith("l") else "hf"
    (corpus,) = corpora("train", {"kind": kind, "path": str(path), **spec}, [direction])[direction]
    return [(row.source, row.target) for row in corpus.rows()]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "names",
    [
        ("en", "de"),
        ("English", "German"),
        ("eng_Latn", "deu_Latn"),
        ("src", "tgt"),
        ("text_en", "text_de"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_fields_that_name_the_sides_are_found(
    names: tuple[str, str], nested: bool, tmp_path: Path
) -> None:
    record: dict[str, Any] = dict(zip(names, ("a", "b"), strict=True))
    record = {"id": 1, "translation": record} if nested else {"id": 1} | record
    assert read(write(tmp_path / "x.jsonl", json.dumps(record))) == [("a", "b")]


def test_cells_are_text_whatever_they_say(tmp_path: Path) -> None:
    pairs = [("NA", "null"), ("2020-01-01", "1.0"), ("None", "nan"), ("", "x")]
    records = [{"en": source, "de": target} for source, target in pairs]
    lines = "\n".join(map(json.dumps, records))
    for name, text in (
        ("x.jsonl", lines),
        ("y.json", lines),
        ("z.json", json.dumps(records, indent=2)),
        ("w.json", json.dumps(records)),
    ):
        assert read(write(tmp_path / name, text)) == pairs


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (r'{"en": "a\ud83d", "de": "b"}', r"field 'en': character 2, U\+D83D, is half of a surrog"),
        (r'{"en": "a", "de": "b", "references": ["\ude00"]}', r"field 'references': character 1"),
        ('{"en": "a", "en": "c", "de": "b"}', "not valid JSON .an object has the field 'en' twice"),
        ('{"en": "a", "de": 5}', "field 'de' is int, not text"),
        ('{"en": "a", "de": NaN}', "field 'de' is float, not text"),
        ('{"en": "a", "de": null}', "no field 'de'; field 'de' is null"),
        ('{"en": "a", "de": ' + "1" * 5000 + "}", "not valid JSON .Exceeds the limit"),
        ("[" * 100_000, "the JSON is nested too deep"),
        ("5", "the line is not a JSON object"),
    ],
)
def test_errors_have_file_and_line(second: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '\ufeff{"en": "a", "de": "b"}\n' + second + "\n")
    with pytest.raises(ValueError, match=rf"x.jsonl:2: {message}"):
        read(path)


def test_an_escaped_pair_of_surrogates_is_a_character(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", r'{"en": "\ud83d\ude00\u0000", "de": "\ufeffb\u2028c"}')
    assert read(path) == [("😀", "b c")]


def test_numbers_beside_the_text_do_not_matter(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"en": "a", "de": "b", "score": NaN, "id": null}')
    assert read(path) == [("a", "b")]


def test_an_array_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_ARRAY_CHARACTERS", 50)
    path = write(tmp_path / "x.json", json.dumps([{"en": "a", "de": "b"}] * 9, indent=1))
    with pytest.raises(ValueError, match=r"x.json:\d+: a JSON array of more than .*\.jsonl"):
        read(path)


def test_one_field_is_not_both_sides(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"pt": "a", "en": "b"}')
    with pytest.raises(ValueError, match=r"x.jsonl:1: source and target are one field, 'pt'"):
        read(path, "pt-pt_BR")
