"""Runs beside each other: what they scored on the same lines, and whether that is by chance."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from polylect.config.roots import ConfigError
from polylect.did_you_mean import did_you_mean
from polylect.eval.significance import Comparison, Outputs, compare
from polylect.eval.table import Table, comparison_table, matrix_table
from polylect.files import read_json
from polylect.run.build import build_data
from polylect.run.record import Record
from polylect.run.reuse.stored_config import stored_config


@dataclass(frozen=True)
class ScoredRun:
    """What the scoring of one system left in its run folder.

    Attributes:
        path: of the folder.
        scores: by direction, as `scores.json` holds them.
        record: how the run was made.
        split: the part of the data that was translated, "val" or "test".
    """

    path: Path
    scores: Mapping[str, Mapping[str, Any]]
    record: Record
    split: str

    @classmethod
    def read(cls, path: str | Path) -> "ScoredRun":
        """Reads a run folder; raises FileNotFoundError or ValueError where it has no scores."""
        folder = Path(path)
        record = Record.read(folder)
        if not (folder / "scores.json").is_file():
            raise FileNotFoundError(
                f"{folder} has no scores.json: score it with polylect evaluate run={folder}, "
                "which writes a folder of its own."
            )
        scores = read_json(folder / "scores.json", "the scores of a run")
        if not isinstance(scores, dict) or not all(isinstance(s, dict) for s in scores.values()):
            raise ValueError(f"{folder / 'scores.json'} does not hold the scores of a run.")
        return cls(folder, scores, record, record.config.get("split") or "test")

    @property
    def directions(self) -> list[str]:
        """The directions that were translated, in their order."""
        return [direction for direction, row in self.scores.items() if "sentences" in row]

    def hypotheses(self, direction: str) -> list[str]:
        """Return the translations, one for each line.

        Raises ValueError where their number is wrong.
        """
        path = self.path / "outputs" / f"{direction}.txt"
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: the translations of the run are gone.")
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        if len(lines) != self.scores[direction]["sentences"]:
            raise ValueError(
                f"{path} has {len(lines)} lines, and {self.scores[direction]['sentences']} were "
                "scored: the file was changed, score the run again."
            )
        return lines

    def fingerprint(self, direction: str) -> str | None:
        """Return the hash of the set that was translated; None where the record has none."""
        data = self.record.data
        report = data.get("read", data).get(self.split)
        return report[direction].get("sha256") if report and direction in report else None


def names_of(runs: Sequence[ScoredRun]) -> list[str]:
    """Return the end of each path that tells it from the others.

    Raises ValueError for equal paths.
    """
    parts = [run.path.resolve().parts for run in runs]
    if len(set(parts)) < len(parts):
        raise ConfigError("runs names one folder twice: a run is not compared with itself.")
    for length in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(path[-length:]) for path in parts]
        if len(set(ends)) == len(ends):
            break
    return ends


def comparable_directions(runs: Sequence[ScoredRun]) -> list[str]:
    """Return the directions that all runs translated, of the same lines.

    Raises:
        ConfigError: there are none, or the runs translated different sets.
    """
    first = runs[0]
    common = [d for d in first.directions if all(d in run.directions for run in runs)]
    if not common:
        listed = "; ".join(f"{run.path}: {', '.join(run.directions) or 'none'}" for run in runs)
        raise ConfigError(f"the runs have no direction in common ({listed}).")
    for run in runs[1:]:
        for direction in common:
            counts = [r.scores[direction]["sentences"] for r in (first, run)]
            marks = [r.fingerprint(direction) for r in (first, run)]
            if counts[0] != counts[1] or (None not in marks and marks[0] != marks[1]):
                raise ConfigError(
                    f"{first.path} and {run.path} translated different {direction} sets "
                    f"({counts[0]} and {counts[1]} lines): score both on the same data, as with "
                    f"polylect evaluate run={run.path} data=…"
                )
    return common


def references_of(
    runs: Sequence[ScoredRun], directions: Sequence[str], packages: Sequence[str]
) -> dict[str, list[tuple[str, ...]]]:
    """Return the references of each line, read again from the corpora that the first run names.

    Raises:
        ConfigError: the corpora are not what they were when the run was scored.
        FileNotFoundError, ValueError: they cannot be read.
    """
    run = runs[0]
    cfg = stored_config(_with_data(run), run.path / "record.json", ("data",), packages)
    data = build_data(cfg)
    data.setup("test" if run.split == "test" else "validate")
    references = {}
    for direction in directions:
        store = data.pairs(direction, run.split)
        if run.fingerprint(direction) not in (None, store.sha256):
            raise ConfigError(
                f"the {run.split} corpus of {direction} has changed since {run.path} was scored: "
                "score the runs again."
            )
        count = run.scores[direction]["sentences"]
        pairs = [store[i] for i in range(count)]
        references[direction] = [pair.references or (pair.target,) for pair in pairs]
    return references


def _with_data(run: ScoredRun) -> dict[str, Any]:
    """Return the configuration that names the data: the evaluation's, or else its run's."""
    config = run.record.config
    if not config.get("data") and config.get("run"):
        trained = Path(config["run"])
        folder = trained if trained.is_dir() else trained.parent.parent
        return Record.read(folder).config
    return config


def compare_runs(
    runs: Sequence[ScoredRun],
    metric: str,
    test: str,
    samples: int,
    packages: Sequence[str] = (),
) -> list[Comparison]:
    """Tests each run against the first one, in every direction that all of them translated.

    Raises ConfigError, FileNotFoundError or ValueError where that cannot be done.
    """
    names = names_of(runs)
    directions = comparable_directions(runs)
    references = references_of(runs, directions, packages)
    outputs = {
        direction: Outputs(
            runs[0].hypotheses(direction),
            {n: r.hypotheses(direction) for n, r in zip(names[1:], runs[1:], strict=True)},
            references[direction],
        )
        for direction in directions
    }
    return compare(outputs, metric=metric, test=test, samples=samples)


def tables(runs: Sequence[ScoredRun], comparisons: Sequence[Comparison]) -> list[Table]:
    """Return a table of runs by directions for each metric that all scored,
    then one of differences.

    Raises ValueError where signatures differ, which makes scores incomparable.
    """
    names = names_of(runs)
    directions = comparable_directions(runs)
    results = {
        name: {direction: run.scores[direction] for direction in directions}
        for name, run in zip(names, runs, strict=True)
    }
    shared = [
        name
        for name, score in runs[0].scores[directions[0]].items()
        if isinstance(score, Mapping)
        and "signature" in score
        and all(name in row for rows in results.values() for row in rows.values())
    ]
    matrices = [matrix_table(results, metric, title="run", mean=True) for metric in shared]
    baseline = f"baseline: {names[0]}"
    return [*matrices, comparison_table(comparisons, note=baseline)]


def check_metric(runs: Sequence[ScoredRun], metric: str) -> None:
    """Raises ConfigError where a run was not scored with the metric."""
    for run in runs:
        metrics = {n for row in run.scores.values() for n, s in row.items() if _is_score(s)}
        if metric not in metrics:
            raise ConfigError(
                f"metric={metric} is not among the scores of {run.path}; "
                f"{did_you_mean(metric, metrics)}"
            )


def _is_score(value: object) -> bool:
    return isinstance(value, Mapping) and "signature" in value


def as_json(runs: Sequence[ScoredRun], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return all that the tables say, unrounded."""
    pairs = zip(names_of(runs), runs, strict=True)
    return {
        "runs": {name: {"path": str(run.path), "scores": run.scores} for name, run in pairs},
        "comparisons": [asdict(c) | {"difference": c.difference} for c in comparisons],
    }
