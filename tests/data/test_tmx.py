"""TMX: entities, inline tags, encodings and the languages of variants."""

import gzip
from pathlib import Path

import pytest

from polylect.data.corpora.bitext import elements
from polylect.data.corpora.bitext.tmx import read_tmx


def write(folder: Path, segment: str, doctype: str = "", encoding: str = "utf-8") -> Path:
    """One unit, whose English segment (on line 5) is given."""
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?>\n{doctype}\n<tmx version="1.4"><body><tu>\n'
        f'<tuv xml:lang="de"><seg>x</seg></tuv>\n'
        f'<tuv xml:lang="en"><seg>{segment}</seg></tuv></tu></body></tmx>'
    )
    (folder / "x.tmx").write_bytes(text.encode(encoding))
    return folder / "x.tmx"


def english(path: Path) -> str:
    (row,) = read_tmx(path, "de", "en")
    return row.target


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        ("by &co; and &both;", "by ACME & Sons and ACME & Sons, 2024"),
        ("a&br;b", "a b"),  # an entity with markup in it
        ("&#169; &#x41; &amp;", "© A &"),
    ],
)
@pytest.mark.parametrize("external", ["", ' SYSTEM "tmx14.dtd"'])
def test_entities_that_the_file_declares_are_resolved(
    segment: str, text: str, external: str, tmp_path: Path
) -> None:
    declared = (
        '<!ENTITY co "ACME &amp; Sons"> <!ENTITY both "&co;, 2024">'
        '<!ENTITY br "<ph>&#38;lt;br/></ph>">'
    )
    doctype = f"<!DOCTYPE tmx{external} [{declared}]>"
    assert english(write(tmp_path, segment, doctype)) == text


@pytest.mark.parametrize(
    ("doctype", "message"),
    [
        ("", r"x.tmx:5: not valid TMX .*'nbsp'.*only entities that the file itself declares"),
        ('<!DOCTYPE tmx SYSTEM "tmx14.dtd">', r"x.tmx:5: not valid TMX .*'nbsp'"),
        (
            '<!DOCTYPE tmx [<!ENTITY nbsp SYSTEM "secret.txt">]>',
            r"x.tmx:\d: not valid TMX .*'nbsp'",
        ),
        ('<!DOCTYPE tmx SYSTEM "more.dtd">', r"x.tmx:5: not valid TMX .*'nbsp'"),
        ('<!DOCTYPE tmx [<!ENTITY % pe SYSTEM "more.dtd"> %pe;]>', r"x.tmx:\d: not valid TMX"),
        ('<!DOCTYPE tmx [<!ENTITY nbsp "&b;"><!ENTITY b "&nbsp;">]>', r"x.tmx:\d: not valid TMX"),
    ],
)
def test_other_entities_are_refused_by_name_and_line(
    doctype: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "more.dtd").write_text('<!ENTITY nbsp "secret">')
    with pytest.raises(ValueError, match=message) as error:
        english(write(tmp_path, "a &nbsp; b", doctype))
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_what_follows_an_unknown_entity_is_not_read_either(tmp_path: Path) -> None:
    path = write(tmp_path, "a &nbsp; b", '<!DOCTYPE tmx SYSTEM "tmx14.dtd">')
    with pytest.raises(ValueError, match="'nbsp'"):
        next(read_tmx(path, "de", "en"))  # even if no more rows are asked for


def test_a_billion_laughs_are_refused(tmp_path: Path) -> None:
    entities = ['<!ENTITY e0 "laugh ">']
    entities += [f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10)]
    with pytest.raises(ValueError, match=r"x.tmx:\d: not valid TMX .*ntity"):
        english(write(tmp_path, "&e9;", f"<!DOCTYPE tmx [{''.join(entities)}]>"))


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        ('Open <bpt i="1">&lt;b></bpt>File<ept i="1"/>.', "Open File."),
        ('File<ept i="1">&lt;/b></ept><bpt i="2">&lt;i></bpt>Edit', "File Edit"),
        ("File<ph/><ph/>Edit", "File Edit"),
        ("File<hi>Edit</hi><hi>View</hi>", "FileEdit View"),
        ("One.<ph/><ph/>Two", "One. Two"),
        ("की<ph/><ph/>है", "की है"),
        ("File <ph/><ph/>Edit", "File Edit"),
        ("File<ph/><ph/>, Edit", "File, Edit"),
        ("(<ph/><ph/>File<ph/><ph/>)", "(File)"),
        ("这<ph/><ph/>是", "这是"),  # words are not parted by spaces here
        ('un<bpt i="1"/>believ<ept i="1"/>able', "unbelievable"),  # a part of a word in italics
        ('a<ph type="lb"/>b', "a b"),
        ("a<ph>&lt;br/></ph>b<ph>\\n</ph>c", "a b c"),
        ("a<ph>{0}</ph>b", "ab"),
        ('a<ph>x<sub>footnote</sub></ph> b <it pos="begin">y</it><ut>z</ut>', "a b"),
        ("a<!-- no --><?no no?>b", "ab"),
        ("<![CDATA[a <b> &amp;]]> c", "a <b> &amp; c"),
        ("\ufeff a\n  b\u00a0c ", "a b\u00a0c"),
    ],
)
def test_inline_tags_glue_no_words(segment: str, text: str, tmp_path: Path) -> None:
    assert english(write(tmp_path, segment)) == text


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "ISO-8859-1"]
)
def test_encodings(encoding: str, tmp_path: Path) -> None:
    path = write(tmp_path, "Grüße", encoding=encoding)
    if encoding in ("utf-8-sig", "utf-16-le", "utf-16-be"):
        declared = "utf-8" if encoding == "utf-8-sig" else "utf-16"
        text = path.read_bytes().decode(encoding).replace(encoding, declared, 1)
        path.write_bytes(text.encode(encoding))
    assert english(path) == "Grüße"


