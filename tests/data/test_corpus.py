import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from polylect.data.corpora.corpus import corpora
from polylect.data.corpora.rows import Row
from polylect.data.text import one_line


def read(spec: Any, direction: str, root: Path | str, setting: str = "train") -> list[Row]:
    (corpus,) = corpora(setting, spec, [direction], root)[direction]
    return list(corpus.rows())


def texts(rows: list[Row]) -> list[tuple[str | None, str]]:
    return [(row.source, row.target) for row in rows]


SOUP = [
    ("The soup is hot.", "Die Suppe ist heiß."),
    ("He opened the window.", "Er öffnete das Fenster."),
]


@pytest.mark.parametrize("spec", ["garden.{lang}", {"kind": "aligned", "path": "garden.{lang}"}])
def test_aligned_serves_every_pair_of_an_nway_set(spec: Any, files: Path) -> None:
    rows = read(spec, "ta-de", files)
    assert len(rows) == 6
    cat = "ஒரு பூனை சூடான சுவரில் தூங்குகிறது."
    assert rows[1] == Row(2, cat, "Eine Katze schläft auf der warmen Mauer.")
    assert texts(read(spec, "de-ta", files)) == [(t, s) for s, t in texts(rows)]


@pytest.mark.parametrize("direction", ["en-de", "de-en"])
def test_a_pair_set_stored_in_one_orientation_serves_both(direction: str, files: Path) -> None:
    expected = ("She reads an old letter.", "Sie liest einen alten Brief.")
    row = texts(read("{pair}/dev.{lang}.gz", direction, files))[1]
    assert row == (expected if direction == "en-de" else expected[::-1])
    table = texts(read("{pair}/kitchen.tsv", direction, files))
    assert table == (SOUP if direction == "en-de" else [pair[::-1] for pair in SOUP])


def test_aligned_with_named_sides_and_references(files: Path) -> None:
    spec = {
        "kind": "aligned",
        "source": "garden.{src}",
        "target": "garden.{tgt}",
        "references": ["garden.{lang}", "garden.{lang}1"],
    }
    rows = read(spec, "de-en", files, "test")
    both = ("We buy bread every morning.", "Every morning we buy bread.")
    assert rows[2].references == both
    # The target is a right translation, whether it is named as one or not.
    assert read(spec | {"references": "garden.{lang}1"}, "de-en", files)[2].references == both


@pytest.mark.parametrize("spec", ["garden.{lang}", "garden.de", "garden.{tgt}"])
def test_monolingual_text(spec: str, files: Path) -> None:
    rows = read(spec, "de", files)
    assert len(rows) == 6 and rows[0] == Row(1, None, "Der Gärtner gießt die Rosen.")


def test_tsv(files: Path) -> None:
    named = {"kind": "tsv", "path": "kitchen.tsv", "source": "{src}", "target": "{tgt}"}
    assert texts(read(named, "fr-de", files))[0] == ("La soupe est chaude.", "Die Suppe ist heiß.")
    counted = {"kind": "tsv", "path": "kitchen.tsv", "source": 2, "target": 3, "references": [1]}
    row = read(counted | {"start": 1}, "de-fr", files)[0]
    right = ("La soupe est chaude.", "The soup is hot.")
    assert row == Row(2, "Die Suppe ist heiß.", "La soupe est chaude.", right)
    row = read(counted | {"start": 1, "references": [1, 3]}, "de-fr", files)[0]
    assert row.references == right[::-1]
    assert texts(read("en-de/kitchen.tsv", "en-de", files)) == SOUP
    assert read("en-de/kitchen.tsv", "en", files)[0] == Row(1, None, "The soup is hot.")


def test_jsonl(files: Path) -> None:
    first, second = read("kitchen.jsonl", "en-de", files)
    assert (first.source, first.target) == SOUP[0]
    others = ("Heiß ist die Suppe.", "Die Suppe ist sehr warm.")
    assert first.references == (SOUP[0][1], *others) and second.references == ()
    assert second.source == "He opened the window. It was cold."  # a text is one line
    spec = {"kind": "jsonl", "path": "kitchen.jsonl", "source": "translation.{src}", "target": "id"}
    with pytest.raises(ValueError, match="field 'id' is int, not text"):
        read(spec, "en-de", files)


@pytest.mark.parametrize(
    ("record", "direction"),
    [
        ({"en": "a", "de": "b"}, "en-de"),
        ({"source": "a", "target": "b"}, "en-de"),
        ({"translation": {"en": "a", "de": "b"}, "references": "c"}, "en-de"),
    ],
)
def test_jsonl_fields_are_found(record: dict, direction: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(json.dumps(record).encode() + b"\n\n"))
    assert texts(read("x.jsonl.gz", direction, tmp_path)) == [("a", "b")]


