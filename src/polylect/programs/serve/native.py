"""Our own API: translations, directions, adapters."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from polylect.data.languages import language, split_direction
from polylect.programs.serve.answering import server_sent, stream, translate
from polylect.programs.serve.engine import Engine
from polylect.programs.serve.jobs import Answer, Order, Piece
from polylect.programs.serve.limits import Refusal
from polylect.programs.serve.schemas import (
    EVENTS,
    AdapterAnswer,
    AdapterAnswers,
    AdapterRequest,
    Directions,
    TranslationAnswer,
    TranslationAnswers,
    TranslationRequest,
    refusals,
)
from polylect.run.text_settings import directions_served, has_named_adapters


def native_routes(engine: Engine, folder: Path | None) -> APIRouter:
    """Return the routes of our own API.

    Args:
        folder: from which adapters may be loaded; None allows none.
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
            return server_sent(_events(await stream(request, engine, orders)))
        found = await translate(request, engine, orders)
        return TranslationAnswers(translations=[_answer(a) for a in found])

    @router.get("/v1/directions", responses=refusals())
    async def directions() -> Directions:
        """List the directions that are served, and the names of their languages."""
        served = await _called(engine, lambda: directions_served(engine.translator.module))
        codes = sorted({code for direction in served for code in split_direction(direction)})
        return Directions(directions=served, languages={c: language(c).name for c in codes})

    @router.get("/v1/adapters", responses=refusals())
    async def adapters() -> AdapterAnswers:
        """List the adapters that can be used."""
        return await _called(engine, lambda: _adapters(engine))

    @router.post("/v1/adapters", status_code=201, responses=refusals(403, 409))
    async def load_adapter(body: AdapterRequest) -> AdapterAnswer:
        """Load an adapter from the server's folder of adapters, between two batches.

        A direction that another adapter serves already stays with that one: this one is then used
        where it is named. Files that are replaced later are read again by themselves.
        """
        return await _called(engine, lambda: _load(engine, folder, body))

    @router.delete("/v1/adapters/{name}", status_code=204, responses=refusals(404))
    async def unload_adapter(name: str) -> Response:
        """Take an adapter off the list, between two batches; its files stay."""
        await _called(engine, lambda: _unload(engine, name))
        return Response(status_code=204)

    return router


async def _called(engine: Engine, function: Any) -> Any:
    return await asyncio.wrap_future(engine.call(function))


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
    )


# What follows runs in the engine's thread.


def _adapters(engine: Engine) -> AdapterAnswers:
    if not has_named_adapters(engine.translator.module):
        return AdapterAnswers(adapters=[])
    return AdapterAnswers(adapters=[_adapter(engine, n) for n in engine.translator.adapters])


def _adapter(engine: Engine, name: str) -> AdapterAnswer:
    library = engine.translator.module.named_adapters()
    directions = list(library.adapter_index.directions_of(name))
    resident = name in library.store.resident
    return AdapterAnswer(name=name, directions=directions, resident=resident)


def _load(engine: Engine, root: Path | None, body: AdapterRequest) -> AdapterAnswer:
    folder = inside(root, body.folder)
    name = body.name or folder.name
    if has_named_adapters(engine.translator.module) and name in engine.translator.adapters:
        raise Refusal(409, f"an adapter named {name} is there already: give another name.")
    for direction in body.directions or ():
        split_direction(direction)
    try:
        engine.translator.load_adapter(folder, name, body.directions)
    except (ValueError, FileNotFoundError) as error:
        # What is above the folder of adapters is nobody's business.
        raise Refusal(422, str(error).replace(f"{folder.parent}/", "")) from error
    return _adapter(engine, name)


def _unload(engine: Engine, name: str) -> None:
    library = has_named_adapters(engine.translator.module)
    if not library or name not in engine.translator.adapters:
        raise Refusal(404, f"no adapter is named {name}.")
    engine.translator.unload_adapter(name)


def inside(root: Path | None, folder: str) -> Path:
    """Return a folder within the folder of adapters, links followed.

    Raises:
        Refusal: it lies elsewhere, or no folder of adapters is set (403).
    """
    if root is None:
        raise Refusal(403, "this server loads no adapters: it was started without adapters=FOLDER.")
    try:
        found = (root / folder).resolve()
    except (ValueError, OSError):  # NUL, a loop of links, a name too long
        found = root
    if root.resolve() not in found.parents:
        raise Refusal(403, "folder must lie within the server's folder of adapters.")
    return found
