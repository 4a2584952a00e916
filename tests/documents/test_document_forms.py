"""Forms that files of text have outside of textbooks, each of which once cost somebody text."""

import asyncio
import re
import time

import pytest

from polylect.documents import read_document, sample_document
from polylect.documents.markup import kept_parts, sentences, translate_marked


def upper(name: str, content: str, **settings) -> str:
    """The file with capitals in the place of its text."""
    document = read_document(name, content, "en-de", **settings)

    async def ask(texts):
        return [text.upper() for text in texts]

    return document.write(asyncio.run(translate_marked(document.texts, ask)))


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.srt", "a.md"])
@pytest.mark.parametrize("content", ["", "\n", "\r\n\r\n", "  \n"])
def test_a_file_without_text_stays(name: str, content: str) -> None:
    assert upper(name, content).replace("\t", "") == content


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a.txt", "One.\r\nTwo.\nThree.\rFour.", "ONE.\r\nTWO.\nTHREE.\rFOUR."),
        ("a.txt", "\ufeffOne.\nTwo.\n", "\ufeffONE.\nTWO.\n"),
        ("a.tsv", "One.\r\nTwo.\n", "One.\tONE.\r\nTwo.\tTWO.\n"),
        ("a.tsv", "\ufeffen\tfr\nOne.\tUn.\n", "\ufeffen\tfr\tde\nOne.\tUn.\tONE.\n"),
        ("a.tsv", "it\tx\nno\ty\n", "it\tx\tIT\nno\ty\tNO\n"),  # words, although they are codes
        ("a.md", "One.\r\nTwo.\n\n# Three\n", "ONE. TWO.\n\n# THREE\n"),
    ],
)
def test_ends_of_lines_and_marks_of_byte_order_stay(name: str, before: str, after: str) -> None:
    assert upper(name, before) == after
    assert not any("\ufeff" in text for text in read_document(name, before, "en-de").texts)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # An empty line within a subtitle: the sentence goes on behind it.
        ("please welcome\n\n  the magic.\n\n", "PLEASE WELCOME\n\nTHE MAGIC.\n\n"),
        # What two people say is not put together and cut anew.
        (
            "- Where is he?\n- He is at home with us.\n\n",
            "- WHERE IS HE?\n- HE IS AT HOME WITH US.\n\n",
        ),
        ("–Yes?\n–We are\nhere.\n\n", "–YES?\n–WE ARE\nHERE.\n\n"),
        ("Hi.\n", "HI.\n"),  # and no empty line before the next number
        ("\n\n", "\n\n"),
        ("1984\n\n", "1984\n\n"),
        ("{\\an8}<i>Oh</i> no.\n\n", "{\\an8}<i>OH</i> NO.\n\n"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_subtitles_keep_their_lines(before: str, after: str, end: str) -> None:
    times = "00:00:0{0},000 --> 00:00:0{1},500\n"
    frame = f"1\n{times.format(1, 2)}{{0}}2\n{times.format(3, 4)}We read.\n\n"
    expected = frame.format(after).replace("We read.", "WE READ.").replace("\n", end)
    assert upper("a.srt", frame.format(before).replace("\n", end)) == expected


def test_a_subtitle_that_becomes_shorter_has_fewer_lines() -> None:
    content = "00:00:01,000 --> 00:00:02,000\nWe read\nthe book."
    document = read_document("a.srt", content, "en-de")
    assert document.write(["Ja."]) == "00:00:01,000 --> 00:00:02,000\nJa."


@pytest.mark.parametrize("encoding", ["UTF-8", "ISO-8859-1", "UTF-16"])
def test_a_memory_is_read_as_it_was_sent_whatever_encoding_it_names(encoding: str) -> None:
    memory = (
        f'<?xml version="1.0" encoding="{encoding}"?>\n<tmx version="1.4"><body><tu>'
        '<tuv xml:lang="en"><seg>Café</seg></tuv></tu></body></tmx>'
    )
    document = read_document("a.tmx", memory, "en-de")
    assert document.texts == ["Café"]
    assert document.write(["Kaffee é"]).count("é") == 2


def test_the_language_of_a_memory_is_that_of_its_text() -> None:
    unit = '<tu><prop type="x">English words of a program</prop>{}</tu>'
    variant = '<tuv xml:lang="{}"><seg>{}</seg></tuv>'
    both = variant.format("DE-at", "Wo ist er?") + variant.format("en", "Where?")
    memory = '<tmx version="1.4"><header srclang="{}"/><body>' + unit.format(both) + "</body></tmx>"
    assert sample_document("a.tmx", memory.format("de-DE")) == "Wo ist er?"
    assert sample_document("a.TMX", memory.format("*all*")) == "Wo ist er?\nWhere?"
    assert sample_document("a.txt", "\ufeffWo ist er?") == "Wo ist er?"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("one  \ntwo\\\nthree\n", "ONE  \nTWO\\\nTHREE\n"),
        ("A note.[^a]\n\n[^a]: It is\n\n    here.\n", "A NOTE.[^a]\n\n[^a]: IT IS\n\n    HERE.\n"),
        ("a | b\n--- | ---\nc | d\n\ne | f\n", "A | B\n--- | ---\nC | D\n\nE | F\n"),
        ("> | a | b |\n> |---|---|\n> | c | d |\n", "> | A | B |\n> |---|---|\n> | C | D |\n"),
        ("> One.\n>\n> > Two.\n", "> ONE.\n>\n> > TWO.\n"),
        ("> [!NOTE]\n> One.\n", "> [!NOTE]\n> ONE.\n"),
        ("> ```\n> a = b\n> ```\n> One.\n", "> ```\n> a = b\n> ```\n> ONE.\n"),
        ("> ```\n> a = b\n\nOne.\n", "> ```\n> a = b\n\nONE.\n"),  # not closed, but the quote ends
        ("$$\na = b\n$$\nSo $a$ is b.\n", "$$\na = b\n$$\nSO $a$ IS B.\n"),
        ("It costs $5 and $6.\n", "IT COSTS $5 AND $6.\n"),
        ("<!-- a\nb\n-->\nOne <!-- c -->.\n", "<!-- a\nb\n-->\nONE <!-- c -->.\n"),
        ("<b>One</b> two\nthree.\n", "<b>ONE</b> TWO THREE.\n"),
        ('<p id="a">One</p>\n', '<p id="a">ONE</p>\n'),
        ('<img src="a"\n  alt="b">\nOne.\n', '<img src="a"\n  alt="b">\nONE.\n'),
        ("<pre>\na b\n</pre>\nOne.\n", "<pre>\na b\n</pre>\nONE.\n"),
        ("- one\n\n    two\n\n          code\n", "- ONE\n\n    TWO\n\n          code\n"),
        ("- one\n\nthree\n\n    code\n", "- ONE\n\nTHREE\n\n    code\n"),
        ("````\n```\na\n```\nb\n````\nOne.\n", "````\n```\na\n```\nb\n````\nONE.\n"),
        ("```a``` one\n\ntwo\n", "```a``` ONE\n\nTWO\n"),
        ("+++\na = 'b'\n+++\nOne.\n", "+++\na = 'b'\n+++\nONE.\n"),
        ("---\nOne is not a head.\n", "---\nONE IS NOT A HEAD.\n"),
        ("## One ##\n", "## ONE ##\n"),
        ("One. See `a. B` now.\n", "ONE. SEE `a. B` NOW.\n"),
        ("<3 dogs\n", "<3 DOGS\n"),
    ],
)
def test_structure_of_markdown_stays(before: str, after: str) -> None:
    assert upper("a.md", before) == after
    assert upper("a.md", before.replace("\n", "\r\n")) == after.replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("{name!r:>{w}} and #{x}", ["{name!r:>{w}}", "#{x}"]),
        ("{n, plural, one {# cat} other {# cats}}", ["{n, plural, one {# cat} other {# cats}}"]),
        ("100 %% of <%= a %> {% if b %}", ["%%", "<%= a %>", "{% if b %}"]),
        ("see [a](b_(c)) <https://x.org>", ["[", "](b_(c))", "<https://x.org>"]),
        ("https://x.org/a_(b), $HOME, __NAME__", ["https://x.org/a_(b)", "$HOME", "__NAME__"]),
        (r"one\n two :smile: by @user at 12:30:45", [r"\n", ":smile:", "@user"]),
        (r"\(a + b\) and $x_1$", [r"\(a + b\)", "$x_1$"]),
        ('<a title="x > y">', ['<a title="x > y">']),
    ],
)
def test_markup_of_programs_is_known(text: str, marks: list[str]) -> None:
    assert kept_parts(text) == marks


