"""Files that are translated: what is text in them, and what stays as it is."""

import asyncio
import json
import re

import pytest
from helpers.serving import events
from lxml import etree

from polylect.documents import read_document, translated_name
from polylect.documents.markup import kept_parts, sentences, translate_marked
from polylect.programs.serve.limits import Limits

SRT = """1
00:00:01,000 --> 00:00:02,500
We read
the book.

2
00:00:03,000 --> 00:00:04,000
<i>The cat sleeps.</i>
"""
TMX = """<?xml version="1.0" encoding="UTF-8"?>
<tmx version="1.4"><header srclang="en"/><body>
<tu tuid="1"><prop type="x">kept</prop>
<tuv xml:lang="en-GB"><seg>We <bpt i="1">&lt;b&gt;</bpt>read<ept i="1">&lt;/b&gt;</ept>
 &amp; sing.</seg></tuv></tu>
<tu tuid="2"><tuv xml:lang="en"><seg>Done.</seg></tuv>
<tuv xml:lang="de"><seg>Fertig.</seg></tuv></tu>
<tu tuid="3"><tuv xml:lang="fr"><seg>Bonjour.</seg></tuv></tu>
</body></tmx>
"""
MARKDOWN = """---
title: kept
---
# The *old* house

We read
the book. It is `new`.

- The cat sees [the dog](http://x.org/a_b "t").
  1. [x] A friend sleeps.
> The boy
> sleeps.

| House | Cat |
|:------|----:|
| old   |     |

```python
the = "code"
```

    indented = code

<div class="a">
***
[ref]: http://x.org
"""


def upper(name: str, content: str, **settings) -> tuple[list[str], str]:
    """The texts, and the file with capitals in their place."""
    document = read_document(name, content, "en-de", **settings)
    return list(document.texts), document.write([text.upper() for text in document.texts])


def test_lines_of_a_text_keep_their_space_and_their_ends() -> None:
    texts, written = upper("a.txt", "  We read. \r\n\r\n\tA cat.\r\n")
    assert texts == ["We read.", "A cat."]
    assert written == "  WE READ. \r\n\r\n\tA CAT.\r\n"


def test_a_column_of_a_table_is_translated_into_a_new_one() -> None:
    table = "no\ten\n1\tWe read.\n2\t\n\n3\tA cat.\n"
    texts, written = upper("a.TSV", table, column=1)
    assert texts == ["We read.", "A cat."]
    assert written == "no\ten\tde\n1\tWe read.\tWE READ.\n2\t\t\n\n3\tA cat.\tA CAT.\n"
    with pytest.raises(ValueError, match=r"line 2 has 1 columns, and column 1 \(from 0\)"):
        upper("a.tsv", "a\tb\nc", column=1)


def test_subtitles_keep_numbers_and_times() -> None:
    texts, written = upper("a.srt", SRT)
    assert texts == ["We read the book.", "<i>The cat sleeps.</i>"]
    expected = SRT.replace("We read\nthe book.", "WE READ THE\nBOOK.")
    assert written == expected.replace("<i>The cat sleeps.</i>", "<I>THE CAT SLEEPS.</I>")
    with pytest.raises(ValueError, match="no line of the file gives times"):
        upper("a.srt", "We read.")


