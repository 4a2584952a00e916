"""One thread that has the model, and what goes through it: batches, and changes of adapters."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from polylect.data.batch import Example
from polylect.models.context import context_of
from polylect.programs.serve.admission import rows_of
from polylect.programs.serve.jobs import Failure, Job, Row
from polylect.programs.serve.limits import Limits, Refusal
from polylect.programs.serve.metrics import Metrics
from polylect.programs.serve.running import Running
from polylect.programs.serve.usage import Usage
from polylect.programs.serve.waiting import Waiting
from polylect.strategies.decoding.translation import Accept, Translation, Watch
from polylect.translator import Translator

_log = logging.getLogger(__name__)
_MOMENTS = 10
"""How often `wait_ms` is waited at most while texts keep coming."""
_TURNS = 16
"""How many times `rows_per_batch` texts are in one batch, with those that join, so that it ends."""


class Engine:
    """Translates the texts of concurrent requests together, through one `Translator`.

    Texts that wait are decoded in batches of similar length, whatever their requests, directions
    and adapters. Adapters change between batches, never within one. A text is answered when it
    leaves its batch. When a batch fails, each of its texts that has no answer is tried alone, so
    that only the one to blame has none.

    Texts that come while a batch runs join it a few steps later, where they fit, in the order in
    which they came; none joins where adapters are to change, or a text asks what wrote it, as both
    wait for the end of the batch.

    Args:
        logs_texts: whether texts and translations go to the log.

    Attributes:
        rows_per_batch: texts that are decoded together at most.
    """

    def __init__(
        self, translator: Translator, limits: Limits, metrics: Metrics, logs_texts: bool = False
    ) -> None:
        self.translator, self.limits = translator, limits
        self._metrics, self._logs_texts = metrics, logs_texts
        generation = translator.module.generation
        context = context_of(translator.module.backbone.config)
        self.rows_per_batch = generation.rows
        self._waiting = Waiting(generation, context, limits.window)
        self._arrived: deque[Job] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future]] = deque()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._open: set[Job] = set()
        self._was_alone = True  # whether the last batch was of one request
        self._thread = threading.Thread(target=self._live, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what was submitted, take nothing more, and end the thread."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    @property
    def takes_requests(self) -> bool:
        """Whether what is submitted will be worked on."""
        return self.is_alive and not self._is_stopping

    def queued(self) -> int:
        """Return how many texts wait."""
        with self._changed:
            return self._queued()

    def submit(self, job: Job) -> None:
        """Take a request; its events tell what becomes of it.

        Raises:
            Refusal: the queue is full (429), or the server stops (503).
        """
        with self._changed:
            self._check_takes_requests()
            if self._queued() + len(job.orders) > self.limits.queue:
                raise Refusal(
                    429,
                    f"{self._queued()} texts wait already, and the queue has room for "
                    f"{self.limits.queue}: try again in a few seconds.",
                    retry_after=2,
                )
            job.came_alone = not self._open
            self._arrived.append(job)
            self._open.add(job)
            self._changed.notify()

    def call(self, function: Callable[[], Any]) -> Future:
        """Have a function called between two batches; returns its future result.

        Raises:
            Refusal: the server stops.
        """
        future: Future = Future()
        with self._changed:
            self._check_takes_requests()
            self._calls.append((function, future))
            self._changed.notify()
        return future

    def drop(self, job: Job) -> None:
        """Forget a request: what waits is not decoded, what is being decoded ends."""
        with self._changed:
            job.dropped = True
            self._open.discard(job)
            self._waiting.drop(job)
            if job in self._arrived:
                self._arrived.remove(job)

    # What follows runs in the engine's thread.

    def _check_takes_requests(self) -> None:
        if not self.takes_requests:
            raise Refusal(503, "the server is stopping: ask another one.", retry_after=10)

    def _queued(self) -> int:
        return len(self._waiting) + sum(len(job.orders) for job in self._arrived)

    def _has_work(self) -> bool:
        return bool(self._calls or self._arrived or len(self._waiting))

    def _live(self) -> None:
        """Work until the end; if that comes before its time, nobody waits for an answer in vain."""
        try:
            self._work()
        except BaseException:
            _log.critical("the engine ended", exc_info=True)
            with self._changed:
                self._is_stopping = True
                calls, jobs = list(self._calls), list(self._open)
            died = Refusal(503, "the server broke and has to be started again.", retry_after=30)
            for _, future in calls:
                future.set_exception(died)
            for job in jobs:
                job.tell(Failure(died))

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._has_work() or self._is_stopping)
                if not self._has_work():
                    return
                if not self._is_lone_client():
                    self._gather()
                calls = list(self._calls)
                self._calls.clear()
            for function, future in calls:
                self._call(function, future)
            self._admit_arrived()
            with self._changed:
                batch = self._waiting.take()
            if batch:
                self._was_alone = len({row.job for row in batch}) == 1
                self._decode(batch)

    def _is_lone_client(self) -> bool:
        """Whether nobody else was being served, neither before nor when the next request came."""
        came_alone = [job.came_alone for job in self._arrived] == [True]
        return self._was_alone and came_alone and not len(self._waiting)

    def _gather(self) -> None:
        """Wait for texts that come at the same time: until none comes for a moment, or all fit.

        Clients that were answered together ask again one after the other, and their next texts
        would else be decoded in many small batches. A client that is alone is not kept waiting.
        """
        moment = self.limits.wait_ms / 1000
        end = time.perf_counter() + _MOMENTS * moment
        while time.perf_counter() < end:
            before = self._queued()
            self._changed.wait_for(self._is_enough, timeout=moment)
            if self._is_enough() or self._queued() == before:
                return

    def _is_enough(self) -> bool:
        full = self._queued() >= self.rows_per_batch
        return full or bool(self._calls) or self._is_stopping

    def _call(self, function: Callable[[], Any], future: Future) -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

    def _admit_arrived(self) -> None:
        """Make prompts of the texts of requests, which wait from then on; of all or none of one."""
        with self._changed:
            jobs = list(self._arrived)
        for job in jobs:
            try:
                rows = rows_of(job, self.translator, self._waiting.turn)
            except Exception as error:
                rows = []
                job.tell(Failure(error))
            with self._changed:
                if job in self._arrived:  # it may have been dropped meanwhile
                    self._arrived.remove(job)
                    self._waiting.add(rows)

    def _decode(self, batch: list[Row], alone: bool = False) -> None:
        """Decode rows, and those that join them unless they are to be alone."""
        rows = [row for row in batch if not row.job.dropped]
        if not rows:
            return
        running, begin = Running(rows), time.perf_counter()
        told = partial(self._grow, rows), partial(self._end, running)
        joined = partial(self._others_may_join, rows), partial(self._join, running)
        watch = Watch(*told) if alone else Watch(*told, *joined)
        try:
            running.name_adapters(self.translator.module)
            self.translator.decode([row.prompt for row in rows], watch)
            used = running.usages(self.translator.module)
        except Exception as error:
            self._after_failure(rows, running.left(), error)
            return
        self._metrics.batch(len(rows), time.perf_counter() - begin)
        for index in sorted(running.open):
            self._finish(running, index, used.get(index))

    def _others_may_join(self, rows: list[Row]) -> bool:
        """Return whether texts wait, nothing waits for the end of the batch, and it may grow."""
        if self._calls or len(rows) > _TURNS * self.rows_per_batch:
            return False
        return bool(self._arrived or len(self._waiting)) and not any(
            r.job.wants_usage for r in rows
        )

    def _grow(self, rows: list[Row], index: int, token: int) -> bool:
        job = rows[index].job
        if not job.has_begun:
            job.has_begun = True
            self._metrics.first_token.observe(time.perf_counter() - job.arrival)
        return rows[index].grow(token)

    def _end(self, running: Running, index: int, translation: Translation) -> None:
        running.translations[index] = translation
        if not running.rows[index].job.wants_usage:  # the model tells when the batch has ended
            self._finish(running, index, None)

    def _join(self, running: Running, accept: Accept) -> list[tuple[int, Example]]:
        """Give the running batch the texts that wait, as far as they fit."""
        self._admit_arrived()
        with self._changed:
            joining = running.add(self._waiting.take_first(accept))
        running.name_adapters(self.translator.module)
        return joining

    def _finish(self, running: Running, index: int, usage: Usage | None) -> None:
        row, translation = running.rows[index], running.translations[index]
        running.open.discard(index)
        self._metrics.text(translation.tokens)
        if row.job.dropped:
            return
        try:
            row.finish(translation, running.adapters[index], usage)
        except ValueError as error:
            self._fail(row.job, error)
        if self._logs_texts:
            text = row.job.orders[row.index].text
            _log.info("%s %r -> %r", row.prompt.direction, text, translation.text)

    def _after_failure(self, rows: list[Row], left: list[Row], error: Exception) -> None:
        """Find out whose fault it was that a batch failed: each text that is left, alone."""
        if len(rows) == 1 and left:
            self._fail(rows[0].job, error)
            return
        for row in left:
            if row.pieces is not None:
                row.pieces.again()
            self._decode([row], alone=True)

    def _fail(self, job: Job, error: Exception) -> None:
        job.tell(Failure(error))
        self.drop(job)
