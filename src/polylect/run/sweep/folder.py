"""The folder of a sweep: found again by a rerun, and what came of its jobs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from polylect.config.roots import ConfigError
from polylect.files import folders_meant
from polylect.run.record import new_folder
from polylect.run.sweep.follow import Follower
from polylect.run.sweep.job import last_lines
from polylect.run.sweep.ledger import LEDGER, Attempt, read_attempts, read_jobs, unfinished

FILE = "sweep.json"


class SweepFolder(Callback):
    """Gives Hydra the folder of a sweep, which launchers pass on to their jobs.

    It is `runs/sweeps/NAME/TIME`: the newest of the same command, or else a new one; or what
    `hydra.sweep.dir` names. Hydra calls this in the process of the command.
    """

    opened: ClassVar[list[tuple[Path, int]]] = []  # by this process, with the ledger's lines so far
    followers: ClassVar[list[Follower]] = []

    def on_multirun_start(self, config: DictConfig, config_name: str, **_: Any) -> None:
        """Set `hydra.sweep.dir`, also among the overrides from which jobs are composed."""
        hydra = config.hydra
        given = None if hydra.sweep.dir == "." else Path(hydra.sweep.dir)
        settings = _settings(config_name, hydra)
        parent = Path(config.get("runs") or "runs") / "sweeps" / (config.get("name") or config_name)
        folder = given or _of_same(settings, parent) or new_folder(parent)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps(settings, ensure_ascii=False, indent=1))
        escaped = str(folder).replace("\\", "\\\\").replace("'", "\\'")
        with read_write(config), open_dict(config):
            hydra.sweep.dir = str(folder)
            hydra.overrides.hydra.append(f"hydra.sweep.dir='{escaped}'")
        self.opened.append((folder, len(read_attempts(folder))))
        if "submitit" in hydra.launcher._target_:  # whose jobs speak to files of their own
            self.followers.append(Follower(folder))


def _settings(program: str, hydra: Any) -> dict[str, Any]:
    """Return what makes two sweeps the same: not how or where their jobs are launched."""
    return {
        "program": program,
        "overrides": OmegaConf.to_container(hydra.overrides.task, resolve=False),
        "params": OmegaConf.to_container(hydra.sweeper.params, resolve=False)
        if hydra.sweeper.get("params")
        else {},
    }


def _of_same(settings: dict[str, Any], parent: Path) -> Path | None:
    for file in sorted(parent.glob(f"*/{FILE}"), reverse=True):
        if json.loads(file.read_text(encoding="utf-8")) == settings:
            return file.parent
    return None


def close_sweeps() -> int:
    """Show what came of the sweeps that this process has run; return 1 if a job is not done."""
    code = 0
    while SweepFolder.followers:
        SweepFolder.followers.pop().close()
    while SweepFolder.opened:
        folder, lines = SweepFolder.opened.pop()
        own = {attempt.identity for attempt in read_attempts(folder)[lines:]}
        jobs = [job for job in read_jobs(folder) if job.identity in own]
        if failed := unfinished(jobs):
            code = 1
            print(f"\n{len(failed)} of {len(jobs)} jobs are not done; the same command goes on:")
            print("\n".join(_with_last_lines(job) for job in failed))
        print(f"sweep folder: {folder}", flush=True)
    return code


def _with_last_lines(job: Attempt) -> str:
    lines = "".join(f"\n      {line}" for line in last_lines(job))
    return f"{_line(job)}\n      {job.log}:{lines}"


def show_status(arguments: Sequence[str]) -> int:
    """Print how far the jobs of a sweep have come: `polylect sweep status FOLDER`.

    Raises:
        ConfigError: other arguments, or no folder of a sweep.
    """
    if len(arguments) != 2 or arguments[0] != "status":
        raise ConfigError("write polylect sweep status FOLDER, as in runs/sweeps/NAME/TIME.")
    folder = Path(arguments[1])
    if not (folder / LEDGER).is_file():
        raise ConfigError(
            f"{folder} is no folder of a sweep that has begun, with {LEDGER}"
            + folders_meant(folder, LEDGER)
        )
    jobs = read_jobs(folder)
    print("\n".join(map(_line, jobs)))
    counts = [f"{sum(j.status == s for j in jobs)} {s}" for s in sorted({j.status for j in jobs})]
    print(f"{len(jobs)} jobs: {', '.join(counts)}")
    return 0


def _line(job: Attempt) -> str:
    objective = "" if job.objective is None else f"{job.objective:.2f}"
    where = f"{' '.join(job.overrides)}  {job.folder}"
    return f"{job.job:4d}  {job.status:11}  {objective:>8}  {where}"