def test_bytes_in_another_encoding_than_declared_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "Grüße")
    path.write_bytes(path.read_bytes().decode().encode("latin-1"))
    with pytest.raises(ValueError, match=r"x.tmx:5: not valid TMX"):
        english(path)


@pytest.mark.parametrize(
    ("direction", "variants", "pair"),
    [
        (("en", "de"), "EN-us:a DE_at:b", ("a", "b")),
        (("en", "de"), "en-GB:a en:b de:c de:d", ("b", "c")),
        (("pt", "pt_BR"), "pt-BR:a pt-PT:b", ("b", "a")),
        (("pt_BR", "pt"), "pt-BR:a pt-PT:b", ("a", "b")),
        (("en", "sr_Latn"), "sr-Cyrl:a sr-Latn-RS:b en:c", ("c", "b")),
        (("en", "zh_Hans"), "en:a zh-TW:b zh-CN:c", ("a", "c")),
        (("zh_Hant", "zh_Hans"), "zh-CN:a zh-hk:b", ("b", "a")),
        (("en", "zh_CN"), "en:a zh-TW:b zh-CN:c", ("a", "c")),
        ((None, "de"), "en:a de:b", (None, "b")),
        (("en", "de"), "eng:a ger-AT:b", ("a", "b")),  # ISO 639-2
        (("de", "he"), "iw:a deu_Latn:b", ("b", "a")),
    ],
)
@pytest.mark.parametrize("attribute", ["xml:lang", "lang"])
def test_variants_of_languages(
    direction: tuple, variants: str, pair: tuple, attribute: str, tmp_path: Path
) -> None:
    tuvs = (entry.split(":") for entry in variants.split())
    unit = "".join(f'<tuv {attribute}="{lang}"><seg>{text}</seg></tuv>' for lang, text in tuvs)
    (tmp_path / "x.tmx").write_text(f"<tmx><body><tu>{unit}</tu></body></tmx>")
    (row,) = read_tmx(tmp_path / "x.tmx", *direction)
    assert (row.source, row.target) == pair


def test_one_variant_is_not_both_sides(tmp_path: Path) -> None:
    (tmp_path / "x.tmx").write_text('<tmx><tu><tuv xml:lang="pt-BR"><seg>a</seg></tuv></tu></tmx>')
    with pytest.raises(ValueError, match="no translation unit has both 'pt' and 'pt_BR'"):
        list(read_tmx(tmp_path / "x.tmx", "pt", "pt_BR"))


def test_namespaces_and_many_lines(tmp_path: Path) -> None:
    unit = '<tu><tuv xml:lang="en"><seg>a</seg></tuv>\n<tuv xml:lang="de"><seg>b</seg></tuv></tu>'
    head = '<tmx xmlns="http://www.lisa.org/tmx14" xml:space="preserve"><body>'
    path = tmp_path / "x.tmx.gz"
    blank = "\n" * 70_000
    path.write_bytes(gzip.compress(f"{head}{unit}{blank}{unit}</body></tmx>".encode()))
    assert [row.line for row in read_tmx(path, "en", "de")] == [1, 70_002]


def test_a_unit_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "MAX_LINE_BYTES", 2**17)
    path = write(tmp_path, "a" * 2**18)
    with pytest.raises(ValueError, match=r"x.tmx:1: after this line .* without the end of a tran"):
        english(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.tmx:1: not valid TMX"),
        (b"\n<tmx><body><tu></body></tmx>", "x.tmx:2: not valid TMX"),
        (b"<tmx><body><tu>", "x.tmx:1: not valid TMX"),
        (b"hello", "x.tmx:1: not valid TMX"),
    ],
)
def test_broken_files(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.tmx").write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        english(tmp_path / "x.tmx")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-9], lambda raw: raw[:30] + b"\xff" * 9 + raw[39:]]
)
def test_broken_gzip_data_are_told(damage, tmp_path: Path) -> None:
    raw = gzip.compress(write(tmp_path, "".join(map(chr, range(300, 9000)))).read_bytes(), mtime=0)
    (tmp_path / "x.tmx.gz").write_bytes(damage(raw))
    with pytest.raises(ValueError, match=r"x.tmx.gz:\d+: (broken gzip data|not valid TMX)"):
        english(tmp_path / "x.tmx.gz")
