"""From the texts of a request to its answer, whole or in pieces, while its client is there."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from polylect.config.errors import is_own_error
from polylect.programs.serve.engine import Engine
from polylect.programs.serve.guard import mistake
from polylect.programs.serve.jobs import Answer, Job, Order, Piece
from polylect.programs.serve.limits import Refusal

_log = logging.getLogger(__name__)
Value = TypeVar("Value")


async def translate(
    request: Request, engine: Engine, orders: Sequence[Order], wants_usage: bool = False
) -> list[Answer]:
    """Return the answers in the order of the texts; raises what the request fails with."""
    job = submitted(engine, orders, streams=False, wants_usage=wants_usage)
    try:
        return await _while_there(request, _whole(job, engine))
    finally:
        engine.drop(job)


async def stream(
    request: Request, engine: Engine, orders: Sequence[Order], wants_usage: bool = False
) -> AsyncIterator[Piece | Answer]:
    """Return what will yield pieces and answers, once the first of them is there.

    Raises what the request fails with until then.
    """
    job = submitted(engine, orders, streams=True, wants_usage=wants_usage)
    events = job.events(engine.limits)
    try:
        first = await _while_there(request, anext(events))
    except BaseException:
        engine.drop(job)
        raise
    return _rest(engine, job, first, events)


def server_sent(events: AsyncIterator[Any]) -> StreamingResponse:
    """Return a response that sends each value as one server-sent event, and then [DONE]."""

    async def lines() -> AsyncIterator[str]:
        try:
            async for value in events:
                yield f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
        except Exception as error:
            refusal = refusal_of(error)
            wrong = mistake(refusal.status, str(refusal))
            yield f"data: {json.dumps(wrong, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)


def refusal_of(error: Exception) -> Refusal:
    """Return what a client is told of an error: its sentence if it is ours, and else no more."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ValueError | FileNotFoundError) and is_own_error(error):
        return Refusal(422, str(error))
    _log.error("a request failed", exc_info=error)
    return Refusal(500, "something went wrong within the server, whose log says what.")


def submitted(
    engine: Engine, orders: Sequence[Order], streams: bool, wants_usage: bool = False
) -> Job:
    """Return a job that the engine has taken; raises Refusal where there are too many texts."""
    most = engine.limits.max_texts
    if len(orders) > most:
        raise Refusal(413, f"{len(orders)} texts are more than this server takes at once, {most}.")
    job = Job(orders, streams, wants_usage)
    engine.submit(job)
    return job


async def _whole(job: Job, engine: Engine) -> list[Answer]:
    answers = [event async for event in job.events(engine.limits) if isinstance(event, Answer)]
    return sorted(answers, key=lambda answer: answer.index)


async def _rest(
    engine: Engine, job: Job, first: Piece | Answer, events: AsyncIterator[Piece | Answer]
) -> AsyncIterator[Piece | Answer]:
    try:
        yield first
        async for event in events:
            yield event
    finally:
        engine.drop(job)


async def _while_there(request: Request, wanted: Awaitable[Value]) -> Value:
    """The value, unless the client goes away before it is there."""
    value, gone = asyncio.ensure_future(wanted), asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({value, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not value.done():
            raise Refusal(499, "the client went away.")
        return value.result()
    finally:
        value.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
