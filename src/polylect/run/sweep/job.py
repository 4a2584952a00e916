"""Runs Hydra's jobs: a single one in this process, each of a sweep in a process of its own."""

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.run.record import new_folder
from polylect.run.sweep.ledger import Attempt, append, hold, read_attempts
from polylect.run.sweep.process import RUN_FOLDER, is_resumable, run_subprocess, stop_with

SHOWN = 5
"""Last lines of a failed job that are shown."""


class JobFailed(RuntimeError):
    """A job of a sweep has failed; the message says how, with the last lines of its log."""


@dataclass
class HydraJob:
    """What Hydra calls per job; a launcher may do so in another process, on another machine.

    So a job of a sweep tells of itself in the files of the sweep's folder alone. `codes` and
    `failures` are of a single job, which runs here.

    Attributes:
        program: whose configuration the job is given.
        overrides: of the command line.
        sweeper: number of the process that runs the sweep; a launcher gives it workers.
        codes: exit code of the program, if it has an answer and no objective.
        failures: what the job raised, since Hydra would print a line about it that helps nobody.
    """

    program: str
    overrides: Sequence[str]
    sweeper: int = field(default_factory=os.getpid)
    codes: list[int] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def __call__(self, cfg: DictConfig) -> object:
        """Run the job and return its objective; a single one that failed has none.

        Raises:
            JobFailed: a job of a sweeper that is to learn of it; Hydra's own takes nan.
        """
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return self._run_in_sweep(cfg)
        try:
            return self._run_here(cfg)
        except Exception as error:
            self.failures.append(error)
            return None

    def _run_in_sweep(self, cfg: DictConfig) -> float:
        if os.getppid() != self.sweeper:
            return _run_of_sweep(self.program, self.overrides, cfg)
        stop_with(self.sweeper)
        try:
            return _run_of_sweep(self.program, self.overrides, cfg)
        except SystemExit as stopped:
            os._exit(stopped.code)  # a worker would go on with the next job of its queue

    def _run_here(self, cfg: DictConfig) -> object:
        from hydra.core.hydra_config import HydraConfig

        from polylect.run.reuse.overrides import apply_run_overrides

        module = import_module(f"polylect.programs.{self.program.replace('-', '_')}")
        own = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        if self.program == "train":
            cfg = module.continued_config(cfg, own)
        else:
            cfg = apply_run_overrides(cfg, own)
        result = module.main(cfg)
        if self.program == "verify":  # which has an answer, and no objective
            self.codes.append(result)
        return result


