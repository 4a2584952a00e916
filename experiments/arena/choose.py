"""The trial of each system of the arena that has the lowest loss on development text.

    python experiments/arena/choose.py RECIPE_FOLDER…

Takes the folders of `polylect recipe recipe=arena`, one for each seed, and prints a line for each
seed and system, with tabs between: seed, system, folder of the base, and the folders of the runs of
the chosen trial (of `alone` one for each direction). A trial's loss is the mean over the seeds, and
of `alone` over the directions; the same trial is chosen for all seeds. Every system has as many
trials; nothing here reads a test set.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

Runs = dict[str, dict[str, list[Path]]]
"""By system and trial the runs of one seed: one, or one for each direction."""


def main() -> None:
    if not (folders := [Path(argument) for argument in sys.argv[1:]]):
        raise SystemExit("give the folders of the recipe: choose.py runs/arena_seed1/TIME …")
    records = [_read(folder) for folder in folders]
    runs = [_runs(record["metrics"]["stages"]) for record in records]
    chosen = choose(runs)
    for record, own in zip(records, runs, strict=True):
        for system, trial in chosen.items():
            base = Path(record["metrics"]["stages"]["joint"]) / "model"
            print(record["config"]["seed"], system, base, *own[system][trial], sep="\t")


def choose(runs: list[Runs]) -> dict[str, str]:
    """Return by system the trial with the lowest mean loss, in nats per target token.

    Raises SystemExit where a trial is missing, for then the systems would not have as many.
    """
    chosen = {}
    trials = {trial for of_seed in runs for system in of_seed.values() for trial in system}
    for system in runs[0]:
        losses: dict[str, float] = {}
        for trial in sorted(trials):
            own = [run for of_seed in runs for run in of_seed[system].get(trial, [])]
            if not own:
                raise SystemExit(
                    f"{system} has no {trial}, which others have: their number differs."
                )
            losses[trial] = sum(map(_loss, own)) / len(own)
        chosen[system] = min(losses, key=lambda trial: losses[trial])
        shown = ", ".join(f"{trial} {loss:.4f}" for trial, loss in losses.items())
        print(f"{system}: {shown} nats per target token", file=sys.stderr)
    return chosen


def _runs(stages: dict[str, str]) -> Runs:
    """Return the trials among the stages; those of alone_de, alone_fr … are of one system."""
    runs: Runs = {}
    for stage, folder in stages.items():
        if found := re.fullmatch(r"(\w+)_(trial\d)", stage):
            system = "alone" if found[1].startswith("alone_") else found[1]
            runs.setdefault(system, {}).setdefault(found[2], []).append(Path(folder))
    return runs


def _loss(run: Path) -> float:
    objective = _read(run)["metrics"].get("objective")
    if objective is None:
        raise SystemExit(f"{run} did not end well: it has no loss on development text.")
    return -objective


def _read(folder: Path) -> dict[str, Any]:
    record = folder / "record.json"
    if not record.is_file():
        raise SystemExit(f"{folder} has no record.json: let the recipe end first.")
    return json.loads(record.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
