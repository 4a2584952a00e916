"""The order in which texts of several requests are decoded."""

from polylect.data.batch import Example
from polylect.models.context import UNLIMITED
from polylect.programs.serve.jobs import Row
from polylect.programs.serve.waiting import Waiting
from polylect.strategies.generation import Generation


def waiting(rows: int = 4, window: int = 2, **settings) -> Waiting:
    return Waiting(Generation(rows=rows, **settings), UNLIMITED, window)


def come(waiting: Waiting, job: str, lengths: list[int]) -> None:
    """A request whose texts have prompts of these lengths."""
    waiting.add(
        Row(job, index, Example([0] * length, [], "en-de"), waiting.turn(index))
        for index, length in enumerate(lengths)
    )


def taken(waiting: Waiting) -> list[tuple[str, int]]:
    return [(row.job, row.length) for row in waiting.take()]


def test_texts_of_similar_length_go_together() -> None:
    texts = waiting()
    come(texts, "a", [3, 30])
    come(texts, "b", [31, 4, 2, 29, 32, 5])
    assert taken(texts) == [("a", 3), ("b", 4), ("b", 2), ("b", 5)]
    assert taken(texts) == [("a", 30), ("b", 31), ("b", 29), ("b", 32)]
    assert taken(texts) == [] and len(texts) == 0


def test_a_large_request_does_not_keep_a_small_one_waiting() -> None:
    texts = waiting()
    come(texts, "large", [10] * 100)
    taken(texts)
    come(texts, "small", [50])
    assert any(("small", 50) in taken(texts) for _ in range(3))


def test_no_text_waits_for_ever() -> None:
    """A long text, while short ones keep coming."""
    texts = waiting()
    come(texts, "long", [99])
    for number in range(5):
        come(texts, f"short {number}", [5] * 8)
        if ("long", 99) in taken(texts):
            return
    raise AssertionError


def test_those_whose_turn_is_first_join_up_to_one_that_is_refused() -> None:
    texts = waiting()
    come(texts, "large", [10] * 12)
    come(texts, "small", [50])
    assert [row.length for row in texts.take_first(lambda prompt: len(prompt.prompt) < 50)] == [
        10, 10, 10, 10
    ]  # fmt: skip
    assert texts.take_first(lambda prompt: len(prompt.prompt) < 50) == []
    come(texts, "later", [9])
    lengths = [row.length for row in texts.take_first(lambda _: True)]
    assert lengths == [50, *[10] * 4, 9, *[10] * 4]
    assert len(texts) == 0


def test_a_prompt_that_cannot_be_asked_for_stays() -> None:
    texts = waiting()
    come(texts, "a", [3, 4])
    assert texts.take_first(lambda prompt: 1 / 0) == []
    assert len(texts) == 2


def test_tokens_bound_a_batch() -> None:
    texts = waiting(tokens=100, ratio=1, extra=0)
    come(texts, "a", [20, 20, 20, 20])
    assert [len(taken(texts)) for _ in range(2)] == [2, 2]


def test_a_request_that_is_dropped_waits_no_more() -> None:
    texts = waiting()
    come(texts, "a", [3] * 5)
    come(texts, "b", [3])
    texts.drop("a")
    assert taken(texts) == [("b", 3)]