def _run_of_sweep(program: str, overrides: Sequence[str], cfg: DictConfig) -> float:
    """Run one job of a sweep unless it is done, and return its objective, nan without one."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    sweep, number = Path(hydra.sweep.dir), hydra.job.num
    varied = _varied_overrides(hydra, overrides)
    name = f"{number:03d}_{_slug(varied)}"
    identity = _identity(program, cfg)
    with hold(sweep / f"{name}.log") as log:
        if log is None:
            print(f"sweep job {number}: {' '.join(varied)} runs elsewhere, left alone", flush=True)
            return float("nan")
        before = [a for a in read_attempts(sweep) if a.identity == identity]
        if before and before[-1].status == "done":
            attempt = before[-1]
            print(f"sweep job {number}: {' '.join(varied)} done before, {attempt.folder}")
        else:
            begun = Attempt(
                number, varied, "running", identity, str(sweep / name), log.name, _now()
            )
            attempt = _attempt(program, _of_one_job(hydra), begun, before, log)
    if attempt.objective is not None:
        return attempt.objective
    if hydra.sweeper._target_.endswith(".BasicSweeper"):
        return float("nan")
    raise JobFailed(f"sweep job {number} {_outcome(attempt)}")


def _attempt(
    program: str, overrides: list[str], begun: Attempt, before: Sequence[Attempt], log: Any
) -> Attempt:
    """Run a job from its start, or from the checkpoint of an interrupted attempt."""
    sweep, name = Path(begun.folder).parent, Path(begun.folder).name
    former = _interrupted_run(program, before)
    if former is not None:
        left_out = ("resume=", "init_from=", "config=")  # it goes on from its own weights
        overrides = [o for o in overrides if not o.startswith(left_out)] + [f"resume={former}"]
    if former is not None and program == "recipe":  # goes on where it is
        folder = former
    else:
        folder = new_folder(sweep, name)
        folder.rmdir()  # the program makes it
    begun = replace(begun, folder=str(folder), resumed=None if former is None else str(former))
    append(sweep, begun)
    tell(begun)
    begin = time.monotonic()
    command = [sys.executable, "-m", "polylect.cli", program, *overrides]
    code = run_subprocess(command, log, os.environ | {RUN_FOLDER: str(folder)})
    ended = replace(
        begun,
        status=_status(code, folder),
        time=_now(),
        exit=code,
        seconds=round(time.monotonic() - begin, 1),
        objective=_record(folder).get("metrics", {}).get("objective"),
    )
    append(sweep, ended)
    tell(ended)
    return ended


def _interrupted_run(program: str, before: Sequence[Attempt]) -> Path | None:
    """Return the newest run from which a job can go on; one that failed by itself begins anew."""
    for attempt in reversed(before):
        folder = Path(attempt.folder)
        stopped = attempt.status in ("running", "interrupted") or program == "recipe"
        if stopped and is_resumable(program, folder):
            return folder
        if attempt.status in ("failed", "diverged"):
            return None
    return None


def _status(code: int, folder: Path) -> str:
    """Return how a job has ended: one that a signal ended was interrupted."""
    if code == 0:
        return "done"
    said = _record(folder).get("status")
    if code < 0 or code > 128 or said in ("running", "interrupted"):
        return "interrupted"
    return "diverged" if said == "diverged" else "failed"


def tell(attempt: Attempt) -> None:
    """Print a line about a job that begins or has ended; of a failed one also its last lines."""
    if attempt.status == "running":
        goes_on = f" goes on from {attempt.resumed}" if attempt.resumed else ""
        print(f"sweep job {attempt.job}: {' '.join(attempt.overrides)}{goes_on} …", flush=True)
    else:
        print(f"sweep job {attempt.job} {_outcome(attempt)}", flush=True)


def _outcome(attempt: Attempt) -> str:
    if attempt.status == "done":
        return f"done: objective {attempt.objective}, {attempt.folder}"
    tail = "\n".join(last_lines(attempt))
    return f"FAILED with exit code {attempt.exit}, log {attempt.log}:\n{tail}"


def last_lines(attempt: Attempt) -> list[str]:
    """Return the last lines of a job's log."""
    text = Path(attempt.log).read_text(encoding="utf-8", errors="replace")
    return text.splitlines()[-SHOWN:]


def _identity(program: str, cfg: DictConfig) -> str:
    """Return a hash of a program and all of its settings, those of YAML files too."""
    settings = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
    text = json.dumps([program, settings], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _varied_overrides(hydra: Any, overrides: Sequence[str]) -> list[str]:
    """Return the overrides in which this job differs from the others."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    keys = {override.key_or_group for override in parsed if override.is_sweep_override()}
    keys |= set(hydra.sweeper.params or ())
    return [o for o in hydra.overrides.task if o.lstrip("+~").partition("=")[0] in keys]


def _of_one_job(hydra: Any) -> list[str]:
    """Return the overrides with which this job runs alone."""
    # Hydra's sweeper writes ~key as ~key=null, which it then refuses: the value is not null.
    own = [o.removesuffix("=null") if o.startswith("~") else o for o in hydra.overrides.task]
    return [*own, *_own_hydra_overrides(hydra.overrides.hydra), "hydra.mode=RUN"]


_OF_SWEEPS = ("hydra.mode", "hydra.sweep", "hydra/sweep", "hydra.launcher", "hydra/launcher")


def _own_hydra_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of `hydra.…` that a single job shares with the sweep."""
    return [o for o in overrides if not o.startswith(_OF_SWEEPS)]


def _slug(overrides: list[str]) -> str:
    text = "_".join(o.lstrip("+").split(".")[-1] for o in overrides)
    return "".join(c if c.isalnum() or c in "=_-." else "-" for c in text)[:80] or "default"


def _record(folder: Path) -> dict[str, Any]:
    """Return the record of a run; empty where there is none, as of a setting that is refused."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return json.loads((folder / "record.json").read_text(encoding="utf-8"))
    return {}
