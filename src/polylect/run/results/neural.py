"""Neural metrics of runs: their files, the command that scores them, and the table."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polylect.eval.neural import NEURAL, NeuralMetric, Segments
from polylect.eval.table import Table, matrix_table
from polylect.files import write_text
from polylect.run.results.scored_run import (
    ScoredRun,
    comparable_directions,
    names_of,
    pairs_of,
    references_of,
)

COMET_VERSION = "2.2.7"
_VERSION = "version.txt"
_ASK = "from importlib.metadata import version; print(version('unbabel-comet'))"


@dataclass(frozen=True)
class Program:
    """How a metric is called.

    Attributes:
        words: the command without its options.
        version: for the signature.
        missing: what to do where it is not installed; empty where it is.
    """

    words: tuple[str, ...]
    version: str
    missing: str = ""


def program_of(name: str, metricx_python: str | None = None) -> Program:
    """Return how a metric is called here, whether it is installed or not.

    COMET is `comet-score` if that is on the path, else uv runs it in an environment of its own.

    Args:
        name: key of `NEURAL`.
        metricx_python: interpreter that can import metricx24; None where there is none.
    """
    if name == "metricx":
        python = str(Path(metricx_python).absolute()) if metricx_python else "python"
        words = (python, "-m", "metricx24.predict")
        advice = (
            "give metricx_python=FILE, the python of an environment with google-research/metricx"
        )
        return Program(words, "metricx24", "" if metricx_python else advice)
    if script := shutil.which("comet-score"):
        return Program(("comet-score",), _comet_version(Path(script)))
    words = ("uvx", "--from", f"unbabel-comet=={COMET_VERSION}", "comet-score")
    return Program(words, COMET_VERSION, "" if shutil.which("uvx") else "install uv")


def _comet_version(script: Path) -> str:
    """Return the version that is installed beside a script, as its own python says."""
    python = script.with_name("python")
    if not python.is_file():
        return "unknown"
    asked = subprocess.run([python, "-c", _ASK], capture_output=True, text=True, env=_environment())
    return asked.stdout.strip() or "unknown"


def neural_table(
    name: str,
    runs: Sequence[ScoredRun],
    folder: Path,
    *,
    metricx_python: str | None = None,
    packages: Sequence[str] = (),
) -> Table | None:
    """Score runs with a neural metric, direction by direction, and return the table.

    Every direction has a folder of its own, with what the command reads and, in `version.txt`, the
    version of the program that it names. A result that is there already and is of these
    translations is read; else the command is printed, and run where its program is installed.
    None where it is not, which a sentence says.

    Raises:
        RuntimeError: the command failed.
    """
    metric, program = NEURAL[name], program_of(name, metricx_python)
    directions = comparable_directions(runs)
    pairs = pairs_of(runs, directions, packages)
    names = names_of(runs)
    results: dict[str, dict[str, dict[str, dict[str, object]]]] = {run: {} for run in names}
    for direction in directions:
        segments = Segments(
            [pair.source or "" for pair in pairs[direction]],
            [references[0] for references in references_of(pairs[direction])],
            [run.hypotheses(direction) for run in runs],
        )
        scores = _scores(metric, program, folder / name / direction, segments)
        if scores is None:
            continue
        version = (folder / name / direction / _VERSION).read_text(encoding="utf-8").strip()
        for run, of_run in zip(names, scores, strict=True):
            value = metric.scale * sum(of_run) / len(of_run)
            signature = metric.signature(version)
            results[run][direction] = {metric.title: {"value": value, "signature": signature}}
    if not all(results.values()):
        print(f"{metric.title} is not installed: {program.missing}, or run the command elsewhere.")
        return None
    return matrix_table(results, metric.title, title="run", mean=True, digits=metric.digits)


def _scores(
    metric: NeuralMetric, program: Program, folder: Path, segments: Segments
) -> list[list[float]] | None:
    """Return the scores of every system's lines; None where the program is not installed."""
    known = (folder / metric.result).is_file() and (folder / _VERSION).is_file()
    if known and (scores := metric.read(folder, segments)):
        return scores
    folder.mkdir(parents=True, exist_ok=True)
    metric.write(folder, segments)
    write_text(folder / _VERSION, f"{program.version}\n")
    command = [*program.words, *metric.arguments(len(segments.outputs))]
    print(f"cd {shlex.quote(str(folder))} && {shlex.join(command)}", flush=True)
    if program.missing:
        return None
    done = subprocess.run(
        command, cwd=folder, env=_environment(), stderr=subprocess.PIPE, text=True
    )
    if done.returncode != 0:
        last_line = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"{metric.title} failed in {folder}: {last_line}")
    if not (folder / metric.result).is_file() or not (scores := metric.read(folder, segments)):
        raise RuntimeError(f"{metric.title} left no scores of these lines in {folder}.")
    return scores


def _environment() -> dict[str, str]:
    """Return the environment without what would lead another python to our packages."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in ours}
