"""Files: sent whole, translated within their form, with progress on the way."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from polylect.data.languages import split_direction
from polylect.documents import FORMATS, read_document, sample_document, translated_name
from polylect.documents.markup import translate_marked
from polylect.programs.serve.answering import server_sent, submitted
from polylect.programs.serve.api.adapters import called
from polylect.programs.serve.api.schemas import EVENTS, STRICT, Name, refusals
from polylect.programs.serve.detection import settle_direction
from polylect.programs.serve.engine import Engine
from polylect.programs.serve.jobs import Answer, Order
from polylect.programs.serve.limits import Refusal

_SAMPLE = 2000  # characters in which the language of a file is detected
_AGAIN = 0.5  # seconds after which a full queue is asked again


class DocumentRequest(BaseModel):
    """A file as text, and where it goes."""

    model_config = STRICT

    name: Name = Field(description=f"Its end says what it is: {', '.join(FORMATS)}.")
    content: str
    direction: Name | None = Field(None, description="As en-de.")
    target: Name | None = Field(None, description="In its place, from the language detected.")
    adapter: str | None = None
    column: int = Field(0, ge=0, le=1000, description="Of a table, which is translated; from 0.")


def document_routes(engine: Engine) -> APIRouter:
    """Return the route of files."""
    router = APIRouter(tags=["polylect"])
    answers: dict[int | str, dict[str, Any]] = {200: {"content": EVENTS}, **refusals()}

    @router.post("/v1/documents", response_class=StreamingResponse, responses=answers)
    async def translate_document(body: DocumentRequest) -> StreamingResponse:
        """Translate a file; its form, markup and placeholders stay as they are.

        Events are `{"done": 3, "of": 20}`, texts of those asked for until now, and at last
        `{"document": {"name": "…", "content": "…"}}`.
        """
        direction = await _direction(engine, body)
        document = read_document(body.name, body.content, direction, body.column)
        work = _Work(engine, direction, body.adapter)
        name = translated_name(body.name, direction)
        return server_sent(work.events(document.texts, lambda new: _file(name, document, new)))

    return router


def _file(name: str, document: Any, texts: Sequence[str]) -> dict[str, Any]:
    return {"document": {"name": name, "content": document.write(texts)}}


async def _direction(engine: Engine, body: DocumentRequest) -> str:
    """The direction that is given, or the one into the target from what the file is in."""
    if (body.direction is None) == (body.target is None):
        raise Refusal(422, "give the file's direction or its target, one of them.")
    sample = "" if body.target is None else sample_document(body.name, body.content)[:_SAMPLE]
    order = Order(sample, body.direction, body.target)
    direction = await called(engine, lambda: _settled(engine, order, body.adapter))
    if split_direction(direction)[0] is None:
        raise Refusal(422, f"{direction} is one language: a direction has two, as en-de.")
    return direction


def _settled(engine: Engine, order: Order, adapter: str | None) -> str:
    direction = settle_direction(engine.translator.module, order, 1).direction
    if adapter is None:
        engine.translator.check_direction(direction)
    return direction


def _in_file(error: ValueError, texts: Sequence[str]) -> Exception:
    """The error with the text that it names by its number among those asked for together."""
    if (named := re.match(r"text (\d+) ", str(error))) is None:
        return error
    text = texts[int(named[1]) - 1]
    return Refusal(
        422, f"a text of the file {str(error).removeprefix(named[0])} It is: {text[:60]} …"
    )


class _Work:
    """The translation of one file, in requests like those of other clients."""

    def __init__(self, engine: Engine, direction: str, adapter: str | None) -> None:
        self._engine, self._setting = engine, {"direction": direction, "adapter": adapter}
        self._done = self._asked = 0
        self._news = asyncio.Event()

    async def events(self, texts: Sequence[str], finish: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield how many texts are done, and at last what `finish` makes of all."""
        task = asyncio.ensure_future(translate_marked(texts, self._ask))
        task.add_done_callback(lambda _: self._news.set())
        try:
            while not task.done():
                await self._news.wait()
                self._news.clear()
                yield {"done": self._done, "of": self._asked}
            yield finish(task.result())
        finally:
            task.cancel()

    async def _ask(self, texts: Sequence[str]) -> list[str]:
        most = min(self._engine.limits.max_texts, 2 * self._engine.rows_per_batch)
        self._asked += len(texts)
        found: list[str] = []
        for begin in range(0, len(texts), most):
            found += await self._ask_part(texts[begin : begin + most])
        return found

    async def _ask_part(self, texts: Sequence[str]) -> list[str]:
        job = await self._submitted([Order(text, **self._setting) for text in texts])
        answers = {}
        try:
            async for event in job.events(self._engine.limits):
                if isinstance(event, Answer):
                    answers[event.index] = event.text
                    self._done += 1
                    self._news.set()
        except ValueError as error:
            raise _in_file(error, texts) from error
        finally:
            self._engine.drop(job)
        return [answers[index] for index in range(len(texts))]

    async def _submitted(self, orders: Sequence[Order]) -> Any:
        """What the engine has taken; a file waits where single requests would be refused."""
        end = time.monotonic() + self._engine.limits.timeout
        while True:
            try:
                return submitted(self._engine, orders, streams=False)
            except Refusal as refusal:
                if refusal.status != 429 or time.monotonic() > end:
                    raise
            await asyncio.sleep(_AGAIN)
