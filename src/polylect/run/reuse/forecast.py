"""What a recipe would do, and how long that takes by what a slice of it has taken."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polylect.config.folders import search_path_of_job
from polylect.config.overrides import compose_config, resolve_overrides
from polylect.config.roots import ConfigError, conf_folder
from polylect.eval.table import Table
from polylect.run.record import Record
from polylect.run.reuse.stages import Stage, finished_stages


def forecast_table(stages: Mapping[str, Stage], slice_folder: Path | None) -> Table:
    """Return a row for each stage with its training steps and, by the slice, its minutes.

    A stage is to take as long as in the slice, and for each step that it makes beyond those of the
    slice what a step took there: validations are expected to be as many as there.

    Args:
        stages: by name, in their order.
        slice_folder: of the same recipe that has run with fewer steps; None where there is none.

    Raises:
        ConfigError: the folder is no recipe, or one without a stage that this one has.
    """
    measured = {} if slice_folder is None else _measured(stages, slice_folder)
    rows, total = [], 0.0
    for name, stage in stages.items():
        steps = _steps(stage)
        minutes = "-"
        if measured:
            seconds = _seconds(measured[name], steps)
            minutes, total = f"{seconds / 60:.1f}", total + seconds
        rows.append((name, stage.program, "-" if steps is None else str(steps), minutes))
    note = "give like=FOLDER, this recipe with few steps, for the minutes"
    if measured:
        note = f"{len(rows)} stages, {total / 3600:.1f} hours by what {slice_folder} has taken"
    return Table(("stage", "program", "steps", "minutes"), tuple(rows), (note,))


def _measured(stages: Mapping[str, Stage], folder: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of the slice's ledger, which has each of the stages."""
    measured = finished_stages(folder)
    for name in stages:
        if name not in measured:
            raise ConfigError(f"like={folder} has no stage {name} that has ended well.")
    return measured


def _seconds(line: Mapping[str, Any], steps: int | None) -> float:
    """Return the seconds of a stage with so many steps, by the line of the one with fewer."""
    record = Record.read(Path(line["folder"]))
    seconds = line["seconds"] or record.seconds or 0.0  # a stage that was done before took none
    per_step = record.metrics.get("seconds_per_step")
    if steps is None or per_step is None:
        return seconds
    return seconds + (steps - record.metrics["steps"]) * per_step


def _steps(stage: Stage) -> int | None:
    """Return the optimizer steps of a training that says how many it makes."""
    if stage.program != "train":
        return None
    given = [*search_path_of_job(), *stage.overrides]
    resolved = resolve_overrides(stage.program, given, conf_folder())
    steps = compose_config(stage.program, resolved, conf_folder()).trainer.max_steps
    return steps if steps > 0 else None
