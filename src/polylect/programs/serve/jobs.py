"""Requests on their way through the engine: texts in, events out."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from polylect.data.batch import Example
from polylect.programs.serve.limits import Limits, Refusal
from polylect.programs.serve.pieces import TextPieces
from polylect.programs.serve.usage import Usage


@dataclass(frozen=True)
class Order:
    """One text that is to be translated.

    Attributes:
        direction: None takes that of the adapter, or of the target.
        target: language to translate into from the one that is detected.
        adapter: None takes the one that serves the direction, "" is the base alone.
        limit: most tokens of the translation; None for as many as the server gives.
    """

    text: str
    direction: str | None = None
    target: str | None = None
    adapter: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Piece:
    """What a translation has grown by."""

    index: int
    text: str


@dataclass(frozen=True)
class Answer:
    """A translation that is whole.

    Attributes:
        adapter: its name, "" for the base alone; None where adapters have no part, or are chosen
            by the strategy.
        source_tokens: of the prompt.
        tokens: of the translation.
        capped: whether it ran into the length cap.
        usage: which adapters or experts its tokens were written with, where that was asked for.
    """

    index: int
    text: str
    direction: str
    adapter: str | None
    source_tokens: int
    tokens: int
    capped: bool
    usage: Usage | None = None


@dataclass(frozen=True)
class Failure:
    """The request cannot be answered any more."""

    error: Exception


Event = Piece | Answer | Failure


class Job:
    """The texts of one request, made in the event loop and worked on by the engine's thread.

    Attributes:
        dropped: whether nobody wants the answers any more.
        came_alone: whether every request before it had its answer when it came.
        streams: whether pieces are told of.
        wants_usage: whether answers tell which adapters or experts were used.
    """

    def __init__(
        self, orders: Sequence[Order], streams: bool = False, wants_usage: bool = False
    ) -> None:
        self.orders, self.streams, self.wants_usage = list(orders), streams, wants_usage
        self.arrival = time.perf_counter()
        self.dropped = self.has_begun = self.came_alone = False
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def tell(self, event: Event) -> None:
        """Hand an event over to the event loop, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed: the server was stopped by force
            self.dropped = True

    async def events(self, limits: Limits) -> AsyncIterator[Piece | Answer]:
        """Yield what becomes of the texts until all have their answer.

        Raises the error with which the request failed, or Refusal when its time is up.
        """
        open_texts = len(self.orders)
        end = self.arrival + limits.timeout
        while open_texts:
            try:
                left = max(0.0, end - time.perf_counter())
                event = await asyncio.wait_for(self._events.get(), left)
            except TimeoutError:
                raise Refusal(
                    503,
                    f"the request took more than {limits.timeout:g} seconds: send fewer texts, or "
                    "try again when fewer wait.",
                    retry_after=5,
                ) from None
            if isinstance(event, Failure):
                raise event.error
            open_texts -= isinstance(event, Answer)
            yield event


@dataclass(eq=False)
class Row:
    """One text of a job that waits or is decoded."""

    job: Job
    index: int
    prompt: Example
    turn: int
    pieces: TextPieces | None = None
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = len(self.prompt.prompt)

    def grow(self, token: int) -> bool:
        """Take the next token of the translation; returns whether it is not wanted any more."""
        if self.pieces is not None and (text := self.pieces.add(token)):
            self.job.tell(Piece(self.index, text))
        return self.job.dropped

    def finish(self, translation: Any, adapter: str | None, usage: Usage | None) -> None:
        """Tell the job of the whole translation."""
        if self.pieces is not None and (rest := self.pieces.rest(translation.text)):
            self.job.tell(Piece(self.index, rest))
        self.job.tell(
            Answer(
                index=self.index,
                text=translation.text,
                direction=self.prompt.direction,
                adapter=adapter,
                source_tokens=self.length,
                tokens=translation.tokens,
                capped=translation.capped,
                usage=usage,
            )
        )