def test_jsonl_fields_in_lists(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"t": [{"text": "a"}, {"text": "b"}]}')
    spec = {"kind": "jsonl", "path": "x.jsonl", "source": "t.0.text", "target": "t.1.text"}
    assert texts(read(spec, "en-de", tmp_path)) == [("a", "b")]
    (tmp_path / "y.jsonl").write_text('{"text": "a"}')
    assert texts(read("y.jsonl", "de", tmp_path)) == [(None, "a")]


@pytest.mark.parametrize("packed", [False, True])
def test_tmx(packed: bool, files: Path, tmp_path: Path) -> None:
    raw = (files / "kitchen.tmx").read_bytes()
    name = "kitchen.tmx.gz" if packed else "kitchen.tmx"
    (tmp_path / name).write_bytes(gzip.compress(raw) if packed else raw)
    rows = read(name, "en-de", tmp_path)
    assert texts(rows) == SOUP  # markup out, line breaks out, the unit without German left out
    assert [row.line for row in rows] == [5, 12]
    assert texts(read(name, "en_US", tmp_path))[1] == (None, "Only in English.")


def test_start_stop_and_codes(files: Path) -> None:
    spec = {"kind": "aligned", "path": "garden.{lang}", "start": 2, "stop": 4}
    assert [row.line for row in read(spec, "en-de", files)] == [3, 4]
    renamed = {"kind": "aligned", "path": "garden.{lang}", "codes": {"hi": "ta"}}
    assert read(renamed, "de-hi", files) == read("garden.{lang}", "de-ta", files)


@pytest.mark.parametrize(
    "odd", [" a\u00a0b ", "\ufeffa\ufeffb", "a\u2028b", "क्\u200dष\xad", "a\x85b", ""]
)
@pytest.mark.usefixtures("dataset_cache")
def test_every_way_in_cleans_alike(odd: str, tmp_path: Path) -> None:
    import datasets

    record = {"en": odd, "de": "x", "references": [odd]}
    (tmp_path / "a.en").write_text(f"{odd}\n", encoding="utf-8")
    (tmp_path / "a.de").write_text("x\n")
    (tmp_path / "a.tsv").write_text(f"{odd}\tx\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text(f'en,de\n"{odd}",x\n', encoding="utf-8")
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    tuvs = (f'<tuv xml:lang="{k}"><seg>{record[k]}</seg></tuv>' for k in ("en", "de"))
    (tmp_path / "a.tmx").write_text(f"<tmx><tu>{''.join(tuvs)}</tu></tmx>", encoding="utf-8")
    datasets.Dataset.from_list([record]).save_to_disk(tmp_path / "one")
    hub = {"kind": "hf", "path": "one"}
    for spec in ("a.{lang}", "a.tsv", "a.csv", "a.jsonl", "a.tmx", hub):
        (row,) = read(spec, "en-de", tmp_path)
        assert (row.source, row.target) == (one_line(odd), "x"), spec
        assert row.references in ((), ("x", one_line(odd)))


def test_crlf_and_bom_and_only_lf_ends_a_line(tmp_path: Path) -> None:
    (tmp_path / "x.de").write_bytes("\ufeffeins\r\nzwei\u2028drei\r\n vier\t\r\n".encode())
    assert [row.target for row in read("x.{lang}", "de", tmp_path)] == ["eins", "zwei drei", "vier"]


def test_tongues() -> None:
    rows = read("tongues", "en-ta", "", "val")
    assert len(rows) == 200 and rows == read(
        {"kind": "tongues", "split": "dev"}, "en-ta", "", "val"
    )
    reverse = read({"kind": "tongues", "size": 200, "split": "dev"}, "ta-en", "")
    assert texts(reverse) == [(target, source) for source, target in texts(rows)]
    assert texts(rows) != texts(read("tongues", "en-ta", "", "test"))
    synthetic = {"kind": "tongues", "size": 5, "seed": 1, "synthetic": {"qaa": {}}}
    assert len(read(synthetic, "de-qaa", "")) == len(read(synthetic, "qaa", "")) == 5
    assert read(synthetic, "qaa", "")[0].source is None


@pytest.fixture
def dataset_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.mark.usefixtures("dataset_cache")
def test_datasets(files: Path, tmp_path: Path) -> None:
    import datasets

    records = [{"translation": {"en": s, "de": t}} for s, t in SOUP]
    data = datasets.Dataset.from_list(records)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "validation": data.select([1])}).save_to_disk(
        tmp_path / "d"
    )
    data.to_parquet(tmp_path / "one.parquet")
    for path in ("one", "d", "one.parquet"):
        spec = {"kind": "hf", "path": path}
        assert texts(read(spec, "de-en", tmp_path)) == [pair[::-1] for pair in SOUP]
    assert texts(read({"kind": "hf", "path": "d"}, "en-de", tmp_path, "val")) == SOUP[1:]
    spec = {"kind": "hf", "path": str(files / "kitchen.jsonl"), "references": "references"}
    assert len(read(spec, "en-de", tmp_path)) == 2
    with pytest.raises(ValueError, match=r"one\[train\]:1: no field 'fr' or 'translation.fr' or"):
        read({"kind": "hf", "path": "one"}, "en-fr", tmp_path)
    with pytest.raises(ValueError, match=r"cannot load split 'dev' of dataset .*/d'"):
        read({"kind": "hf", "path": "d", "split": "dev"}, "en-de", tmp_path)
    with pytest.raises(ValueError, match=r"cannot load .*missing.json'.*does not exist"):
        read({"kind": "hf", "path": "missing.json"}, "en-de", tmp_path)


