"""The files of an evaluation: ``scores.json`` and the hypotheses as plain text."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polylect.eval.diagnosis import Diagnosis
from polylect.eval.metrics import Score

_SHOWN_LINES = 20


def write_json(
    path: str | Path,
    scores: Mapping[str, Sequence[Score]],
    *,
    diagnoses: Mapping[str, Diagnosis] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes the scores of each direction, the signature beside every value.

    A reader sees the file that was there before or the whole new one, never a part.

        {"about": {...}, "directions": {"en-de": {
            "scores": {"bleu": {"value": 31.2, "signature": "nrefs:1|..."}},
            "diagnosis": {"segments": 1000, "off_target": {"count": 2, "of": 998, "rate": ...,
                          "lines": [17, 340]}, ...}}}}

    ``lines`` are the first line numbers in the hypothesis file, counted from 1. A rate of nothing
    is null.

    Args:
        about: what was evaluated (checkpoint, data, settings), as JSON values.
    """
    directions = {
        direction: {
            "scores": {s.name: {"value": s.value, "signature": s.signature} for s in row},
            "diagnosis": _diagnosis_json((diagnoses or {}).get(direction)),
        }
        for direction, row in scores.items()
    }
    content = {"about": dict(about or {}), "directions": directions}
    text = json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False)
    _write(Path(path), text + "\n")


def read_scores(path: str | Path) -> dict[str, list[Score]]:
    """The scores of each direction from a file that `write_json` wrote.

    Raises:
        ValueError: the file is not such a file.
    """
    try:
        directions = json.loads(Path(path).read_text(encoding="utf-8"))["directions"]
        return {
            direction: [
                Score(name, float(s["value"]), s["signature"]) for name, s in row["scores"].items()
            ]
            for direction, row in directions.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a scores file of polylect: {error}") from error


def write_hypotheses(path: str | Path, hypotheses: Sequence[str]) -> None:
    """Writes one hypothesis per line; line breaks inside a hypothesis become spaces."""
    _write(Path(path), "".join(" ".join(text.splitlines()) + "\n" for text in hypotheses))


def _diagnosis_json(diagnosis: Diagnosis | None) -> dict[str, Any] | None:
    if diagnosis is None:
        return None
    rates = {
        name: {
            "count": rate.count,
            "of": rate.of,
            "rate": _finite(rate.rate),
            "lines": [line + 1 for line in rate.lines[:_SHOWN_LINES]],
        }
        for name, rate in diagnosis.rates().items()
    }
    return {
        "segments": diagnosis.segments,
        **rates,
        "length_ratio": _finite(diagnosis.length_ratio),
        "languages": diagnosis.languages,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
