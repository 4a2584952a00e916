"""KILT's format: what is read, what is refused, and which questions are asked."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from polylect.data.kilt import Kilt, Question, read_kilt, top_articles
from polylect.eval.answers import METRICS


def page(number: int | str) -> dict[str, Any]:
    return {"wikipedia_id": number, "title": f"Page {number}", "start_paragraph_id": 1}


def entry(name: str, text: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "input": text, "output": list(outputs), "meta": {}}


def write(path: Path, *entries: Any) -> Path:
    path.write_text("".join(json.dumps(e) + "\n" for e in entries), encoding="utf-8")
    return path


def test_a_question_has_its_answers_and_pages_once_and_in_order(tmp_path: Path) -> None:
    outputs = (
        {"answer": "Bly", "provenance": [page(7), page("3")]},
        {"provenance": [page(7)]},  # a page without an answer
        {"answer": "bly"},  # an answer without a page
        {"answer": "Bly", "provenance": [{"title": "no id"}]},
    )
    file = write(tmp_path / "nq.jsonl", entry("q1", "Who?", *outputs), entry("q2", "?", outputs[2]))
    first, second = read_kilt(file, "nq")
    assert first == Question("q1", "nq", "Who?", ("Bly", "bly"), ("7", "3"))
    assert (second.answers, second.articles, second.article) == (("bly",), (), "")
    packed = tmp_path / "nq.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert list(read_kilt(packed, "nq")) == [first, second]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not valid JSON"),
        ("[]", ":2: a line must be a JSON object"),
        ('{"input": "?", "output": []}', ":2: 'id' must be"),
        ('{"id": 1, "input": " ", "output": []}', ":2: 'input' must be a text"),
        ('{"id": 1, "input": "?"}', "KILT's test files have none: take train or dev"),
        ('{"id": 1, "input": "?", "output": ["x"]}', "'output' must be a list of objects"),
        ('{"id": 1, "input": "?", "output": []}', "at least one 'answer'"),
        ('{"id": 1, "input": "?", "output": [{"answer": ""}]}', "none that is empty"),
        (
            '{"id": 1, "input": "?", "output": [{"answer": "x", "provenance": 3}]}',
            "'provenance' must be a list",
        ),
    ],
)
def test_mistakes_are_told_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    file = write(tmp_path / "fever.jsonl", entry("q1", "?", {"answer": "SUPPORTS"}))
    with file.open("a") as more:
        more.write(line + "\n")
    with pytest.raises(ValueError, match=message) as error:
        list(read_kilt(file, "fever"))
    assert str(error.value).startswith(f"{file}:2: ")


def test_questions_answers_and_articles_are_cleaned(folder: Path) -> None:
    write(folder / "nq.jsonl", entry("q", "\ufeffHi.\r\n\nWho? ", {"answer": " B\u00adly\n"}))
    (question,) = read_kilt(folder / "nq.jsonl", "nq")
    assert (question.text, question.answers) == ("Hi.\nWho?", ("Bly",))
    (folder / "articles" / "5.txt").write_bytes(b"\xef\xbb\xbf One.\r\n\xc2\xa0\r\nTwo.\t\r\n")
    assert kilt(folder).texts("5") == ["One.", "Two."]
    write(folder / "nq.jsonl", entry("q", "Who?", {"answer": "\ufeff"}))
    with pytest.raises(ValueError, match=r":1: 'output' must have at least one 'answer'"):
        list(read_kilt(folder / "nq.jsonl", "nq"))


def test_text_that_is_not_utf8_is_told_likewise(tmp_path: Path) -> None:
    file = tmp_path / "fever.jsonl"
    file.write_bytes(b'{"id": 1, "input": "\xff"}\n')
    with pytest.raises(ValueError, match=r"fever\.jsonl:1: "):
        list(read_kilt(file, "fever"))


def test_the_top_articles_are_those_of_most_questions() -> None:
    pages = [("3", "5"), ("5",), ("4",), ("5", "4"), ("3",), ()]
    questions = [Question(str(i), "nq", "?", ("x",), page_ids) for i, page_ids in enumerate(pages)]
    assert top_articles(questions, 2) == ["5", "3"]  # 3 and 4 are equal
    assert top_articles(questions, 9) == ["5", "3", "4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two data sets; pages 5 and 3 have most questions."""
    right = {"answer": "x"}
    write(
        tmp_path / "nq.jsonl",
        entry("a", "A?", right | {"provenance": [page(4), page(5)]}),
        entry("b", "B?", right | {"provenance": [page(3)]}),
        entry("c", "C?", right | {"provenance": [page(9)]}),
        entry("d", "D?", right),
        entry("g", "G?", right | {"provenance": [page(5), page(5)]}),
    )
    write(
        tmp_path / "fever.jsonl",
        entry("e", "E.", right | {"provenance": [page(5), page(3)]}),
        entry("f", "F.", right | {"provenance": [page(8)]}),
    )
    (tmp_path / "articles").mkdir()
    (tmp_path / "articles" / "5.txt").write_text("One.\n\nTwo.\n", encoding="utf-8")
    return tmp_path


def kilt(folder: Path, **changes: Any) -> Kilt:
    files = {"nq": "nq.jsonl", "fever": ["fever.jsonl"]}
    return Kilt(
        **{"files": files, "texts": "articles", "articles": 2, "root": str(folder)} | changes
    )


def test_the_questions_are_on_the_articles_and_the_lessons_on_others(folder: Path) -> None:
    source = kilt(folder)
    assert source.articles == ["5", "3"]
    asked = {question.id: question.articles for question in source.questions()}
    assert asked == {"a": ("5",), "b": ("3",), "g": ("5",), "e": ("5", "3")}
    assert source.tasks == ["question_answering", "fact_checking"]
    assert [question.id for question in source.lessons("question_answering")] == ["c", "d"]
    assert [question.id for question in source.lessons("fact_checking")] == ["f"]
    assert kilt(folder, articles=[9]).questions()[0].id == "c"


def test_an_articles_text_is_a_passage_a_line(folder: Path) -> None:
    assert kilt(folder).texts("5") == ["One.", "Two."]
    with pytest.raises(FileNotFoundError, match=r"3\.txt does not exist: article 3 needs"):
        kilt(folder).texts("3")


def test_each_missing_file_is_told_in_a_sentence(folder: Path) -> None:
    source = kilt(folder, files={"nq": ["nq.jsonl", "no.jsonl"], "trex": "none.jsonl"})
    with pytest.raises(FileNotFoundError) as error:
        source.questions()
    first, second = str(error.value).splitlines()
    assert first == f"{folder / 'no.jsonl'} does not exist: it should be a file of KILT."
    assert "none.jsonl does not exist" in second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": {"fevre": "f.jsonl"}}, "unknown data set fevre; did you mean fever"),
        ({"files": {}}, "at least one data set and at least one article"),
        ({"articles": 0}, "at least one data set and at least one article"),
        ({"articles": []}, "at least one data set and at least one article"),
    ],
)
def test_bad_settings_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kilt(folder, **changes)


def test_every_data_set_has_a_metric_that_exists(folder: Path) -> None:
    from polylect.data.kilt import DATA_SETS

    assert {data_set.metric for data_set in DATA_SETS.values()} <= METRICS.keys()