def test_a_memory_gets_what_it_lacks() -> None:
    document = read_document("a.tmx", TMX, "en-de")
    (text,) = document.texts
    assert text == 'We <bpt i="1">&lt;b&gt;</bpt>read<ept i="1">&lt;/b&gt;</ept> &amp; sing.'
    written = document.write([text.replace("read", "lesen").replace("We", "Wir")])
    root = etree.fromstring(written.encode())
    assert [len(unit.findall("tuv")) for unit in root.iter("tu")] == [2, 2, 1]
    added = root.find(".//tu[@tuid='1']/tuv[2]")
    assert added.get("{http://www.w3.org/XML/1998/namespace}lang") == "de"
    assert "".join(added.itertext()) == "Wir <b>lesen</b> & sing."
    assert added.find("seg/bpt").get("i") == "1"
    assert root.find(".//prop").text == "kept"
    broken = etree.fromstring(read_document("a.tmx", TMX, "en-de").write(["a < b"]).encode())
    assert broken.find(".//tu[@tuid='1']/tuv[2]/seg").text == "a < b"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("<tmx><body>", "the file is no TMX: Premature end"),
        ("<html/>", "it begins with <html>"),
        (TMX.replace('lang="en', 'lang="nl'), "no unit of the file is in en"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><tmx><body>&x;</body></tmx>', ""),
    ],
)
def test_a_memory_that_is_none_is_refused(content: str, sentence: str) -> None:
    if sentence:
        with pytest.raises(ValueError, match=sentence):
            upper("a.tmx", content)
    else:  # nothing outside the file is read
        assert "root:" not in upper("a.tmx", content)[1]


def test_code_and_structure_of_markdown_stay() -> None:
    texts, written = upper("a.md", MARKDOWN)
    assert texts == [
        "The *old* house",
        "We read the book. It is `new`.",
        'The cat sees [the dog](http://x.org/a_b "t").',
        "A friend sleeps.",
        "The boy sleeps.",
        "House",
        "Cat",
        "old",
    ]
    lines = written.split("\n")
    assert lines[:4] == ["---", "title: kept", "---", "# THE *OLD* HOUSE"]
    assert "WE READ THE BOOK. IT IS `NEW`." in lines
    assert "  1. [x] A FRIEND SLEEPS." in lines and "> THE BOY SLEEPS." in lines
    assert "| OLD   |     |" in lines and "|:------|----:|" in lines
    end = MARKDOWN[MARKDOWN.index("```python") :]
    assert written.endswith(end)
    assert read_document("a.md", MARKDOWN, "en-de").write(texts).count("\n") == len(lines) - 1


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Who reads. She sings! 3.5 cats? Yes.",
        "वह पढ़ता है। वह सोता है।",
        "هل هو هنا؟ نعم.",
        "One",
        "",
        " A b c.  Next one. ",
    ],
)
def test_sentences_put_together_are_the_text(text: str) -> None:
    assert "".join(sentences(text)) == text
    assert len(sentences("She reads. She sings! Who? Yes.")) == 4
    assert len(sentences("वह पढ़ता है। वह सोता है।")) == 2
    assert sentences("He reads 3.5 books e.g. old ones.") == ["He reads 3.5 books e.g. old ones."]


MARKED = [
    "Hello {name}, you have %d new <b>mails</b> &amp; %(n)s more.",
    "See `a_b()` at https://x.org/a?b=1, or **write** to me@x.org.",
    "![picture](a.png) and [the *text*](b.md) of ${count} or {{ user.name }} in 100 % of cases",
]


def test_what_is_markup_is_known() -> None:
    assert kept_parts(MARKED[0]) == ["{name}", "%d", "<b>", "</b>", "&amp;", "%(n)s"]
    assert kept_parts(MARKED[1])[:2] == ["`a_b()`", "https://x.org/a?b=1"]
    assert kept_parts("snake_case and 5 x 3 are 100% plain (really) a < b") == []


@pytest.mark.parametrize("model", ["good", "forgets", "invents", "says nothing"])
@pytest.mark.parametrize("text", [*MARKED, "A {x}. B {y} c. Plain words.", "{only}", "** 3.5"])
def test_markup_comes_through_whatever_the_model_does(model: str, text: str) -> None:
    asked: list[str] = []

    async def ask(texts):
        asked.extend(texts)
        if model == "good":
            return [f"ü {text} ü" for text in texts]
        if model == "forgets":
            return [re.sub(r"[^\w\s]+", "", text) for text in texts]
        return ["{made} <up> %s" if model == "invents" else "" for _ in texts]

    (found,) = asyncio.run(translate_marked([text], ask))
    if model == "invents":
        assert "made" not in found
    if model == "good":
        assert sorted(kept_parts(found)) == sorted(kept_parts(text))
        wordy = text not in ("{only}", "** 3.5")
        assert asked == [sentence.strip() for sentence in sentences(text) if wordy]
    else:  # then in their order too; marks with nothing between them may be read as one
        assert "".join(kept_parts(found)) == "".join(kept_parts(text))


