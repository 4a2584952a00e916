"""The three forms of a report: everything is escaped, languages are named, differences marked."""

import itertools
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import html
from test_report_folders import copied, write

from polylect.cli import run
from polylect.eval.table import Table
from polylect.programs.report.blocks import (
    Code,
    Grid,
    Heading,
    Missing,
    Passage,
    Picture,
    Sample,
    Section,
    Text,
)
from polylect.programs.report.matrices import matrix
from polylect.programs.report.render import FORMS, language_tag, render, text_direction
from polylect.programs.report.samples import differences, spaced

NASTY = "<script>alert('x')</script> & \\input{x} $5_a^b #1 ~ % {} | `c` *b* ``` <<x>> {{x}} {%"
EVERYTHING = [
    Section(
        NASTY,
        [
            Heading(NASTY),
            Text(NASTY),
            Missing(NASTY),
            Grid(NASTY, Table((NASTY, NASTY), ((NASTY, NASTY),), (NASTY,))),
            Picture(NASTY, NASTY, b"png"),
            Code(NASTY, NASTY + "\n" + r"\end{Verbatim}", folded=True),
            Sample(NASTY, [(NASTY, Passage("ar", [(NASTY, True), (NASTY, False)]))]),
        ],
    )
]


def test_html_escapes_everything() -> None:
    root = html.fromstring(render("html", NASTY, NASTY, EVERYTHING, ""))
    assert not list(root.iter("script"))
    for place in ("h1", "h2", "h3", "figcaption", "th", "td", "mark", "dt", "h4", "summary", "li"):
        assert NASTY in {e.text_content().strip() for e in root.iter(place)}, place
    assert next(root.iter("img")).get("alt") == NASTY


def test_markdown_and_latex_escape_everything() -> None:
    markdown = render("markdown", NASTY, NASTY, EVERYTHING, "files")
    assert "<script>" not in re.sub(r"^````\n.*?^````$", "", markdown, flags=re.S | re.M)
    cells = [line for line in markdown.splitlines() if line.startswith("| ") and "alert" in line]
    assert cells and all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in cells)
    latex = render("latex", NASTY, NASTY, EVERYTHING, "files")
    body = latex.partition(r"\begin{document}")[2]
    body = re.sub(r"\\begin\{Verbatim\}.*?\\end\{Verbatim\}", "", body, flags=re.S)
    assert r"\input" not in body and "$5" not in body.replace(r"\$5", "")
    assert not re.search(r"(?<!\\)[#%$_]", body.replace("files/script-alert-x-script-input-x-", ""))
    assert latex.count(r"\end{Verbatim}") == 1


def test_a_markdown_table_is_whole_lines_in_a_row() -> None:
    """A blank line ends a table: what follows it would be shown as text with strokes."""
    grid = Grid("c", Table(("run", "en-de"), (("a", "1.0"), ("b", "2.0")), ("note",)))
    text = render("markdown", "t", "s", [Section("x", [grid, Text("after")])], "")
    table = "| run | en-de |\n| --- | ---: |\n| a | 1.0 |\n| b | 2.0 |"
    assert f"\nc:\n\n{table}\n\nnote\n\nafter\n" in text


@pytest.mark.parametrize("form", FORMS)
def test_languages_have_their_tag_and_direction(form: str) -> None:
    sample = Sample(
        "line 1", [("a", Passage("ur", [("سلام", True)])), ("b", Passage("hi", [("नमस्ते", False)]))]
    )
    text = render(form, "t", "s", [Section("x", [sample])], "")
    if form == "latex":
        assert r"\foreignlanguage{arabic}{\underLine{سلام}}" in text
        assert r"\foreignlanguage{hindi}{नमस्ते}" in text and r"\babelprovide[import]{hindi}" in text
    else:
        assert 'lang="ur" dir="rtl"><mark>سلام</mark>' in text
        assert 'lang="hi" dir="ltr">नमस्ते' in text


