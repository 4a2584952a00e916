"""Batches for libraries of tasks and articles, and prompts with questions."""

from dataclasses import replace
from typing import Any

import pytest

from polylect.data.batch import IGNORED
from polylect.data.facts import Facts
from polylect.data.prompt import template
from polylect.data.questions import QuestionData
from polylect.models.backbone import tiny_backbone


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_backbone(hidden=32)[1]


def data(tokenizer: Any, **changes: Any) -> QuestionData:
    settings = {"source": Facts(size=3), "tokens_per_batch": 512, "seed": 1}
    made = QuestionData(**settings | changes)
    made.tokenizer = tokenizer
    return made


def learned(batch: Any, tokenizer: Any) -> list[tuple[str, str, str]]:
    """Direction, prompt and what is learned, as text, of each row."""
    rows = []
    for row, direction in enumerate(batch.directions):
        real = batch.attention_mask[row].bool()
        target = batch.labels[row] != IGNORED
        prompt = tokenizer.decode(batch.input_ids[row][real & ~target], skip_special_tokens=True)
        ids = batch.labels[row][target]
        assert ids[-1] == tokenizer.eos_token_id
        rows.append((direction, prompt, tokenizer.decode(ids[:-1], skip_special_tokens=True)))
    return rows


def test_an_adapter_of_an_article_learns_its_text(tokenizer: Any) -> None:
    made = data(tokenizer)
    assert made.directions == ("article_00", "article_01", "article_02")
    made.setup("fit")
    seen: dict[str, set[str]] = {}
    for batch in made.training_stream(12):
        for direction, prompt, text in learned(batch, tokenizer):
            assert not prompt
            seen.setdefault(direction, set()).add(text.strip())
    assert seen == {f"article_{a}": set(made.source.texts(a)) for a in made.source.articles}


def test_an_adapter_of_a_task_learns_to_answer_its_questions(tokenizer: Any) -> None:
    made = data(tokenizer, part="task")
    made.setup("fit")
    lessons = {task: made.source.lessons(task) for task in made.source.tasks}
    known = {(t, q.text, q.answers[0]) for t, questions in lessons.items() for q in questions}
    rows = [row for b in made.training_stream(3) for row in learned(b, tokenizer)]
    assert {task for task, _, _ in rows} == {"question_answering", "slot_filling"}
    for task, prompt, text in rows:
        question, answer = prompt.strip().removesuffix("\nAnswer:"), text.strip()
        assert (task, question, answer) in known
    assert made.report["train"]["slot_filling"]["kept"] == len(lessons["slot_filling"])


def test_some_of_the_adapters_can_be_chosen(tokenizer: Any) -> None:
    made = data(tokenizer, directions=["article_01"])
    made.setup("fit")
    assert made.directions_of("train") == ("article_01",)
    with pytest.raises(ValueError, match="article_91 does not exist; did you mean article_01"):
        data(tokenizer, directions=["article_91"]).setup("fit")
    with pytest.raises(ValueError, match=r"data\.part=tasks does not exist; did you mean task"):
        data(tokenizer, part="tasks")


def test_prompts_name_the_adapters_that_serve_them(tokenizer: Any) -> None:
    made = data(tokenizer)
    questions = made.questions(limit=2)
    assert [question.data_set for question in questions] == ["facts", "facts", "slots", "slots"]
    prompts = made.ask(questions)
    assert [p.references for p in prompts] == [q.answers for q in questions]
    assert all(not p.target for p in prompts)
    assert made.adapters_by_direction(questions)[prompts[0].direction] == {
        "task": "question_answering",
        "knowledge": "article_00",
    }
    named = replace(questions[3], named="02", passage="The queen sings.")
    (shown,) = made.ask([named])
    text = tokenizer.decode(shown.prompt, skip_special_tokens=True).strip()
    assert text == f"The queen sings.\n{named.text}\nAnswer:"
    assert made.adapters_by_direction([named])[shown.direction] == {
        "task": "slot_filling",
        "knowledge": "article_02",
    }
    assert shown.source == named.text


def test_a_question_is_a_users_turn_in_a_chat(tokenizer: Any) -> None:
    chat = template("question_chat")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    try:
        asked, text = chat.encode_many(tokenizer, ["Who?", None], ["chat", "article_00"])
    finally:
        tokenizer.chat_template = None
    assert tokenizer.decode(asked, skip_special_tokens=True).strip() == "<user>Who?<assistant>"
    assert text == [tokenizer.bos_token_id]


def test_questions_show_no_pairs(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="give them a passage instead"):
        template("question").encode_many(tokenizer, ["Who?"], ["chat"], [[("a", "b")]])
