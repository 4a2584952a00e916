"""Runs Hydra's jobs: a single one in this process, each of a sweep in a process of its own.

A process per job frees memory, seeds and loggers between jobs, and one that fails is reported at
once while the others go on.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.run.record import new_folder

RUN_FOLDER = "POLYLECT_RUN_FOLDER"  # set for a job whose folder has been chosen by its parent


def hydra_job(
    program: str, overrides: Sequence[str], codes: list[int], failures: list[Exception]
) -> Callable[[DictConfig], object]:
    """Return the function Hydra calls per job, for a command line with these overrides.

    The exit codes of a sweep's jobs are added to `codes`. What a single job raises is added to
    `failures`, since Hydra would print a line about it that helps nobody.
    """
    folders: list[Path] = []  # of the sweep: made by its first job, shared by the rest

    def job(cfg: DictConfig) -> object:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from polylect.run.reuse.overrides import apply_run_overrides

        if HydraConfig.get().mode == RunMode.MULTIRUN:
            if not folders:
                name = cfg.get("name") or program
                folders.append(new_folder(Path(cfg.get("runs") or "runs") / "sweeps" / name))
            return _in_own_process(program, overrides, folders[0], codes)
        try:
            module = import_module(f"polylect.programs.{program}")
            own = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
            cfg = (
                module.continued_config(cfg, own)
                if program == "train"
                else apply_run_overrides(cfg, own)
            )
            result = module.main(cfg)
            if program == "verify":  # which has an answer, and no objective
                codes.append(result)
            return result
        except Exception as error:
            failures.append(error)
            return None

    return job


def _in_own_process(program: str, overrides: Sequence[str], sweep: Path, codes: list[int]) -> float:
    """Run one job of a sweep and return its objective, nan where it failed."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    varied = _varied_overrides(hydra, overrides)
    folder = sweep / f"{hydra.job.num:03d}_{_slug(varied)}"
    log = sweep / f"{folder.name}.log"
    print(f"sweep job {hydra.job.num}: {' '.join(varied)} …", flush=True)
    command = [sys.executable, "-m", "polylect.cli", program, *_of_one_job(hydra)]
    begin = time.monotonic()
    code = run_subprocess(command, log, os.environ | {RUN_FOLDER: str(folder)})
    codes.append(code)
    objective = _objective(folder)
    line = {
        "job": hydra.job.num,
        "overrides": varied,
        "exit": code,
        "seconds": round(time.monotonic() - begin, 1),
        "objective": objective,
        "folder": str(folder),
    }
    with (sweep / "ledger.jsonl").open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(line, ensure_ascii=False) + "\n")
    if code:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-5:])
        outcome = f"FAILED with exit code {code}, log {log}:\n{tail}"
    else:
        outcome = f"done: objective {objective}, {folder}"
    print(f"sweep job {hydra.job.num} {outcome}", flush=True)
    return float("nan") if objective is None else objective


def run_subprocess(command: Sequence[str], log: Path | None, environment: Mapping[str, str]) -> int:
    """Run a job and return its exit code; stopped, stop it too and let it save what it has.

    What it says goes to the log, or where this process speaks if there is none.
    """

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    with log.open("w", encoding="utf-8") if log else nullcontext() as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        before = signal.signal(signal.SIGTERM, stop)
        try:
            return process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)
            if process.poll() is None:
                process.terminate()
                process.wait()


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


def _own_hydra_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of `hydra.…` that a single job shares with the sweep."""
    return [o for o in overrides if not o.startswith(("hydra.mode", "hydra.sweep", "hydra/sweep"))]


def _slug(overrides: list[str]) -> str:
    text = "_".join(o.lstrip("+").split(".")[-1] for o in overrides)
    return "".join(c if c.isalnum() or c in "=_-." else "-" for c in text)[:80] or "default"


def _objective(folder: Path) -> float | None:
    record = folder / "record.json"
    if not record.is_file():
        return None
    return json.loads(record.read_text(encoding="utf-8"))["metrics"].get("objective")
