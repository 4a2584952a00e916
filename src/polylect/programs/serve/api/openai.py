"""The part of OpenAI's API that asks for text, for clients that know no other.

A model is an adapter or, where adapters have no names, a direction. Lines are translated each for
itself, and put together again.
"""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from polylect.did_you_mean import did_you_mean
from polylect.programs.serve.answering import server_sent, stream, translate
from polylect.programs.serve.api.schemas import EVENTS, Name, refusals
from polylect.programs.serve.engine import Engine
from polylect.programs.serve.jobs import Answer, Order, Piece
from polylect.programs.serve.limits import Refusal
from polylect.programs.serve.pieces import StopTexts
from polylect.run.text_settings import directions_served, has_named_adapters

_ONLY: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "functions": ([],),
    "logprobs": (False,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tools": ([],),
    "top_logprobs": (0,),
}
"""Settings that ask for another answer than a translation, and what of them may be given."""


Stop = Annotated[str, StringConstraints(max_length=1000)]


class _Common(BaseModel):
    """What both have; how to sample is taken and has no effect, a translation being the best one.

    What asks for another answer than a translation is refused.
    """

    model_config = ConfigDict(extra="allow")

    model: Name = Field(description="An adapter, or a direction such as en-de.")
    direction: Name | None = Field(
        None, description="Where the adapter serves several. Not a setting of OpenAI's."
    )
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    n: Literal[1] | None = 1
    max_tokens: int | None = Field(None, ge=1, description="Of the translation of each line.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The same by its new name.")
    stop: str | Annotated[list[Stop], Field(max_length=16)] | None = Field(
        None, description="Texts before which the answer ends."
    )

    def stops(self) -> list[str]:
        """Texts before which the answer ends."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in stops if stop]

    def check_possible(self) -> None:
        """Raises Refusal for a setting that asks for another answer than a translation."""
        for name, value in (self.model_extra or {}).items():
            if name in _ONLY and value is not None and value not in _ONLY[name]:
                raise Refusal(422, f"{name} is not possible here: leave it out.")


class CompletionRequest(_Common):
    """Texts to be translated, in place of a prompt."""

    prompt: str | Annotated[list[str], Field(min_length=1)]


class _Part(BaseModel):
    type: Literal["text"]
    text: str


class _Message(BaseModel):
    role: str
    content: str | list[_Part] | None = None


class ChatRequest(_Common):
    """The last message of the user is translated; those before it are not read."""

    messages: list[_Message] = Field(min_length=1)


def openai_routes(engine: Engine) -> APIRouter:
    """Return /v1/models, /v1/completions and /v1/chat/completions."""
    router = APIRouter(tags=["OpenAI"])
    answers: dict[int | str, dict[str, Any]] = {200: {"content": EVENTS}, **refusals(404, 429)}

    @router.get("/v1/models", responses=refusals())
    async def models() -> dict[str, Any]:
        """List what may be given as a model."""
        return {"object": "list", "data": [_model(name) for name in _names(engine)]}

    @router.get("/v1/models/{name}", responses=refusals(404))
    async def model(name: str) -> dict[str, Any]:
        """Say whether something may be given as a model."""
        _check_model(engine, name)
        return _model(name)

    @router.post("/v1/completions", responses=answers)
    async def completions(body: CompletionRequest, request: Request) -> Any:
        """Translate the prompt, or each of several."""
        texts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        form = _Form("text_completion", "cmpl", body)
        return await _respond(engine, request, form, texts)

    @router.post("/v1/chat/completions", responses=answers)
    async def chat(body: ChatRequest, request: Request) -> Any:
        """Translate the last message of the user."""
        form = _Form("chat.completion", "chatcmpl", body)
        return await _respond(engine, request, form, [_last_message(body)])

    return router


def _names(engine: Engine) -> list[str]:
    module = engine.translator.module
    adapters = engine.translator.adapters if has_named_adapters(module) else []
    return list(dict.fromkeys([*adapters, *directions_served(module)]))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "polylect"}


def _check_model(engine: Engine, name: str) -> None:
    """Raises Refusal, with the nearest, for what is no model."""
    if name not in (names := _names(engine)):
        raise Refusal(404, f"model {name} does not exist; {did_you_mean(name, names)}")


def _last_message(body: ChatRequest) -> str:
    said = [message.content for message in body.messages if message.role == "user"]
    if not said or said[-1] is None:
        raise Refusal(422, "messages has none of the user with text, which would be translated.")
    content = said[-1]
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


class _Form:
    """How an answer is written down: as a completion, or as a chat."""

    def __init__(self, kind: str, prefix: str, body: _Common) -> None:
        self.body, self._kind = body, kind
        self._begun: set[int] = set()
        self._head = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model,
        }
        self._is_chat = kind == "chat.completion"

    def whole(self, choices: Sequence[tuple[str, str]], usage: dict[str, int]) -> dict[str, Any]:
        """The answer with the text and the reason of its end, for each choice."""
        listed = [
            self._choice(index, {"role": "assistant", "content": text}, text, reason)
            for index, (text, reason) in enumerate(choices)
        ]
        return {**self._head, "object": self._kind, "choices": listed, "usage": usage}

    def chunk(self, index: int, text: str, reason: str | None = None) -> dict[str, Any]:
        """What a choice has grown by, or the reason why it has ended."""
        delta = {"content": text} if reason is None else {}
        if index not in self._begun:  # clients take who speaks from the first chunk
            self._begun.add(index)
            delta = {"role": "assistant", **delta}
        choice = self._choice(index, delta, text, reason, "delta")
        return self._chunk([choice])

    def last(self, usage: dict[str, int]) -> dict[str, Any]:
        """The chunk that holds no text but what was used."""
        return self._chunk([]) | {"usage": usage}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self._is_chat else self._kind
        return {**self._head, "object": kind, "choices": choices}

    def _choice(
        self, index: int, message: dict, text: str, reason: str | None, key: str = "message"
    ) -> dict[str, Any]:
        content = {key: message} if self._is_chat else {"text": text}
        return {"index": index, **content, "finish_reason": reason, "logprobs": None}


async def _respond(engine: Engine, request: Request, form: _Form, texts: Sequence[str]) -> Any:
    lines = [text.splitlines() or [""] for text in texts]
    counts = [len(part) for part in lines]
    form.body.check_possible()
    setting = _setting(engine, form.body)
    orders = [Order(line, **setting) for part in lines for line in part]
    if form.body.stream:
        return server_sent(_chunks(form, counts, await stream(request, engine, orders)))
    rest = iter(await translate(request, engine, orders))
    answers = [[next(rest) for _ in range(count)] for count in counts]
    choices = [_ended(part, form.body.stops()) for part in answers]
    return form.whole(choices, _usage([answer for part in answers for answer in part]))


def _setting(engine: Engine, body: _Common) -> dict[str, Any]:
    """Direction, adapter and limit that a request asks for."""
    module = engine.translator.module
    _check_model(engine, body.model)
    limits = [most for most in (body.max_tokens, body.max_completion_tokens) if most is not None]
    limit = min(limits, default=None)
    if has_named_adapters(module) and body.model in engine.translator.adapters:
        return {"direction": body.direction, "adapter": body.model, "limit": limit}
    return {"direction": body.model, "limit": limit}


def _ended(answers: Sequence[Answer], stops: Sequence[str]) -> tuple[str, str]:
    """The text of a choice up to the first of the stops, and the reason of its end."""
    stopped = StopTexts(stops)
    text = stopped.add("\n".join(answer.text for answer in answers)) + stopped.rest()
    return text, "stop" if stopped.found else _reason(answers)


def _reason(answers: Sequence[Answer]) -> str:
    return "length" if any(answer.capped for answer in answers) else "stop"


def _usage(answers: Sequence[Answer]) -> dict[str, int]:
    prompt = sum(answer.source_tokens for answer in answers)
    completion = sum(answer.tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


async def _chunks(
    form: _Form, counts: Sequence[int], events: AsyncIterator[Piece | Answer]
) -> AsyncIterator[dict[str, Any]]:
    """Chunks in which the lines of each choice stand in their order, whichever is ready first."""
    choice_of = [choice for choice, count in enumerate(counts) for _ in range(count)]
    first = [sum(counts[:choice]) for choice in range(len(counts))]
    at = list(first)  # the line of each choice that is being said
    held: dict[int, list[str]] = {line: [] for line in range(len(choice_of))}
    done: dict[int, Answer] = {}
    stopped = [StopTexts(form.body.stops()) for _ in counts]
    async for event in events:
        choice = choice_of[event.index]
        if isinstance(event, Piece):
            held[event.index].append(event.text)
        else:
            done[event.index] = event
        end = first[choice] + counts[choice]
        while at[choice] < end:
            line = at[choice]
            text = "".join(held[line])
            held[line].clear()
            is_done = line in done
            at[choice] += is_done
            if is_done and at[choice] < end:
                text += "\n"
            text = stopped[choice].add(text)
            if at[choice] == end:
                text += stopped[choice].rest()
            if text:
                yield form.chunk(choice, text)
            if not is_done:
                break
        if at[choice] == end:
            own = [done[line] for line in range(first[choice], end)]
            yield form.chunk(choice, "", "stop" if stopped[choice].found else _reason(own))
    if (form.body.stream_options or {}).get("include_usage"):
        yield form.last(_usage(list(done.values())))
