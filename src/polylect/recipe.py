"""`polylect recipe`: methods of several stages, one run after the other; a stage is a run."""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polylect.config import ConfigError, plain
from polylect.hints import nearest
from polylect.record import Record, new_folder
from polylect.sweep import RUN_FOLDER, finished

LEDGER = "ledger.jsonl"
PROGRAMS = ("pretrain", "detect", "train", "evaluate", "answer")


def main(cfg: DictConfig) -> None:
    """Run the stages that are not done yet, each in a process of its own."""
    stages = _checked(cfg)
    folder = _folder(cfg)
    begin = time.monotonic()
    record = Record(run=str(folder), config=plain(cfg))
    with record.kept(folder, begin):
        _run(stages, cfg, folder, record)
    print(f"recipe folder: {folder}", flush=True)


def _checked(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """The stages by name, in their order."""
    stages = plain(cfg.stages)
    if not stages:
        raise ConfigError("stages is empty: a recipe needs at least one stage.")
    for name, stage in stages.items():
        if unknown := set(stage) - {"program", "overrides"}:
            raise ConfigError(f"stages.{name}.{min(unknown)}: a stage has a program and overrides.")
        if stage.get("program") not in PROGRAMS:
            hint = nearest(str(stage.get("program")), PROGRAMS)
            raise ConfigError(
                f"stages.{name}.program={stage.get('program')} does not exist; {hint}"
            )
    for name in cfg.extra:
        if name not in stages:
            raise ConfigError(f"extra.{name}: no stage has this name; {nearest(name, stages)}")
    return stages


def _folder(cfg: DictConfig) -> Path:
    if cfg.resume is None:
        chosen = os.environ.pop(RUN_FOLDER, None)  # of a sweep's job; not that of the stages
        if chosen is None:
            return new_folder(Path(cfg.runs) / cfg.name)
        Path(chosen).mkdir(parents=True)
        return Path(chosen)
    folder = Path(cfg.resume)
    if not (folder / "record.json").is_file():
        raise ConfigError(f"resume={folder} is no folder of a recipe: it has no record.json.")
    return folder


def _run(
    stages: Mapping[str, dict[str, Any]], cfg: DictConfig, folder: Path, record: Record
) -> None:
    done = _done(folder)
    record.metrics["stages"] = done
    record.write(folder)
    for name, stage in stages.items():
        if name in done:
            print(f"stage {name}: done before, {done[name]}", flush=True)
            continue
        given = [*stage.get("overrides", []), *plain(cfg.common), *plain(cfg.extra.get(name, []))]
        given.append(f"seed={cfg.seed}")
        overrides = [_filled(override, done) for override in given]
        done[name] = str(_stage(name, stage["program"], overrides, folder))
    last = Path(done[name]) / "record.json"
    metrics = json.loads(last.read_text(encoding="utf-8"))["metrics"] if last.is_file() else {}
    record.metrics["objective"] = metrics.get("objective")


def _done(folder: Path) -> dict[str, str]:
    """Folders of the stages that ended well, by name."""
    ledger = folder / LEDGER
    if not ledger.is_file():
        return {}
    lines = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    return {line["stage"]: line["folder"] for line in lines if line["exit"] == 0}


def _filled(override: str, folders: Mapping[str, str]) -> str:
    """`{name}` becomes the folder of the stage of that name."""
    for name, folder in folders.items():
        override = override.replace(f"{{{name}}}", folder)
    return override


def _stage(name: str, program: str, overrides: Sequence[str], folder: Path) -> Path:
    """Run one stage; where it was interrupted before, let it go on from there.

    Raises:
        ConfigError: it failed; it has said itself why.
    """
    former = [run for run in sorted(folder.glob(f"{name}*")) if run.is_dir()]
    own = new_folder(folder, name)
    own.rmdir()  # the program makes it
    resume = [f"resume={run}" for run in former[-1:] if _resumable(run)]
    if resume:  # it began from another stage's weights and goes on from its own
        overrides = [o for o in overrides if not o.startswith("init_from=")]
    command = [sys.executable, "-m", "polylect.cli", program, *overrides, *resume]
    if program == "pretrain":
        command.append(f"out={own}")
    print(f"stage {name}: polylect {program} {' '.join([*overrides, *resume])}", flush=True)
    begin = time.monotonic()
    code = finished(command, None, os.environ | {RUN_FOLDER: str(own)})
    line = {
        "stage": name,
        "overrides": [*overrides, *resume],
        "exit": code,
        "seconds": round(time.monotonic() - begin, 1),
        "folder": str(own),
    }
    with (folder / LEDGER).open("a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(line, ensure_ascii=False) + "\n")
    if code:
        raise ConfigError(
            f"stage {name} failed with exit code {code}; when that is mended, go on with "
            f"polylect recipe resume={folder} and the settings you gave."
        )
    return own


def _resumable(run: Path) -> bool:
    return (run / "checkpoints" / "last.ckpt").is_file() or (run / "partial.pt").is_file()
