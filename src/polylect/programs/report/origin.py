"""How the runs of a report were made: commands, settings that differ, environment, data."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from polylect.eval.table import Table
from polylect.programs.report.blocks import Block, Code, Grid, Missing, Section, Text
from polylect.programs.report.folders import Run

_LEFT_BY = {"train": ("config.yaml", "passport.json"), "evaluate": ("passport.json",)}
_OF_EACH_RUN = ("name", "runs", "logger", "config", "resume")  # differ without a meaning


def runs_section(runs: Sequence[Run], history: Sequence[Block]) -> Section:
    """Return what the runs are, what they lack, and what sweeps and recipes tell of them."""
    rows = tuple(_overview(run) for run in runs)
    header = ("run", "program", "strategy", "seed", "status", "steps", "begun", "seconds", "commit")
    notes = ("scratch: from a changed working tree or without a commit, so it cannot be repeated",)
    is_noted = any(run.record.scratch for run in runs)
    section = Section("Runs")
    section.blocks.append(Grid("what was run", Table(header, rows, notes if is_noted else ())))
    for run in runs:
        if run.record.status != "done":
            section.blocks.append(Missing(f"{run.name} is not done: it is {run.record.status}."))
        lacks = [n for n in _LEFT_BY.get(run.program, ()) if not (run.path / n).is_file()]
        if lacks:
            section.blocks.append(Missing(f"{run.name} has no {' and no '.join(lacks)}."))
    section.blocks += history
    return section


def _overview(run: Run) -> tuple[str, ...]:
    record, config = run.record, run.record.config
    commit = (record.environment.get("commit") or "none")[:8]
    return (
        run.name,
        run.program,
        _strategy(run),
        str(config.get("seed", "-")),
        record.status,
        str(record.metrics.get("steps", "-")),
        record.started[:16].replace("T", " "),
        "-" if record.seconds is None else f"{record.seconds:,.0f}",
        f"{commit} (scratch)" if record.scratch else commit,
    )


def _strategy(run: Run) -> str:
    """Return the strategy as the command names it, or else its class."""
    chosen = [o.partition("=")[2] for o in run.record.command if o.startswith("strategy=")]
    target = (run.record.config.get("strategy") or {}).get("_target_") or "-"
    return chosen[-1] if chosen else str(target).rpartition(".")[2]


def origin_section(runs: Sequence[Run]) -> Section:
    """Return commands, settings and environments; what runs share is said once."""
    section = Section("Commands and environment")
    commands = [f"# {run.name}: {run.path}\n{shlex.join(run.record.command)}" for run in runs]
    section.blocks.append(Code("commands", "\n\n".join(commands)))
    if len(runs) > 1:
        section.blocks.append(_settings_that_differ(runs))
    section.blocks += _same_for(runs, "environment", lambda run: _facts(run.record.environment))
    section.blocks += _same_for(runs, "data", _data_facts)
    for run in runs:
        stored = OmegaConf.to_yaml(OmegaConf.create(run.record.config))
        section.blocks.append(Code(f"all settings of {run.name}", stored, folded=True))
    return section


def _settings_that_differ(runs: Sequence[Run]) -> Block:
    flat = [_settings(run) for run in runs]
    keys = dict.fromkeys(key for own in flat for key in own)
    missing = object()
    differing = [
        key
        for key in keys
        if len({json.dumps(own.get(key, "missing"), default=str) for own in flat}) > 1
        and key.partition(".")[0] not in _OF_EACH_RUN
    ]
    if not differing:
        return Text("The settings of the runs are the same.")
    rows = tuple(
        (key, *(_shown(own.get(key, missing), missing) for own in flat)) for key in differing
    )
    return Grid("settings that differ", Table(("setting", *(run.name for run in runs)), rows))


def _settings(run: Run) -> dict[str, Any]:
    """Return the settings of a run by key, its own folder as RUN, which says nothing."""
    own = run.record.run
    return {
        key: value.replace(own, "RUN") if isinstance(value, str) and own else value
        for key, value in _leaves(run.record.config)
    }


def _shown(value: Any, missing: object) -> str:
    return "-" if value is missing else "null" if value is None else str(value)


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping) and config:
        for key, value in config.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, config


def _same_for(runs: Sequence[Run], what: str, facts: Any) -> Iterator[Block]:
    """Yield the facts of runs, once for all that share them."""
    names: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        names.setdefault(tuple(facts(run)), []).append(run.name)
    for own, shared_by in names.items():
        of_runs = "all runs" if len(shared_by) == len(runs) else ", ".join(shared_by)
        if own:
            yield Grid(f"{what} of {of_runs}", Table((what, "value"), own))
        else:
            yield Missing(f"The record of {of_runs} has no {what}.")


def _facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    flat = dict(_leaves(environment))
    return [(k.removeprefix("packages."), str(v)) for k, v in flat.items() if v is not None]


def _data_facts(run: Run) -> list[tuple[str, str]]:
    """Return lines and hash of each part of the data that the record tells of."""
    read = run.record.data.get("read", run.record.data)
    facts = []
    for part, directions in read.items():
        for direction, own in directions.items() if isinstance(directions, Mapping) else ():
            if isinstance(own, Mapping) and own.get("sha256"):
                kept = f"{own['kept']:,} lines, " if isinstance(own.get("kept"), int) else ""
                facts.append((f"{part} {direction}", f"{kept}sha256 {str(own['sha256'])[:16]}"))
    return facts
