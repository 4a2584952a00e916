"""Our own API: translations and directions."""

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request

from polylect.data.languages import language, split_direction
from polylect.programs.serve.answering import server_sent, stream, translate
from polylect.programs.serve.api.adapters import called
from polylect.programs.serve.api.schemas import (
    EVENTS,
    Directions,
    TokenUsage,
    TranslationAnswer,
    TranslationAnswers,
    TranslationRequest,
    refusals,
)
from polylect.programs.serve.engine import Engine
from polylect.programs.serve.jobs import Answer, Order, Piece
from polylect.programs.serve.limits import Refusal
from polylect.run.text_settings import directions_served


def native_routes(engine: Engine, name: str, beside: bool) -> APIRouter:
    """Return the routes of our own API that translate.

    Args:
        name: of what is served, for people.
        beside: whether another run is served, too.
    """
    router = APIRouter(tags=["polylect"])
    answers: dict[int | str, dict[str, Any]] = {200: {"content": EVENTS}, **refusals(429)}

    @router.post("/v1/translate", response_model=TranslationAnswers, responses=answers)
    async def translate_texts(body: TranslationRequest, request: Request) -> Any:
        """Translate texts, each in its own direction.

        With `stream` each event is `{"index": 0, "piece": "…"}`, what text 0 has grown by, or
        `{"index": 0, "translation": {…}}` when it is whole; the last one is `[DONE]`.
        """
        orders = _orders(body)
        if body.stream:
            return server_sent(_events(await stream(request, engine, orders, body.usage)))
        found = await translate(request, engine, orders, body.usage)
        return TranslationAnswers(translations=[_answer(a) for a in found])

    @router.get("/v1/directions", responses=refusals())
    async def directions() -> Directions:
        """List the directions that are served, and the names of their languages."""
        module = engine.translator.module
        served = await called(engine, lambda: directions_served(module))
        codes = sorted({code for direction in served for code in split_direction(direction)})
        return Directions(
            name=name,
            strategy=type(module).__name__,
            beside=beside,
            directions=served,
            languages={c: language(c).name for c in codes},
        )

    return router


def _orders(body: TranslationRequest) -> list[Order]:
    count = len(body.texts)
    columns = {}
    for name in ("direction", "target", "adapter"):
        value = getattr(body, name)
        columns[name] = value if isinstance(value, list) else [value] * count
        if len(columns[name]) != count:
            raise Refusal(422, f"{count} texts and {len(columns[name])} of {name} do not match.")
    orders = [
        Order(text, direction, target, adapter)
        for text, direction, target, adapter in zip(body.texts, *columns.values(), strict=True)
    ]
    for number, order in enumerate(orders, 1):
        if order.direction is not None and order.target is not None:
            raise Refusal(422, f"text {number}: give its direction or its target, not both.")
    return orders


async def _events(events: AsyncIterator[Piece | Answer]) -> AsyncIterator[dict[str, Any]]:
    async for event in events:
        if isinstance(event, Piece):
            yield {"index": event.index, "piece": event.text}
        else:
            yield {"index": event.index, "translation": _answer(event).model_dump()}


def _answer(answer: Answer) -> TranslationAnswer:
    return TranslationAnswer(
        text=answer.text,
        direction=answer.direction,
        adapter=answer.adapter,
        source_tokens=answer.source_tokens,
        tokens=answer.tokens,
        capped=answer.capped,
        usage=None if answer.usage is None else TokenUsage(**asdict(answer.usage)),
    )
