"""TSV and CSV: headers, quoting, and cells that stay text."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylect.data.corpora.corpus import corpora
from polylect.data.corpora.tables import csv_lines, tsv_lines


def read(path: Path, direction: str = "en-de", **spec: Any) -> list[tuple[int, str | None, str]]:
    kind = path.suffix.removeprefix(".")
    full = {"kind": kind, "path": str(path), "check_sides": False, **spec}
    (corpus,) = corpora("train", full, [direction])[direction]
    return [(row.line, row.source, row.target) for row in corpus.rows()]


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a\tb\n", [(1, "a", "b")]),
        ("en\tde\na\tb\n", [(2, "a", "b")]),
        ("de\ten\nb\ta\n", [(2, "a", "b")]),
        ("id\tsource\ttarget\n7\ta\tb\n", [(2, "a", "b")]),
        ("\ufeffEnglish\tGerman\r\na\tb\r\n", [(2, "a", "b")]),
        ('"a"\t"b ""c""\n', [(1, '"a"', '"b ""c""')]),  # a quotation mark is a letter
        ("a\tb\t\n", [(1, "a", "b")]),
        ("a \t b\n", [(1, "a", "b")]),
        ("NA\tnull\n007\t1.0\n", [(1, "NA", "null"), (2, "007", "1.0")]),
    ],
)
def test_tsv(text: str, rows: list, tmp_path: Path) -> None:
    assert read(write(tmp_path / "x.tsv", text)) == rows


@pytest.mark.parametrize(
    ("rows", "quoted"),
    [
        ('a\t"b ""c"""\nd\te\n', True),
        ('"a"\t"b"\n"c"\t"d"\n', True),
        ('"a"\t"b"\n"c"\td\n', False),
        ('"No," he said, "no."\tb\n""\t"\n', False),
    ],
)
def test_cells_that_seem_to_be_quoted_are_said(
    rows: str, quoted: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(write(tmp_path / "x.tsv", rows))
    (corpus,) = corpora("train", path, ["en-de"])["en-de"]
    assert len(list(corpus.rows())) == 2
    assert ("in quotation marks, which are letters in kind tsv" in caplog.text) == quoted


def test_what_the_spec_says_of_the_header_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", "id\tde\ten\n7\tb\ta\n8\td\tc\n")
    assert read(path, header=False)[0] == (1, "id", "de")
    assert read(path, header=True) == [(2, "a", "b"), (3, "c", "d")]
    assert read(path, source="de", target="en")[0] == (2, "b", "a")
    # Columns by number are taken as they are; the header is no row, but counts as one.
    assert read(path, source=1, target=2) == [(2, "b", "a"), (3, "d", "c")]
    assert (
        read(path, start=1)
        == read(path, source=2, target=1, start=1)
        == [(2, "a", "b"), (3, "c", "d")]
    )
    assert read(path, start=1, stop=2) == [(2, "a", "b")]
    assert read(path, header=True, start=1) == [(3, "c", "d")]
    assert read(path, "en") == [(2, None, "a"), (3, None, "c")]
    with pytest.raises(ValueError, match=r"x.tsv:1: no column of the header names the target 'fr'"):
        read(path, "en-fr", header=True)
    with pytest.raises(ValueError, match=r"x.tsv:1: source and target are one column, 1"):
        read(path, source=1, target=1)
    assert read(path, "en-fr", header=True, target=1)[0] == (2, "a", "b")


def test_a_lone_carriage_return_may_be_the_end_of_a_row(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x.tsv:2: the line has CR in it.*make it LF"):
        read(write(tmp_path / "x.tsv", "a\tb\nc\td\re\tf\n"))
    assert len(read(write(tmp_path / "x.tsv", "a\tb\rc\td\re\tf"))) == 3


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('"\n,;\t'))
RECORDS = st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=5)


