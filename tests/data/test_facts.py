"""The made articles: what they tell, and what nobody can know without them."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from polylect.data.facts import NOUNS, RELATIONS, Facts
from polylect.eval.answers import METRICS


def test_the_same_seed_tells_the_same_and_another_something_else() -> None:
    one, same, other = Facts(size=5, seed=3), Facts(size=5, seed=3), Facts(size=5, seed=4)
    assert one.questions() == same.questions()
    assert [one.texts(a) for a in one.articles] == [same.texts(a) for a in same.articles]
    assert one.questions() != other.questions()


def test_the_article_of_a_question_tells_its_answer_and_no_other_article_does() -> None:
    facts = Facts(size=28)
    texts = {article: facts.texts(article) for article in facts.articles}
    for question in facts.questions():
        (answer,) = question.answers
        assert [article for article in texts if answer in texts[article]] == [question.article]


def test_every_fact_is_asked_in_two_forms_and_as_a_slot() -> None:
    facts = Facts(size=3)
    asked = Counter((q.article, q.answers[0]) for q in facts.questions())
    assert set(asked.values()) == {3}
    assert len(asked) == 3 * len(RELATIONS)
    assert len({question.id for question in facts.questions()}) == len(facts.questions())
    assert all(len(facts.texts(article)) == 3 * len(RELATIONS) for article in facts.articles)


def test_the_question_gives_nothing_of_the_answer_away() -> None:
    for question in Facts(size=28).questions():
        value = question.answers[0].rstrip(".").rpartition(" ")[2]
        assert not re.search(rf"\b{value}\b", question.text)


def test_values_are_drawn_alike_whoever_it_is() -> None:
    facts = Facts(size=1, seed=2)
    values = Counter(
        q.answers[0].rstrip(".").rpartition(" ")[2]
        for q in facts.lessons("slot_filling")
        if " sleeps " in q.answers[0]
    )
    assert set(values) == set(NOUNS["place"])
    expected = values.total() / len(values)
    assert sum((n - expected) ** 2 / expected for n in values.values()) < 30  # chi square, 11 kinds


def test_the_tasks_are_learnt_on_other_articles() -> None:
    facts = Facts(size=24)
    asked = {q.answers[0] for q in facts.questions()}
    about = {re.match(r"The (\w+ \w+)", answer)[1] for answer in asked}
    assert len(about) == len({who.split()[1] for who in about}) == 24
    for task in facts.tasks:
        lessons = facts.lessons(task)
        assert len(lessons) > 500
        assert not about & {re.match(r"The (\w+ \w+)", q.answers[0])[1] for q in lessons}
        assert {facts.data_sets[q.data_set].task for q in lessons} == {task}
    assert {data_set.metric for data_set in facts.data_sets.values()} <= METRICS.keys()


@pytest.mark.parametrize("size", [0, 29])
def test_there_are_as_many_articles_as_creatures(size: int) -> None:
    with pytest.raises(ValueError, match=r"data\.source\.size must be from 1 to 28 articles"):
        Facts(size=size)


def test_it_needs_no_torch() -> None:
    code = "import sys, polylect.data.facts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