def in_form(offline, texts: list[str], direction: str) -> list[str]:
    """The oracle, whose answers may hold what reads as markup: its adapters are random."""

    async def ask(asked):
        return offline.translate(list(asked), direction)

    return asyncio.run(translate_marked(texts, ask))


def test_a_file_is_translated_with_progress(client, offline) -> None:
    lines = [f"We read the book {number}." for number in range(5)]
    body = {"name": "my.file.txt", "content": "\n".join([*lines, "", "See {it} now."])}
    sent = events(client, "/v1/documents", **body, direction="en-de")
    document = sent.pop()["document"]
    assert document["name"] == "my.file.de.txt" == translated_name("my.file.txt", "en-de")
    found = document["content"].split("\n")
    assert found[:5] == in_form(offline, lines, "en-de")
    assert found[5] == "" and found[6].count("{it}") == 1
    counts = [(event["done"], event["of"]) for event in sent]
    assert counts == sorted(counts) and counts[-1][0] == counts[-1][1] >= 6


def test_a_file_of_more_texts_than_a_request_may_have_is_translated(serve, offline) -> None:
    client = serve(None, Limits(max_texts=2, queue=2))
    body = {"name": "a.txt", "content": "We read.\n" * 7, "target": "hi"}
    (document,) = [e["document"] for e in events(client, "/v1/documents", **body) if len(e) == 1]
    expected = in_form(offline, ["We read."], "en-hi")
    assert document["content"] == "\n".join([*expected * 7, ""])


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"name": "a.docx"}, r"files \.docx are not translated; .*txt"),
        ({"name": "a.tmx"}, "the file is no TMX"),
        ({"name": "README"}, r"files without an ending, as 'README' is, are not translated"),
        ({"content": "a\ud800", "name": "a.txt"}, "character 2, U.D800, is half of a surrogate"),
        ({"content": "<tmx>\ud800", "name": "a.tmx"}, "character 6, U.D800, is half of a"),
        ({"name": "a.txt", "direction": None}, "direction or its target, one of them"),
        ({"name": "a.txt", "target": "de"}, "direction or its target, one of them"),
        ({"name": "a.tsv", "column": 3}, "line 1 has 1 columns"),
        ({"name": "a.txt", "direction": "en"}, "en is one language|direction en"),
        ({"name": "a.txt", "direction": "en-ta"}, "no adapter serves direction en-ta"),
    ],
)
def test_a_file_that_cannot_be_translated_gets_one_sentence(client, body, sentence: str) -> None:
    body = {"content": "We read.", "direction": "en-de"} | body
    given = json.dumps({k: v for k, v in body.items() if v is not None})
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/documents", content=given, headers=headers)
    assert answer.status_code == 422
    assert re.search(sentence, answer.json()["error"]["message"])


def test_what_fails_on_the_way_is_told_in_the_stream(serve, make_translator) -> None:
    translator = make_translator()
    translator.decode = lambda prompts, watch=None: 1 / 0
    sent = events(
        serve(translator), "/v1/documents", name="a.txt", content="We read.", direction="en-de"
    )
    assert sent[-1]["error"]["type"] == "server_error"
    assert not any("document" in event for event in sent)


def test_a_text_that_is_too_long_is_named(client) -> None:
    content = f"We read.\n{'x' * 2000}\n"
    sent = events(client, "/v1/documents", name="a.txt", content=content, direction="en-de")
    said = sent[-1]["error"]["message"]
    assert re.fullmatch(r"a text of the file has \d+ tokens .* It is: x{60} …", said)