def test_no_pickles_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older releases of `datasets` unpickle the files of the working folder for this name."""

    class Evil:
        def __reduce__(self) -> object:
            return open, (str(tmp_path / "executed"), "w")

    (tmp_path / "train.pkl").write_bytes(pickle.dumps(Evil()))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'pandas': it names a reader of pickles"):
        read({"kind": "hf", "path": "pandas"}, "en-de", "")
    assert not (tmp_path / "executed").exists()


@pytest.mark.usefixtures("dataset_cache")
def test_cells_of_csv_in_a_folder_of_datasets_are_text(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.csv").write_text("en,de\nNA,007\nnull,5\nnan,1.0\n")
    rows = read({"kind": "hf", "path": "d"}, "en-de", tmp_path)
    assert texts(rows) == [("NA", "007"), ("null", "5"), ("nan", "1.0")]


@pytest.mark.usefixtures("dataset_cache")
def test_a_null_is_told_from_a_missing_field(tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_list([{"en": "a", "de": "b"}, {"en": "a", "de": None}])
    data.save_to_disk(tmp_path / "one")
    with pytest.raises(ValueError, match=r"one\[train\]:2: no field 'de'; field 'de' is null"):
        read({"kind": "hf", "path": "one"}, "en-de", tmp_path)


@pytest.mark.usefixtures("dataset_cache")
def test_a_hub_dataset_is_asked_for_in_both_orientations() -> None:
    spec = {"kind": "hf", "path": "somebody/something", "name": "{pair}"}
    with pytest.raises(ValueError, match=r"'somebody/something' \('de-en' or 'en-de'\)"):
        read(spec, "de-en", "")


@pytest.mark.parametrize(
    ("direction", "content", "message"),
    [
        (
            "en-de",
            {"x.en": b"a\nb\nc\n", "x.de": b"a\n"},
            r"x.de:2: there is no such line: the file has 1 lines but .*x.en has 3",
        ),
        ("en-de", {"x.en": b"a\n", "x.de": b"a\nb\n"}, r"x.en:2: there is no such line"),
        ("de", {"x.de": b"gut\nschlecht \xff\n"}, r"x.de:2: byte 0xff at position 10 .*UTF-8"),
        ("de", {"y.de": b"a\n"}, r"x.de does not exist; the nearest name there is 'y.de'"),
    ],
)
def test_errors_of_aligned_files(
    direction: str, content: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    for name, raw in content.items():
        (tmp_path / name).write_bytes(raw)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        read("x.{lang}", direction, tmp_path)
    assert "\n" not in str(error.value)


PAIR = b'{"en": "a", "de": "b"}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tsv", b"a\tb\nc\n", r"x.tsv:2: the line has 1 columns, but column 2"),
        ("x.jsonl", PAIR + b'{"en": \n', r"x.jsonl:2: not valid JSON \(Expecting value"),
        ("x.jsonl", PAIR + b'{"en": "a"}\n', r"x.jsonl:2: no field 'de'; the record has 'en'"),
        ("x.jsonl", b'["a", "b"]\n', r"x.jsonl:1: the line is not a JSON object"),
        ("x.jsonl", PAIR[:-2] + b', "references": 3}', r"x.jsonl:1: field 'references' is neither"),
        ("x.tmx", b"<tmx><body>\n<tu></body></tmx>", r"x.tmx:2: not valid TMX"),
        ("x.tmx", b"<tmx/>", r"x.tmx: no translation unit has both 'en' and 'de'; the file has no"),
        ("x.tsv.gz", b"a\tb\n", r"x.tsv.gz:1: broken gzip data"),
        ("x.tsv.gz", gzip.compress(b"a\tb\n" * 9, mtime=0)[:-9], r"x.tsv.gz:\d+: broken gzip data"),
    ],
)
def test_errors_of_other_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read(name, "en-de", tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"does not exist: .* has no 'a'"):
        read("a/b/x.{lang}", "de", tmp_path)
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read(".", "de", tmp_path)


def test_a_missing_tsv_column_names_those_there_are(files: Path) -> None:
    spec = {"kind": "tsv", "path": "kitchen.tsv", "source": "{src}", "target": "{tgt}"}
    with pytest.raises(ValueError, match=r"kitchen.tsv:1: no column 'ta'.*'id', 'en', 'de', 'fr'"):
        read(spec, "en-ta", files)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kind": "tvs", "path": "x"}, "kind=tvs does not exist; did you mean tsv"),
        ({"kind": "tmx"}, "a corpus of kind 'tmx' needs the key 'path'"),
        ({"kind": "tsv", "path": "x", "sorce": 1}, "has no key 'sorce'; did you mean source"),
        ({"kind": "aligned", "path": "x"}, "no file for the target side"),
        ({"kind": "aligned", "target": "x"}, "no file for the source side"),
        ("train.gz", r"train of 'en-de': no file for the target side; put \{lang\}"),
        ({"en-dee": "x"}, r"'en-dee' is neither a direction .*code 'dee' .*mean .*de \(German\)"),
        ({False: "x"}, "train: False is neither a direction"),  # YAML's reading of no
        ({"path": "x"}, "a corpus with the key 'path' needs its kind, too"),
        ([{"path": "x"}], "needs the key 'kind'"),
        ("x.tsv.xz", "x.tsv.xz is compressed otherwise than by gzip: unpack it"),
        ({"de-en": "x.{lang}"}, "train: no corpus for direction 'en-de'"),
        ([3.5], "3.5 is not a corpus"),
    ],
)
def test_wrong_specs(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corpora("train", value, ["en-de", "de-en"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path": 3}, "path must be the name of one file, in quotes .* got 3"),
        ({"path": ["x.tsv"]}, "path must be the name of one file, .* stand in a list of corpora"),
        ({"source": -1}, "source must be a column, by its number from 0 or its name .* got -1"),
        ({"source": True}, "source must be a column, .* got True"),
        ({"target": 0.5}, "target must be a column, .* got 0.5"),
        ({"target": [1]}, "target must be a column, "),
        ({"references": {"a": 1}}, "references must be columns, "),
        ({"kind": "jsonl", "source": 1}, "source must be a text, got 1"),
        ({"kind": "aligned", "references": 1}, "references must be the name of a file, or a list"),
        ({"kind": "hf", "streaming": "yes"}, "streaming must be true or false, got 'yes'"),
        ({"kind": "tongues", "size": "5"}, "size must be a whole number, at least 0, got '5'"),
        ({"stop": 2.0}, "stop must be a whole number of rows from 0 on, got 2.0"),
        ({"codes": ["en"]}, r"codes must name a language of the corpus for each of ours"),
        ({"codes": {"de": 1}}, r"codes must name a language of the corpus for each of ours"),
        ({"codes": {"DE": "deu"}}, r"codes: unknown language code 'DE' .*write de \(German\)"),
    ],
)
def test_a_value_that_its_key_cannot_have(values: dict[str, Any], message: str) -> None:
    """Before anything is opened: the files are not there."""
    spec = {"kind": "tsv"} | ({} if values.get("kind") == "tongues" else {"path": "x"}) | values
    with pytest.raises(ValueError, match=f"^train of 'en-de': {message}"):
        corpora("train", spec, ["en-de"])


def test_two_languages_asked_of_one(files: Path) -> None:
    with pytest.raises(ValueError, match="names two languages, but direction 'de' has one"):
        read("{src}/x.{lang}", "de", files)


def test_specs_by_direction() -> None:
    value = {"en-de": ["a.{lang}", "b.{lang}"], "*": "c.{lang}", "de": None}
    result = corpora("train", value, ["de-en", "en-de", "de"])
    assert list(result) == ["de-en", "en-de"]
    assert [corpus.spec["path"] for corpus in result["en-de"]] == ["a.{lang}", "b.{lang}"]
    assert list(corpora("train", value, ["en-fr"])) == ["en-fr"]  # a part of the directions
    assert corpora("val", None, ["en-de"]) == {}
