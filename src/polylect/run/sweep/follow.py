"""Tells of jobs that a launcher runs on other machines, whose output is not seen here."""

import threading
from pathlib import Path

from polylect.run.sweep.job import tell
from polylect.run.sweep.ledger import read_attempts

_SECONDS = 1.0


class Follower:
    """Prints what is added to a sweep's ledger, so that a failure is shown when it happens."""

    def __init__(self, sweep: Path) -> None:
        self._sweep = sweep
        self._told = len(read_attempts(sweep))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Print the last lines and end."""
        self._ended.set()
        self._thread.join()
        self._tell()

    def _follow(self) -> None:
        while not self._ended.wait(_SECONDS):
            self._tell()

    def _tell(self) -> None:
        new = read_attempts(self._sweep)[self._told :]
        self._told += len(new)
        for attempt in new:
            tell(attempt)
