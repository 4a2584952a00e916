"""XLIFF 1.2 and 2: languages, segments, inline codes, and what is not translated yet."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from polylect.data.corpora.bitext import elements
from polylect.data.corpora.bitext.xliff import read_xliff
from polylect.data.corpora.corpus import corpora
from polylect.data.datamodule import TranslationData

ONE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">\n'
    '<file original="a.html" source-language="en-US" target-language="de-DE" datatype="html">'
    "<header><note>No unit.</note></header><body><group>\n{units}\n</group></body></file></xliff>"
)
TWO = (
    '<xliff version="2.1" xmlns="urn:oasis:names:tc:xliff:document:2.0" srcLang="en" trgLang="de">'
    '\n<file id="f1"><group id="g"><unit id="u">\n<notes><note>no</note></notes>\n'
    '<originalData><data id="d1">&lt;b&gt;</data></originalData>\n{units}\n'
    "</unit></group></file></xliff>"
)


def unit(source: str, target: str | None = "", state: str = "", version: Any = ONE) -> str:
    """One translation unit of either version; no target where it is None."""
    on_target = f' state="{state}"' if state and version is ONE else ""
    translated = "" if target is None else f"<target{on_target}>{target}</target>"
    inner = f"<source>{source}</source>{translated}"
    if version is ONE:
        return f'<trans-unit id="1">{inner}</trans-unit>'
    return f'<segment id="s"{f" state={state!r}" if state else ""}>{inner}</segment>'


def write(folder: Path, units: str, version: str = ONE) -> Path:
    (folder / "x.xlf").write_text(version.format(units=units), encoding="utf-8")
    return folder / "x.xlf"


def pairs(path: Path, source: str | None = "en", target: str = "de") -> list[tuple]:
    return [(row.source, row.target) for row in read_xliff(path, source, target)]


@pytest.mark.parametrize("version", [ONE, TWO], ids=["1.2", "2"])
def test_a_file_serves_both_orientations_and_each_language(version: str, tmp_path: Path) -> None:
    units = unit("A cat.", "Eine Katze.", version=version)
    path = write(tmp_path, units + unit("A &lt;b&gt;.", "Ein b.", "final", version), version)
    both = [("A cat.", "Eine Katze."), ("A <b>.", "Ein b.")]
    assert pairs(path) == both
    assert pairs(path, "de", "en") == [pair[::-1] for pair in both]
    assert pairs(path, None, "de") == [(None, target) for _, target in both]
    assert [row.line for row in read_xliff(path, "en", "de")] == [5 if version is TWO else 4] * 2


@pytest.mark.parametrize("version", [ONE, TWO], ids=["1.2", "2"])
def test_what_is_not_translated_is_counted(version: str, tmp_path: Path) -> None:
    undone = [unit("a", None, "", version), unit("b", "", "", version)]
    undone += [unit("c", " <ph id='1'/> ", "", version), unit("", "d", "", version)]
    states = ["new", "needs-translation"] if version is ONE else ["initial"]
    undone += [unit("e", "e", state, version) for state in states]
    path = write(tmp_path, unit("x", "y", "translated", version) + "".join(undone), version)
    skipped: Counter[str] = Counter()
    rows = list(read_xliff(path, "en", "de", skipped))
    assert [(row.source, row.target) for row in rows] == [("x", "y")]
    assert skipped == {"untranslated": len(undone)}
    path = write(tmp_path, "".join(undone), version)
    with pytest.raises(ValueError, match=rf"none of {len(undone)} segments in 'en' and 'de' is tr"):
        pairs(path)


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        ('Open <g id="1">File</g>.', "Open File."),
        ('un<x id="1"/>believ<x id="2"/>able', "unbelievable"),
        ('File<ex id="1"/><bx id="2"/>Edit', "File Edit"),
        ('<bpt id="1">&lt;b></bpt>File<ept id="1">&lt;/b></ept> x', "File x"),
        ('a<ph id="1">{0}<sub>no</sub></ph>b', "ab"),
        ('a<x id="1" ctype="lb"/>b<x id="2" equiv-text="&lt;br/>"/>c', "a b c"),
        ('a <mrk mtype="term">word</mrk> b', "a word b"),
        ('a<it id="1" pos="open">&lt;i></it>b', "ab"),
    ],
)
def test_inline_codes_of_1_2(segment: str, text: str, tmp_path: Path) -> None:
    assert pairs(write(tmp_path, unit("x", segment))) == [("x", text)]


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        ('Open <pc id="1" dataRefStart="d1">File</pc>.', "Open File."),
        ('un<ph id="1" dataRef="d1"/>able', "unable"),
        ('a<ph id="1" type="fmt" subType="xlf:lb"/>b<ph id="2" equiv="\\n"/>c', "a b c"),
        ('<sc id="1"/>File<ec startRef="1"/><sc id="2"/>Edit', "File Edit"),
        ('a <mrk id="m" type="term">word</mrk><sm id="n"/> b<em startRef="n"/>', "a word b"),
        ('a<cp hex="001A"/>b', "ab"),
    ],
)
def test_inline_codes_of_2(segment: str, text: str, tmp_path: Path) -> None:
    path = write(tmp_path, unit("x", segment, version=TWO), TWO)
    assert pairs(path) == [("x", text)]


SEGMENTED = (
    '<trans-unit id="1"><source>A. B.</source><seg-source><mrk mtype="seg" mid="0">A.</mrk> '
    '<mrk mtype="seg" mid="1"><g id="1">B.</g></mrk></seg-source>'
    "<target>{target}</target>"
    "<alt-trans><source>A. B.</source><target>no</target></alt-trans></trans-unit>"
)


def test_segments_within_a_unit_go_together_by_number(tmp_path: Path) -> None:
    marks = '<mrk mtype="seg" mid="1">b.</mrk> <mrk mtype="seg" mid="0">a.</mrk>'
    path = write(tmp_path, SEGMENTED.format(target=marks))
    assert pairs(path) == [("A.", "a."), ("B.", "b.")]
    path = write(tmp_path, SEGMENTED.format(target=marks.partition(" <")[0]))
    skipped: Counter[str] = Counter()
    assert [row.target for row in read_xliff(path, "en", "de", skipped)] == ["b."]
    assert skipped["untranslated"] == 1
    assert pairs(write(tmp_path, SEGMENTED.format(target="a. b."))) == [("A. B.", "a. b.")]


def test_languages_are_told_file_by_file(tmp_path: Path) -> None:
    file = '<file source-language="en"{target}><body>{unit}</body></file>'
    parts = [
        file.format(target=' target-language="fr"', unit=unit("a", "f")),
        file.format(target="", unit=unit("b", "d")),  # 1.2 need not name it
        file.format(target="", unit=unit("c", "e").replace("<target", '<target xml:lang="fr"')),
    ]
    (tmp_path / "x.xlf").write_text(f'<xliff version="1.2">{"".join(parts)}</xliff>')
    skipped: Counter[str] = Counter()
    rows = list(read_xliff(tmp_path / "x.xlf", "en", "de", skipped))
    assert [(row.source, row.target) for row in rows] == [("b", "d")]
    assert skipped == {"other_languages": 2}
    with pytest.raises(ValueError, match=r"both 'ta' and 'de'; the file has en, fr$"):
        pairs(tmp_path / "x.xlf", "ta")
    (tmp_path / "no.xlf").write_text("<html/>")
    with pytest.raises(ValueError, match="the file has no language at all"):
        pairs(tmp_path / "no.xlf")


def test_nothing_else_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("secret")
    doctype = '<!DOCTYPE xliff [<!ENTITY a SYSTEM "secret.txt">]>\n'
    text = ONE.format(units=unit("&a;", "b")).partition("\n")[2]
    (tmp_path / "x.xlf").write_text(doctype + text)
    with pytest.raises(ValueError, match=r"x.xlf:2: not valid XLIFF .*'a'") as error:
        pairs(tmp_path / "x.xlf")
    assert "secret\n" not in str(error.value)
    laughs = [f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10)]
    doctype = f'<!DOCTYPE xliff [<!ENTITY e0 "ha"> {"".join(laughs)}]>\n'
    (tmp_path / "x.xlf").write_text(doctype + text.replace("&a;", "&e9;"))
    with pytest.raises(ValueError, match=r"x.xlf:\d: not valid XLIFF"):
        pairs(tmp_path / "x.xlf")
    monkeypatch.setattr(elements, "MAX_LINE_BYTES", 2**17)
    with pytest.raises(ValueError, match="without the end of a translation unit"):
        pairs(write(tmp_path, unit("a" * 2**18, "b")))


@pytest.mark.parametrize("name", ["x.xlf", "x.xliff"])
def test_a_corpus_of_that_name_has_codes_and_counts(name: str, tmp_path: Path) -> None:
    units = "".join(unit(f"Cat {i}.", f"Katze {i}." if i % 2 else "") for i in range(6))
    write(tmp_path, units).rename(tmp_path / name)
    (corpus,) = corpora("train", name, ["en-de"], tmp_path)["en-de"]
    assert [row.target for row in corpus.rows()] == ["Katze 1.", "Katze 3.", "Katze 5."]
    assert corpus.skip_counts == {"untranslated": 3}
    spec = {"kind": "xliff", "path": name, "codes": {"hi": "de"}, "check_sides": False}
    data = TranslationData(directions=["en-hi"], val=spec, root=str(tmp_path))
    data.setup("validate")  # a validation set, in which an empty side would be an error
    assert len(data.pairs("en-hi", "val")) == 3
