"""Runs that were scored: what they left in their folders, and whether they did the same lines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polylect.config.roots import ConfigError
from polylect.eval.metrics import TITLES, score
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

    @property
    def metrics(self) -> list[str]:
        """The metrics with which every direction was scored, in their order."""
        rows = [self.scores[direction] for direction in self.directions]
        return [
            name
            for name, score in (rows[0].items() if rows else ())
            if isinstance(score, Mapping) and all("signature" in (r.get(name) or {}) for r in rows)
        ]

    @property
    def seed(self) -> int | None:
        """The seed that the system was trained with; None where the record has none."""
        return trained_config(self.record.config).get("seed")

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

    Raises ConfigError for equal paths.
    """
    return path_ends([run.path for run in runs])


def path_ends(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends, all of one length, that tell paths apart; raises as `names_of`."""
    parts = [path.resolve().parts for path in paths]
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


def pairs_of(
    runs: Sequence[ScoredRun], directions: Sequence[str], packages: Sequence[str]
) -> dict[str, list[Any]]:
    """Return source and references of each line, read again from the corpora of the first run.

    Raises:
        ConfigError: the corpora are not what they were when the run was scored.
        FileNotFoundError, ValueError: they cannot be read.
    """
    run = runs[0]
    cfg = stored_config(_with_data(run), run.path / "record.json", ("data",), packages)
    data = build_data(cfg)
    data.setup("test" if run.split == "test" else "validate")
    pairs = {}
    for direction in directions:
        store = data.pairs(direction, run.split)
        if run.fingerprint(direction) not in (None, store.sha256):
            raise ConfigError(
                f"the {run.split} corpus of {direction} has changed since {run.path} was scored: "
                "score the runs again."
            )
        pairs[direction] = [store[i] for i in range(run.scores[direction]["sentences"])]
    return pairs


def references_of(pairs: Sequence[Any]) -> list[tuple[str, ...]]:
    """Return the references of each pair: its target where it has no others."""
    return [pair.references or (pair.target,) for pair in pairs]


_SAME = 0.01
"""Two scores of the same translations differ by less, whatever rounds them."""


def check_outputs(
    run: ScoredRun, direction: str, references: Sequence[Sequence[str]], metric: str
) -> None:
    """Check that the translations of a run are those that were scored.

    Raises:
        ValueError: by the same signature they have another score than the run's record of it.
    """
    target = direction.split("-")[-1]
    (now,) = score(run.hypotheses(direction), references, metrics=[metric], target=target)
    then = run.scores[direction][metric]
    if now.signature == then["signature"] and abs(now.value - then["value"]) > _SAME:
        raise ValueError(
            f"{run.path}: the translations in outputs/{direction}.txt have {now.value:.2f} "
            f"{TITLES[metric]}, and scores.json says {then['value']:.2f}: one of the files was "
            "changed, score the run again."
        )


def trained_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of the training, which an evaluation names as its `run`."""
    if not config.get("run"):
        return config
    given = Path(config["run"])
    folder = given if given.is_dir() else given.parent.parent
    if not (folder / "record.json").is_file():
        return config
    return Record.read(folder).config


def _with_data(run: ScoredRun) -> Mapping[str, Any]:
    """Return the configuration that names the data: the evaluation's, or else its run's."""
    config = run.record.config
    return config if config.get("data") else trained_config(config)
