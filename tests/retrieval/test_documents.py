"""BM25 against its definition, search in many scripts, and passages."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylect.retrieval.documents import BM25, Documents, Passage, cut
from polylect.retrieval.terms import terms, tokens_of_text

WORDS = [f"w{number}" for number in range(12)]


def bm25(query: list[str], texts: list[list[str]], k1: float, b: float) -> list[float]:
    """Scores by the formula of Lucene as Kamphuis et al. (2020) print it, text by text."""
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        counts, score = Counter(text), 0.0
        for term in filter(counts.get, query):
            having = sum(term in other for other in texts)
            idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            length = k1 * (1 - b + b * len(text) / mean)
            score += idf * counts[term] / (counts[term] + length)
        scores.append(score)
    return scores


@pytest.mark.parametrize(("k1", "b"), [(1.5, 0.75), (0.9, 0.4), (2, 0), (0.5, 1)])
def test_scores_and_order_are_those_of_the_definition(k1: float, b: float) -> None:
    draw = random.Random(0)
    texts = [[draw.choice(WORDS[:10]) for _ in range(draw.randint(0, 15))] for _ in range(40)]
    ranking = BM25([" ".join(text) for text in texts], k1=k1, b=b)
    for _ in range(10):
        query = [draw.choice(WORDS) for _ in range(draw.randint(1, 5))]  # two are in no text
        expected = bm25(query, texts, k1, b)
        hits = ranking.best(" ".join(query), 40)
        assert [i for i, _ in hits] == sorted(
            (i for i in range(40) if expected[i]), key=lambda i: (-round(expected[i], 5), i)
        )
        assert [s for _, s in hits] == pytest.approx([expected[i] for i, _ in hits], rel=1e-5)


def test_equal_texts_stand_in_their_order_however_many_are_asked_for() -> None:
    texts = ["the red fox", "a blue hare", "the red fox", "the red red fox", "the red fox"] * 3
    ranking = BM25(texts)
    every = ranking.best("red fox", 100)
    assert len(every) == 12
    same = [i for i, _ in every if texts[i] == "the red fox"]
    assert same == sorted(same)
    assert all(ranking.best("red fox", k) == every[:k] for k in range(13))


def test_nothing_is_found_without_a_common_term() -> None:
    ranking = BM25(["the red fox", ""])
    assert ranking.best("blue hare", 5) == ranking.best("", 5) == ranking.best("?!", 5) == []
    assert [i for i, _ in ranking.best("hare or fox", 5)] == [0]


@pytest.mark.parametrize(
    ("query", "right", "wrong"),
    [
        ("STRASSE", "Die Straße ist lang.", "Der Strand ist lang."),
        ("Cafe\u0301", "ein Caf\u00e9 am Platz", "ein Cafe am Platz"),
        ("МОСКВА", "Река Москва течёт.", "Река Волга течёт."),
        ("किताब की कीमत", "किताब की कीमत बताओ।", "कलम का रंग बताओ।"),
        ("की", "यह की है", "यह का है"),  # differ by a vowel sign alone
        ("தமிழ்", "தமிழ் மொழி பழமையானது.", "தமிழா மொழி பழமையானது."),
        ("کتاب‌ها", "کتابها روی میز است", "کتاب روی میز است"),
        ("北京在哪里", "中国的首都是北京。", "京城的北门在南京。"),
        ("ラーメン", "おいしいラーメンを食べた。", "ラムとメンを食べた。"),
        ("แมวกินปลา", "เมื่อวานแมวกินปลาในบ้าน", "เมื่อวานหมาเห็นนกในบ้าน"),
        ("학교는 어디", "아이가 학교에 갑니다.", "아이가 병원에 갑니다."),
        ("ខ្មែរ", "ភាសាខ្មែរមានអក្សរ", "ភាសាថៃមានអក្សរ"),
    ],
)
def test_the_right_text_is_found_in_every_script(query: str, right: str, wrong: str) -> None:
    assert BM25([wrong, right]).best(query, 2)[0][0] == 1


@pytest.mark.parametrize(
    ("text", "words", "searched"),
    [
        ("It's 3 o'clock!", ["it", "'", "s", "3", "o", "'", "clock", "!"], "it s 3 o clock"),
        ("मैं हूँ।", ["मैं", "हूँ", "।"], "मैं हूँ"),
        ("東京 23区", ["東", "京", "23", "区"], "東京 23 区"),
        ("ラーメン", ["ラ", "ー", "メ", "ン"], "ラー ーメ メン"),
        ("กินข้าว", ["กิ", "น", "ข้", "า", "ว"], "กิน นข้ ข้า าว"),
        ("ＡＢＣ\u00adｄ", ["abcd"], "abcd"),
        ("", [], ""),
    ],
)
def test_tokens_and_terms(text: str, words: list[str], searched: str) -> None:
    assert tokens_of_text(text) == words
    assert terms(text) == searched.split()


def test_passages_are_whole_sentences_of_at_most_so_many_words() -> None:
    text = 'One two. Three 3.5 four? "Five six." Seven eight nine ten eleven twelve. Last'
    assert cut(text, 6) == [
        "One two. Three 3.5 four?",
        '"Five six."',
        "Seven eight nine ten eleven twelve.",
        "Last",
    ]
    assert cut("我来了。你好吗？好。", 4) == ["我来了。", "你好吗？好。"]
    assert cut("यह है। वह था।", 3) == ["यह है।", "वह था।"]
    assert cut(" \n ", 5) == []


@settings(max_examples=40)
@given(st.text(alphabet="ab.?! \n।。中\"'", max_size=60), st.integers(1, 6))
def test_passages_hold_the_whole_text(text: str, words: int) -> None:
    letters = [t for passage in cut(text, words) for t in tokens_of_text(passage) if t.isalnum()]
    assert letters == [token for token in tokens_of_text(text) if token.isalnum()]


DOCUMENTS = {
    "Otter": "The otter lives by the river. It eats fish and sleeps on its back.",
    "Lisbon": "Lisbon is a town by the sea. " * 3 + "Its mayor is Vera Nunes.",
    "Empty": "",
}


def test_a_question_finds_passages_and_the_document_that_holds_them() -> None:
    documents = Documents(DOCUMENTS, words=8)
    question = "Who is the mayor of Lisbon?"
    (hit,) = documents.hits(question)
    assert hit.passage == Passage("Lisbon", "Its mayor is Vera Nunes.")
    (hit,) = documents.hits("What does the otter eat?")
    assert hit.passage.document == "Otter"
    hits = documents.hits("Who lives by the river?", 20)
    assert hits[0].passage.document == "Otter"
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True) and len(hits) <= len(documents)


def test_a_question_that_shares_no_word_has_no_document() -> None:
    documents = Documents(DOCUMENTS)
    assert documents.hits("Wo?", 3) == []


def test_documents_are_cleaned_line_by_line() -> None:
    text = "\ufeffThe fox\u00ad sleeps.\0\r\n\r\n\u3000The owl\tsees it. "
    (hit,) = Documents({"a": text}).hits("fox")
    assert hit.passage.text == "The fox sleeps.\nThe owl sees it."


def test_mistakes_are_told_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="none of the 2 texts to search has a word"):
        BM25(["", "?"])
    with pytest.raises(ValueError, match="k1 of at least 0 and b from 0 to 1"):
        BM25(["a"], b=2)
    with pytest.raises(ValueError, match="at least 1 word, got words=0"):
        Documents(DOCUMENTS, words=0)