def test_pieces_of_a_sentence_bring_no_ends_of_their_own() -> None:
    async def ask(texts):
        return [f"{re.sub(r'[{}.*]', '', text)}." for text in texts]

    (found,) = asyncio.run(translate_marked(["**We** see {it} now."], ask))
    assert found == "**We** see {it} now."


def test_titles_end_no_sentence() -> None:
    assert sentences("We see Mr. Smith. He reads.") == ["We see Mr. Smith. ", "He reads."]


@pytest.mark.parametrize("text", ["a", "`", "<!--", "[^", "{%", "<%", r"\(", "{a", ":a", "a. A"])
def test_no_text_takes_time_out_of_proportion(text: str) -> None:
    content = text * (100_000 // len(text))
    begin = time.process_time()
    kept_parts(content)
    sentences(content)
    read_document("a.md", content, "en-de")
    assert time.process_time() - begin < 2


@pytest.mark.parametrize("separator", [", ", " ", "、"])
def test_what_has_no_end_of_a_sentence_is_cut_where_it_may_be(separator: str) -> None:
    text = separator.join(f"word{n}" for n in range(300)) + " `a b` " + "x" * 1000
    parts = sentences(text)
    assert "".join(parts) == text and len(parts) > 3
    assert all(len(part) <= 500 for part in parts[:-1])
    assert all(part.endswith(separator) for part in parts[:3])
    assert any("`a b`" in part for part in parts)
