"""The ledger of a sweep: JSON lines in its folder, which jobs append to wherever they run.

A job has a line when it begins and one when it ends. It holds a lock on its log for as long as it
runs, and so does the process that it starts; so one that was killed is told from one that runs.
"""

import fcntl
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

LEDGER = "ledger.jsonl"


@dataclass(frozen=True)
class Attempt:
    """A line of the ledger: how far a job has come.

    `status` is "running", "done", "failed", "diverged" or "interrupted"; `identity` a hash of the
    program and all its settings, by which a rerun knows the job; `folder` that of the run, `log`
    the file with all that it said, `resumed` the folder from whose checkpoint it went on.
    """

    job: int
    overrides: list[str]
    status: str
    identity: str
    folder: str
    log: str
    time: str
    resumed: str | None = None
    exit: int | None = None
    seconds: float | None = None
    objective: float | None = None


def append(sweep: Path, attempt: Attempt) -> None:
    """Add a line to the ledger, which other jobs may be adding to at the same time."""
    with (sweep / LEDGER).open("a", encoding="utf-8") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        ledger.write(json.dumps(asdict(attempt), ensure_ascii=False) + "\n")


def read_attempts(sweep: Path) -> list[Attempt]:
    """Return the lines of a sweep's ledger in their order; none if it has not begun."""
    ledger = sweep / LEDGER
    lines = ledger.read_text(encoding="utf-8").splitlines() if ledger.is_file() else []
    return [Attempt(**json.loads(line)) for line in lines]


def read_jobs(sweep: Path) -> list[Attempt]:
    """Return the last line of each job, by number; "running" is one that no process runs.

    Such a job was killed, and so was what should have noted it: it is "interrupted".
    """
    last = {attempt.identity: attempt for attempt in read_attempts(sweep)}
    jobs = [
        Attempt(**asdict(attempt) | {"status": "interrupted"})
        if attempt.status == "running" and not is_held(Path(attempt.log))
        else attempt
        for attempt in last.values()
    ]
    return sorted(jobs, key=lambda attempt: attempt.job)


def unfinished(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Return the jobs that ended without being done."""
    return [a for a in attempts if a.status not in ("done", "running")]


@contextmanager
def hold(log: Path) -> Iterator[IO[str] | None]:
    """Give the log of a job, open at its end and locked; None where another process has the lock.

    A process that is given the file as its output keeps the lock for as long as it lives.
    """
    with log.open("a", encoding="utf-8") as file:
        for wait in (0.2, 0.2, 0.2, 0.0):  # whoever looks at the status holds it for a moment
            if _lock(file, fcntl.LOCK_EX):
                yield file
                return
            time.sleep(wait)
        yield None


def is_held(log: Path) -> bool:
    """Return whether a process runs the job with this log."""
    if not log.is_file():
        return False
    with log.open(encoding="utf-8") as file:
        return not _lock(file, fcntl.LOCK_SH)


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
