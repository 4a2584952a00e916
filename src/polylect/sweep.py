"""How Hydra's jobs run: a single one in this process, each of a sweep in a process of its own.

A process per job frees memory, seeds and loggers between jobs, and one that fails is reported at
once while the others go on.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from omegaconf import DictConfig

RUN_FOLDER = "POLYLECT_RUN_FOLDER"  # set for a job whose folder has been chosen by its parent


def task(
    program: str, codes: list[int], failures: list[Exception]
) -> Callable[[DictConfig], object]:
    """The function Hydra calls per job.

    The exit codes of a sweep's jobs are added to `codes`. What a single job raises is added to
    `failures`, since Hydra would print a line about it that helps nobody.
    """

    def job(cfg: DictConfig) -> object:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return _in_own_process(program, cfg, codes)
        try:
            return import_module(f"polylect.{program}").main(cfg)
        except Exception as error:
            failures.append(error)
            return None

    return job


def _in_own_process(program: str, cfg: DictConfig, codes: list[int]) -> float:
    """Run one job of a sweep and return its objective, nan where it failed."""
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    sweep = _sweep_folder(cfg)
    varied = [o for o in hydra.overrides.task if not o.startswith(("sweep=", "experiment="))]
    folder = sweep / f"{hydra.job.num:03d}_{_slug(varied)}"
    log = sweep / f"{folder.name}.log"
    print(f"sweep job {hydra.job.num}: {' '.join(varied)} …", flush=True)
    command = [sys.executable, "-m", "polylect.cli", program, *hydra.overrides.task]
    command += [*_own_hydra_overrides(hydra.overrides.hydra), "hydra.mode=RUN"]
    begin = time.monotonic()
    with log.open("w", encoding="utf-8") as out:
        environment = os.environ | {RUN_FOLDER: str(folder)}
        code = subprocess.run(command, stdout=out, stderr=out, env=environment).returncode
    codes.append(code)
    objective = _objective(folder)
    line = {
        "job": hydra.job.num,
        "overrides": list(varied),
        "exit": code,
        "seconds": round(time.monotonic() - begin, 1),
        "objective": objective,
        "folder": str(folder),
    }
    with (sweep / "ledger.jsonl").open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(line, ensure_ascii=False) + "\n")
    if code:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-5:])
        print(f"sweep job {hydra.job.num} FAILED with exit code {code}, log {log}:\n{tail}")
    else:
        print(f"sweep job {hydra.job.num} done: objective {objective}, {folder}", flush=True)
    return float("nan") if objective is None else objective


def _sweep_folder(cfg: DictConfig) -> Path:
    """One folder per sweep, made by its first job and shared by the rest."""
    from polylect.record import new_folder

    chosen = os.environ.get("POLYLECT_SWEEP_FOLDER")
    if chosen is None:
        chosen = str(new_folder(Path(cfg.runs) / "sweeps" / cfg.name))
        os.environ["POLYLECT_SWEEP_FOLDER"] = chosen
    return Path(chosen)


def _own_hydra_overrides(overrides: list[str]) -> list[str]:
    """Overrides of `hydra.…` that a single job shares with the sweep."""
    return [o for o in overrides if not o.startswith(("hydra.mode", "hydra.sweep", "hydra/sweep"))]


def _slug(overrides: list[str]) -> str:
    text = "_".join(o.lstrip("+").split(".")[-1] for o in overrides)
    return "".join(c if c.isalnum() or c in "=_-." else "-" for c in text)[:80] or "default"


def _objective(folder: Path) -> float | None:
    record = folder / "record.json"
    if not record.is_file():
        return None
    return json.loads(record.read_text(encoding="utf-8"))["metrics"].get("objective")
