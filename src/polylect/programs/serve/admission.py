"""From the texts of a request to rows that wait to be decoded."""

from collections.abc import Callable
from dataclasses import replace

from polylect.programs.serve.detection import settle_direction
from polylect.programs.serve.jobs import Answer, Job, Row
from polylect.programs.serve.pieces import TextPieces
from polylect.translator import Translator


def rows_of(job: Job, translator: Translator, turn: Callable[[int], int]) -> list[Row]:
    """Make a prompt of each text of a request; those without words are answered at once.

    Args:
        turn: of the request's text of this number.

    Raises:
        ValueError: a text has no direction that is served, or no room in the model's context.
    """
    orders = [
        settle_direction(translator.module, order, number)
        for number, order in enumerate(job.orders, 1)
    ]
    prompts = translator.prompts(
        [order.text for order in orders],
        [order.direction for order in orders],
        [order.adapter for order in orders],
    )
    rows: list[Row] = []
    for index, (order, prompt) in enumerate(zip(orders, prompts, strict=True)):
        if prompt is None:
            job.tell(Answer(index, "", order.direction or "", order.adapter, 0, 0, False))
            continue
        pieces = TextPieces(translator.module.tokenizer) if job.streams else None
        prompt = replace(prompt, limit=order.limit)
        rows.append(Row(job, index, prompt, turn(len(rows)), pieces))
    return rows
