"""`polylect recipe`: methods of several stages, one run after the other; a stage is a run."""

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from polylect.config.folders import search_path_of_job
from polylect.config.overrides import resolve_overrides
from polylect.config.roots import ConfigError, conf_folder, plain
from polylect.config.validation import validate
from polylect.did_you_mean import did_you_mean
from polylect.run.record import Record, new_folder
from polylect.run.reuse.stages import (
    LEDGER,
    Stage,
    done_before,
    finished_stages,
    ledger_lines,
    note_done,
    one_at_a_time,
    stage_identity,
)
from polylect.run.sweep.process import RUN_FOLDER, has_diverged, is_resumable, run_subprocess

PROGRAMS = ("pretrain", "detect", "train", "evaluate", "answer")
_OF_CORPORA = ("lang", "src", "tgt", "pair", "direction")  # placeholders that a stage fills itself


def main(cfg: DictConfig) -> None:
    """Run the stages that are not done yet, each in a process of its own; or tell what they are."""
    stages = stages_of(cfg)
    validate(cfg)
    _check(stages)
    if cfg.dry_run:
        from polylect.eval.table import show
        from polylect.run.reuse.forecast import forecast_table

        show(forecast_table(stages, Path(cfg.like) if cfg.like else None))
        return
    folder = _folder(cfg)
    begin = time.monotonic()
    record = Record(run=str(folder), config=plain(cfg))
    with record.saved_to(folder, begin):
        _run(stages, folder, record, cfg)
    print(f"recipe folder: {folder}", flush=True)


def stages_of(cfg: DictConfig) -> dict[str, Stage]:
    """Return the stages by name, in their order, with everything that they are given.

    Raises:
        ConfigError: a stage, a program or a name of `shared` that does not exist.
    """
    _check_shared(cfg)
    stages = _each_trial(plain(cfg.stages))
    if not stages:
        raise ConfigError("stages is empty: a recipe needs at least one stage.")
    for name in cfg.extra:
        if name not in stages:
            raise ConfigError(f"extra.{name}: no stage has this name; {did_you_mean(name, stages)}")
    return {name: _stage_of(name, stage, cfg) for name, stage in stages.items()}