def test_directions_of_scripts() -> None:
    right_to_left = [
        c for c in ("ar", "he", "fa", "dv", "ur", "hi_Arab", "az") if text_direction(c) == "rtl"
    ]
    assert right_to_left == ["ar", "he", "fa", "dv", "ur", "hi_Arab"]
    assert [language_tag(c) for c in ("pt_BR", "zh_Hant", "qaa")] == ["pt-BR", "zh-Hant", "qaa"]


WORDS = st.lists(st.sampled_from(["a", "b", "c", "dd"]), max_size=8)


@settings(max_examples=30)
@given(WORDS, WORDS, st.sampled_from(["de", "zh"]))
def test_differences_make_up_the_text_and_the_rest_is_common(
    one: list, other: list, code: str
) -> None:
    text, reference = " ".join(one), "  ".join(other)
    pieces = differences(text, reference, code)
    assert "".join(piece for piece, _ in pieces) == text
    assert all(a[1] != b[1] for a, b in itertools.pairwise(pieces)), "none can be joined"
    if code == "de":
        common = [word for piece, marked in pieces if not marked for word in piece.split()]
        rest = iter(other)
        assert all(word in rest for word in common), "a subsequence of the reference"
        assert (one == other) == (not any(m for _, m in pieces) and len(one) == len(other))


def test_differences_of_scripts_without_spaces_are_characters() -> None:
    assert differences("我爱你", "我恨你", "zh") == [("我", False), ("爱", True), ("你", False)]
    assert differences("ein Haus", "kein Haus", "de") == [("ein", True), (" Haus", False)]
    assert differences("a b c", "a c", "de") == [("a ", False), ("b", True), (" c", False)]


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(0, 20))
def test_lines_are_evenly_spaced(length: int, count: int) -> None:
    lines = spaced(length, count)
    assert len(lines) == len(set(lines)) == min(length, count)
    assert all(0 <= line < length for line in lines)
    gaps = {b - a for a, b in itertools.pairwise(lines)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_matrix_is_shaded_from_its_lowest_to_its_highest_value() -> None:
    grid = matrix("c", "t", ["x", "y"], {"a": [1.0, None], "b": [3.0, 2.0]}, digits=1)
    assert grid.table.rows == (("a", "1.0", "-"), ("b", "3.0", "2.0"))
    assert grid.shades == [[0.0, None], [1.0, 0.5]]
    cells = html.fromstring(render("html", "t", "s", [Section("x", [grid])], "")).findall(".//td")
    assert [c.get("style") for c in cells] == [
        "--shade: 0.000",
        None,
        "--shade: 1.000",
        "--shade: 0.500",
    ]


def test_markdown_and_latex_stand_beside_their_pictures(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = copied(tiny_run, tmp_path / "other")
    for out, form in (("a.md", "markdown"), ("b.tex", "latex")):
        write(tiny_run, other, "samples=10", "lines=1", f"form={form}", f"out={out}")
        text = Path(out).read_text(encoding="utf-8")
        folder = out.replace(".", "_")
        named = set(re.findall(rf"{folder}/([^)}}]+)", text))
        assert named == {path.name for path in Path(folder).iterdir()} and len(named) > 8
        assert all((tmp_path / folder / n).read_bytes()[1:4] == b"PNG" for n in named)
    text = Path("b.tex").read_text(encoding="utf-8")
    for place in ("document", "tabular", "center", "Verbatim"):
        assert text.count(rf"\begin{{{place}}}") == text.count(rf"\end{{{place}}}") > 0
    assert text.count(r"\toprule") == text.count(r"\bottomrule") > 5
    assert r"nrefs:1|case:mixed|eff:no|tok:13a" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("lualatex") is None, reason="lualatex is not installed")
def test_latex_is_compiled(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    monkeypatch.chdir(tmp_path)
    assert run(["report", str(tiny_run), "samples=10", "out=b.tex"]) == 0
    command = ["lualatex", "-interaction=nonstopmode", "-halt-on-error", "b.tex"]
    made = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert made.returncode == 0, made.stdout[-2000:]
    assert Path("b.pdf").stat().st_size > 10_000
