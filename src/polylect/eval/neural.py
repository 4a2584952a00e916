"""Neural metrics, which run in an environment of their own: their files, commands and scores.

Neither COMET nor MetricX installs beside today's transformers, so they are programs to us, with
files that they read and write. Layouts: `comet-score` of unbabel-comet 2.2.7; `metricx24.predict`
of google-research/metricx.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from polylect.files import write_text


@dataclass(frozen=True)
class Segments:
    """What is scored in one direction: sources, one reference each, and every system's outputs."""

    sources: Sequence[str]
    references: Sequence[str]
    outputs: Sequence[Sequence[str]]


class NeuralMetric(ABC):
    """A metric that a command computes; its files lie in a folder in which that is run.

    Attributes:
        title: how a table writes it.
        model: that scores.
        result: file that the command writes.
        scale: by which its scores are multiplied for a table.
        digits: behind the point in a table.
    """

    title: ClassVar[str]
    model: ClassVar[str]
    result: ClassVar[str]
    scale: ClassVar[float] = 1
    digits: ClassVar[int] = 1

    @abstractmethod
    def write(self, folder: Path, segments: Segments) -> None:
        """Write what the command reads."""

    @abstractmethod
    def arguments(self, systems: int) -> list[str]:
        """Return what follows the name of the program."""

    @abstractmethod
    def read(self, folder: Path, segments: Segments) -> list[list[float]] | None:
        """Return the scores of every system's lines; None where the file is of other segments.

        Raises FileNotFoundError without a file, ValueError where it is none of this command.
        """

    def signature(self, version: str) -> str:
        """Return what two values share that compare, written as sacreBLEU does."""
        return f"nrefs:1|model:{self.model}|version:{version}|scale:{self.scale:g}"


class Comet(NeuralMetric):
    """COMET-22 (Rei et al. 2022), times 100 as it is mostly reported."""

    title, model, result, scale = "COMET", "Unbabel/wmt22-comet-da", "comet.json", 100

    def write(self, folder: Path, segments: Segments) -> None:
        """Write `sources.txt`, `references.txt` and `1.txt`, `2.txt` … of the systems."""
        files = {"sources": segments.sources, "references": segments.references}
        files |= {str(i): lines for i, lines in enumerate(segments.outputs, 1)}
        for name, lines in files.items():
            write_text(folder / f"{name}.txt", "".join(f"{_one_line(line)}\n" for line in lines))

    def arguments(self, systems: int) -> list[str]:
        """Return the options of `comet-score`."""
        files = [f"{i}.txt" for i in range(1, systems + 1)]
        named = ["-s", "sources.txt", "-r", "references.txt", "--model", self.model]
        return ["-t", *files, *named, "--quiet", "--only_system", "--to_json", self.result]

    def read(self, folder: Path, segments: Segments) -> list[list[float]] | None:
        """Read the scores that `--to_json` writes: rows of src, mt, ref and COMET by file."""
        values = _load(folder / self.result, lambda text: json.loads(text))
        rows = [
            values[f"{i}.txt"] for i in range(1, len(segments.outputs) + 1) if f"{i}.txt" in values
        ]
        scored = [[(r["src"], r["mt"], r["ref"]) for r in of_system] for of_system in rows]
        if scored != _triples(segments):
            return None
        return [[float(row["COMET"]) for row in of_system] for of_system in rows]


class MetricX(NeuralMetric):
    """MetricX-24 (Juraska et al. 2024): errors from 0 to 25, so less is better."""

    title, model = "MetricX", "google/metricx-24-hybrid-large-v2p6"
    result, digits = "out/metricx.jsonl", 2

    def write(self, folder: Path, segments: Segments) -> None:
        """Write `metricx.jsonl`, the lines of one system after those of the other."""
        rows = [
            json.dumps({"source": s, "hypothesis": h, "reference": r}, ensure_ascii=False)
            for of_system in _triples(segments)
            for s, h, r in of_system
        ]
        write_text(folder / "metricx.jsonl", "".join(f"{row}\n" for row in rows))

    def arguments(self, systems: int) -> list[str]:
        """Return the options of `metricx24.predict`."""
        files = ["--input_file", "metricx.jsonl", "--output_file", self.result]
        lengths = ["--max_input_length", "1536", "--batch_size", "1"]
        models = ["--tokenizer", "google/mt5-large", "--model_name_or_path", self.model]
        return [*models, *lengths, *files]

    def read(self, folder: Path, segments: Segments) -> list[list[float]] | None:
        """Read the `prediction` beside every line that was given."""
        rows = _load(
            folder / self.result, lambda text: [json.loads(line) for line in text.splitlines()]
        )
        scored = [(row["source"], row["hypothesis"], row["reference"]) for row in rows]
        wanted = _triples(segments)
        if scored != [triple for of_system in wanted for triple in of_system]:
            return None
        scores = [float(row["prediction"]) for row in rows]
        count = len(segments.sources)
        return [scores[i * count : (i + 1) * count] for i in range(len(wanted))]


NEURAL: dict[str, NeuralMetric] = {"comet": Comet(), "metricx": MetricX()}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _triples(segments: Segments) -> list[list[tuple[str, str, str]]]:
    """Return source, output and reference of every line of every system, as they are written."""
    sources, references = (
        [_one_line(text) for text in texts] for texts in (segments.sources, segments.references)
    )
    return [
        list(zip(sources, map(_one_line, outputs), references, strict=True))
        for outputs in segments.outputs
    ]


def _load(path: Path, parse: Any) -> Any:
    """Return the values of a result; raises ValueError with its path where they are none."""
    text = path.read_text(encoding="utf-8")
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{path} is no result of a metric: {error}.") from error
