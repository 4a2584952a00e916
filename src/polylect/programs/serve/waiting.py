"""Which of the texts that wait are decoded next."""

from collections.abc import Iterable
from itertools import takewhile

from polylect.data.batch import Example
from polylect.models.context import Context
from polylect.programs.serve.jobs import Job, Row
from polylect.strategies.decoding.translation import Accept
from polylect.strategies.generation import Generation, batches


class Waiting:
    """Texts of all requests, from which the engine takes batches.

    Every request gets a turn for each batch's worth of its texts, counted from the batch at which
    it came: a request of a thousand texts does not keep those that come after it waiting, and no
    text waits for ever. The text whose turn is first is in the next batch; those of similar length
    go with it, out of a window of those whose turns come next. Batches are cut as the offline
    Translator cuts them.

    Args:
        window: texts among which similar ones are looked for, in units of `generation.rows`.
    """

    def __init__(self, generation: Generation, context: Context, window: int) -> None:
        self._generation, self._context = generation, context
        self._window = window * generation.rows
        self._rows: list[Row] = []
        self._batches = self._joined = 0

    def __len__(self) -> int:
        return len(self._rows)

    def turn(self, index: int) -> int:
        """Return the turn of the text of this index in a request that comes now."""
        return self._batches + index // self._generation.rows

    def add(self, rows: Iterable[Row]) -> None:
        """Take texts that came."""
        self._rows.extend(rows)

    def drop(self, job: Job) -> None:
        """Forget the texts of a request."""
        self._rows = [row for row in self._rows if row.job is not job]

    def take(self) -> list[Row]:
        """Return the texts of the next batch, which wait no more; none where none wait."""
        if not self._rows:
            return []
        self._rows.sort(key=lambda row: row.turn)  # stable: of one turn, those that came first
        near = self._rows[: self._window]
        lengths = [row.length for row in near]
        cut = batches(lengths, self._generation, self._context)
        taken = {id(near[index]) for index in next(batch for batch in cut if 0 in batch)}
        batch = [row for row in near if id(row) in taken]
        self._rows = [row for row in self._rows if id(row) not in taken]
        self._batches += 1
        return batch

    def take_first(self, accept: Accept) -> list[Row]:
        """Return those whose turn is first, up to one that is not accepted; they wait no more."""
        self._rows.sort(key=lambda row: row.turn)
        taken = list(takewhile(lambda row: _is_accepted(accept, row.prompt), self._rows))
        self._rows = self._rows[len(taken) :]
        self._joined += len(taken)  # a batch's worth of those counts as a batch
        batches, self._joined = divmod(self._joined, self._generation.rows)
        self._batches += batches
        return taken


def _is_accepted(accept: Accept, prompt: Example) -> bool:
    """Ask; a prompt that cannot even be asked for fails in a batch of its own, not in this one."""
    try:
        return accept(prompt)
    except Exception:
        return False