@settings(max_examples=100)
@given(records=RECORDS, delimiter=st.sampled_from(",;\t"))
def test_csv_reads_what_was_written(
    records: list[list[str]], delimiter: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(records)
    path = write(tmp_path_factory.mktemp("csv") / "x.csv", out.getvalue())
    lines = list(csv_lines(path, delimiter))
    assert [cells for _, cells in lines] == [
        [cell.removeprefix("\ufeff") if i == j == 0 else cell for j, cell in enumerate(record)]
        for i, record in enumerate(records)
    ]
    starts = [number for number, _ in lines]
    assert starts[0] == 1 and starts == sorted(set(starts))


@pytest.mark.parametrize("form", ["x.csv", "x.tsv"])
def test_cells_of_csv_are_text(form: str, tmp_path: Path) -> None:
    text = 'id,en,de\n1,NA,None\n2,"a, ""b""\nc",null\n\n3,007,1.0\n4,,nan\n'
    text = text if form == "x.csv" else text.replace(",", "\t")
    path = write(tmp_path / form, text)
    rows = [(2, "NA", "None"), (3, 'a, "b" c', "null"), (6, "007", "1.0"), (7, "", "nan")]
    if form == "x.tsv":
        rows[1] = (3, 'a "b" c', "null")  # a tab in a text is a space
    assert read(path, kind="csv") == read(path, kind="hf") == rows


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_line_has_no_more_columns_than_the_first(kind: str, tmp_path: Path) -> None:
    """A text with a delimiter in it would be cut, or what is behind it be taken for the target."""
    between = "," if kind == "csv" else "\t"
    path = tmp_path / f"x.{kind}"
    for line in ("a,b,c\n", "Yes, he does.,Ja.\n", "1,2,3,,4\n"):
        write(path, f"en,de\nx,y\n{line}".replace(",", between))
        with pytest.raises(ValueError, match=rf"x.{kind}:3: the line has . columns, .* one has 2"):
            read(path)
    write(path, "en,de\nx,y,,\nv,w\n".replace(",", between))  # as spreadsheets end lines
    assert [row[1:] for row in read(path)] == [("x", "y"), ("v", "w")]


def test_spaces_before_a_quoted_cell_are_none_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", 'en, de\n"No, no.", "Nein, nein."\n a,  b c\n')
    assert read(path, target="de") == [(2, "No, no.", "Nein, nein."), (3, "a", "b c")]
    path = write(tmp_path / "x.csv", 'en  de\n"a b"  c\n')
    assert read(path, delimiter=" ", target=2) == [(2, "a b", "c")]


def test_a_tab_may_be_written_as_in_a_shell(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", 'en\tde\n"a\tb"\tc\n')
    assert read(path, kind="csv", delimiter=r"\t") == [(2, "a b", "c")]


def test_a_header_of_another_language_is_no_pair(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tsv", "id\ten\tde\n1\ta\tb\n")
    with pytest.raises(ValueError, match=r"x.tsv:1: no column .* target 'fr'.*header: false"):
        read(path, "en-fr")
    assert read(path, "en-fr", source=1, target=2) == [(2, "a", "b")]
    assert read(path, "en-fr", header=False, source=1, target=2)[0] == (1, "en", "de")


def test_csv_has_a_header_unless_it_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "Hello,Hallo\n")
    assert read(path, header=False) == [(1, "Hello", "Hallo")]
    with pytest.raises(ValueError, match=r"x.csv:1: no column of the header .*'en'.*header: false"):
        read(path)
    assert read(write(path, "a;b\nx;y\n"), source="b", target="a", delimiter=";") == [(2, "y", "x")]
    with pytest.raises(ValueError, match=r"x.csv:1: no column .* is delimiter the right one\?"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('en,de\n"a,b\nx,y\n', r"x.csv:2: not valid CSV .*is a quotation mark left open"),
        ('en,de\n"a" x,b\n', r"x.csv:2: not valid CSV"),
        ("en,de\na\n", r"x.csv:2: the line has 1 columns, but column 2"),
        ('en,de\na,b\n"' + "c" * 200_000, r"x.csv:3: not valid CSV .*field limit"),
    ],
)
def test_wrong_csv_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "x.csv", text))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "tsv", "header": "yes"}, "header must be true or false, got 'yes'"),
        ({"kind": "csv", "delimiter": ";;"}, "delimiter must be one character.* got ';;'"),
        ({"kind": "csv", "delimiter": '"'}, "delimiter must be one character.* no quotation mark"),
        ({"kind": "tsv", "delimiter": ";"}, "has no key 'delimiter'"),
        ({"kind": "tsv", "header": False, "source": "en"}, "names a column, but header is false"),
    ],
)
def test_wrong_specs(spec: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        corpora("train", {"path": "x", **spec}, ["en-de"])


def test_lines_of_a_table_are_numbered(tmp_path: Path) -> None:
    path = write(tmp_path / "x", "a\tb\nc\n")
    assert list(tsv_lines(path)) == [(1, ["a", "b"]), (2, ["c"])]
