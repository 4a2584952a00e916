"""A process of its own for a job or stage, which frees memory, seeds and loggers when it ends."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from polylect.run.record import Record

RUN_FOLDER = "POLYLECT_RUN_FOLDER"  # set for a job whose folder has been chosen by its parent


def run_subprocess(
    command: Sequence[str], log: IO[str] | None, environment: Mapping[str, str]
) -> int:
    """Run a job and return its exit code; stopped, stop it too and let it save what it has.

    What it says goes to the log, or where this process speaks if there is none.
    """

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    in_main_thread = threading.current_thread() is threading.main_thread()  # which has signals
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    before = signal.signal(signal.SIGTERM, stop) if in_main_thread else None
    try:
        return process.wait()
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, before)
        if process.poll() is None:
            process.terminate()
            process.wait()


@cache
def stop_with(parent: int) -> None:
    """Send this process SIGTERM as soon as the one that started it is gone.

    A launcher that is killed cannot tell its workers, whose jobs would run on by themselves.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def is_resumable(program: str, run: Path) -> bool:
    """Say whether `resume=` can go on from a run folder; one that has diverged begins anew.

    A recipe keeps its finished stages, however it ended.
    """
    if program == "recipe":
        return (run / "record.json").is_file()
    has_checkpoint = (run / "checkpoints" / "last.ckpt").is_file() or (run / "partial.pt").is_file()
    return has_checkpoint and not has_diverged(run)


def has_diverged(run: Path) -> bool:
    """Say whether a run ended because its loss or gradients were no longer finite."""
    return (run / "record.json").is_file() and Record.read(run).status == "diverged"