def _each_trial(stages: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stages with NAME_TRIAL for each trial of a stage that has some."""
    single: dict[str, Any] = {}
    for name, stage in stages.items():
        if not isinstance(stage, Mapping) or "trials" not in stage:
            single[name] = stage
            continue
        common, trials = dict(stage), stage["trials"]
        del common["trials"]
        if not isinstance(trials, Mapping) or not trials:
            raise ConfigError(f"stages.{name}.trials={trials}: give the overrides of each by name.")
        for trial, own in trials.items():
            overrides = [common.get("overrides", []), own]
            single[f"{name}_{trial}"] = common | {"overrides": overrides}
    return single


def _stage_of(name: str, stage: Any, cfg: DictConfig) -> Stage:
    if not isinstance(stage, Mapping):
        raise ConfigError(f"stages.{name}={stage}: a stage has a program, overrides and trials.")
    if unknown := set(stage) - {"program", "overrides"}:
        raise ConfigError(
            f"stages.{name}.{min(unknown)}: a stage has a program, overrides and trials."
        )
    program = stage.get("program")
    if program not in PROGRAMS:
        hint = did_you_mean(str(program), PROGRAMS)
        raise ConfigError(f"stages.{name}.program={program} does not exist; {hint}")
    override_lists = [stage.get("overrides", []), plain(cfg.common), plain(cfg.extra.get(name, []))]
    overrides = list(_flat(override_lists, name))
    if not any(override.startswith("seed=") for override in overrides):
        overrides.append(f"seed={cfg.seed}")
    return Stage(program, overrides)


def _flat(overrides: Any, name: str) -> Iterator[str]:
    """Yield the overrides of a list in which `${shared.NAME}` may stand for a list of its own."""
    if isinstance(overrides, str):
        yield overrides
    elif isinstance(overrides, list):
        for override in overrides:
            yield from _flat(override, name)
    else:
        raise ConfigError(f"stages.{name}: {overrides!r} is not a setting: write key=value.")


def _check_shared(cfg: DictConfig) -> None:
    """Refuse `${shared.NAME}` of a name that `shared` does not have."""
    names = [str(name) for name in cfg.shared]
    for place in ("shared", "stages", "common", "extra"):
        text = json.dumps(OmegaConf.to_container(cfg[place], resolve=False))
        for name in re.findall(r"\$\{shared\.(\w+)\}", text):
            if name not in names:
                hint = did_you_mean(name, names) if names else "shared is empty."
                raise ConfigError(f"{place}: ${{shared.{name}}} does not exist; {hint}")


def _check(stages: Mapping[str, Stage]) -> None:
    """Find mistakes in the overrides of every stage before the first one runs.

    Raises:
        ConfigError: the message names the stage.
    """
    earlier: dict[str, str] = {}
    for name, stage in stages.items():
        try:
            for override in stage.overrides:
                _check_placeholders(override, name, earlier, stages)
            overrides = [_fill_in(override, earlier) for override in stage.overrides]
            resolved = resolve_overrides(
                stage.program, [*search_path_of_job(), *overrides], conf_folder()
            )
            for override in OverridesParser.create().parse_overrides(resolved):
                if override.is_sweep_override():
                    raise ConfigError(
                        f"{override.input_line} is a sweep, but a stage is one run; sweep over the "
                        f"recipe instead, as in -m 'extra.{name}=[KEY=1],[KEY=2]'."
                    )
        except ConfigError as error:
            raise ConfigError(f"stages.{name}: {error}") from error
        earlier[name] = name


def _check_placeholders(
    override: str, name: str, earlier: Mapping[str, str], stages: Mapping[str, Stage]
) -> None:
    for word in re.findall(r"(?<!\$)\{(\w+)\}", override):
        if word in earlier or word in _OF_CORPORA:
            continue
        if word in stages:
            raise ConfigError(f"{override}: {{{word}}} has not run before {name}.")
        raise ConfigError(f"{override}: no stage is called {word}; {did_you_mean(word, stages)}")


def _folder(cfg: DictConfig) -> Path:
    if cfg.resume is None:
        job_folder = os.environ.pop(RUN_FOLDER, None)  # of a sweep's job; not that of the stages
        if job_folder is None:
            return new_folder(Path(cfg.runs) / cfg.name)
        Path(job_folder).mkdir(parents=True)
        return Path(job_folder)
    folder = Path(cfg.resume)
    if not (folder / "record.json").is_file():
        raise ConfigError(f"resume={folder} is no folder of a recipe: it has no record.json.")
    return folder


def _run(stages: Mapping[str, Stage], folder: Path, record: Record, cfg: DictConfig) -> None:
    ledger = finished_stages(folder)
    stage_folders = {name: line["folder"] for name, line in ledger.items()}
    record.metrics["stages"] = stage_folders
    record.write(folder)
    identities: dict[str, str] = {}
    for name, stage in stages.items():
        # A stage is what it was made from, wherever that lies.
        made_from = [_fill_in(override, identities) for override in stage.overrides]
        identities[name] = stage_identity(stage.program, made_from)
        overrides = [_fill_in(override, stage_folders) for override in stage.overrides]
        if name in stage_folders:
            _check_same(name, ledger[name]["overrides"], overrides)
            print(f"stage {name}: done before, {stage_folders[name]}", flush=True)
            continue
        _check_not_diverged(name, overrides, folder)
        runs = Path(cfg.runs)
        with one_at_a_time(runs, identities[name]):
            done = done_before(runs, identities[name]) if cfg.reuse else None
            if done is not None:
                print(f"stage {name}: done before with the same inputs, {done}", flush=True)
                _note(folder, name, overrides, 0, 0.0, done)
            else:
                done = _run_stage(name, stage.program, overrides, folder)
                note_done(runs, identities[name], done)
        stage_folders[name] = str(done)
    last = Path(stage_folders[name]) / "record.json"
    metrics = json.loads(last.read_text(encoding="utf-8"))["metrics"] if last.is_file() else {}
    record.metrics["objective"] = metrics.get("objective")


def _check_same(name: str, before: Sequence[str], now: Sequence[str]) -> None:
    """Raises ConfigError where a stage that is kept was done with other settings."""
    old, new = (
        [o for o in overrides if not o.startswith(("resume=", "init_from="))]
        for overrides in (before, now)
    )
    if old != new:
        lost, added = set(old) - set(new), set(new) - set(old)
        raise ConfigError(
            f"stage {name} is done and kept, but it was done with {' '.join(sorted(lost)) or '-'} "
            f"where {' '.join(sorted(added)) or '-'} is given now: give what it was done with, or "
            "begin a new recipe."
        )


def _check_not_diverged(name: str, now: Sequence[str], folder: Path) -> None:
    """Raises ConfigError where the stage diverged before with the settings that are given now."""
    lines = [line for line in ledger_lines(folder) if line["stage"] == name]
    if not lines or not has_diverged(Path(lines[-1]["folder"])):
        return
    before = [o for o in lines[-1]["overrides"] if not o.startswith(("resume=", "init_from="))]
    if before == [o for o in now if not o.startswith("init_from=")]:
        raise ConfigError(
            f"stage {name} has diverged with these settings, and would again: give it others, as "
            f"in 'extra.{name}=[optim.optimizer.lr=…]', and it begins anew."
        )


def _fill_in(override: str, folders: Mapping[str, str]) -> str:
    """Return the override with `{name}` replaced by the folder of the stage of that name."""
    for name, folder in folders.items():
        override = override.replace(f"{{{name}}}", folder)
    return override


def _run_stage(name: str, program: str, overrides: Sequence[str], folder: Path) -> Path:
    """Run one stage; where it was interrupted before, let it go on from there.

    Raises:
        ConfigError: it failed; it has said itself why.
    """
    former = _former_runs(folder, name)
    own = new_folder(folder, name)
    own.rmdir()  # the program makes it
    resume = [f"resume={run}" for run in former[-1:] if is_resumable(program, run)]
    if resume:  # it began from another stage's weights and goes on from its own
        overrides = [o for o in overrides if not o.startswith("init_from=")]
    command = [sys.executable, "-m", "polylect.cli", program, *search_path_of_job()]
    command += [*overrides, *resume]
    if program == "pretrain":
        command.append(f"out={own}")
    print(f"stage {name}: polylect {program} {' '.join([*overrides, *resume])}", flush=True)
    begin = time.monotonic()
    code = run_subprocess(command, None, os.environ | {RUN_FOLDER: str(own)})
    seconds = round(time.monotonic() - begin, 1)
    _note(folder, name, [*overrides, *resume], code, seconds, own)
    if code:
        raise ConfigError(
            f"stage {name} failed with exit code {code}; when that is mended, go on with "
            f"polylect recipe resume={folder} and the settings you gave."
        )
    return own


def _note(
    recipe: Path, stage: str, overrides: Sequence[str], code: int, seconds: float, run: Path
) -> None:
    """Add a stage that has ended to the recipe's ledger."""
    line = {"stage": stage, "overrides": list(overrides), "exit": code, "seconds": seconds}
    with (recipe / LEDGER).open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(line | {"folder": str(run)}, ensure_ascii=False) + "\n")


def _former_runs(folder: Path, name: str) -> list[Path]:
    """Return the folders of a stage as `new_folder` numbers them; "lora" is not "lora_switch"."""
    own = {
        path: re.fullmatch(rf"{re.escape(name)}(?:_(\d+))?", path.name) for path in folder.iterdir()
    }
    numbers = {path: int(match[1] or 1) for path, match in own.items() if match and path.is_dir()}
    return sorted(numbers, key=numbers.__getitem__)
