"""Files that COMET's and MetricX's commands read, and what they write back."""

import json
from pathlib import Path

import pytest

from polylect.eval.neural import NEURAL, Segments

SEGMENTS = Segments(
    ["Good day.", "He\treads."], ["Guten Tag.", "Er liest."], [["Tag.", "Er."], ["Gut.", ""]]
)


def test_comet_reads_a_line_for_each_segment(tmp_path: Path) -> None:
    NEURAL["comet"].write(tmp_path, SEGMENTS)
    assert (tmp_path / "sources.txt").read_text(encoding="utf-8") == "Good day.\nHe reads.\n"
    assert (tmp_path / "2.txt").read_text(encoding="utf-8") == "Gut.\n\n"
    arguments = NEURAL["comet"].arguments(2)
    assert arguments[:3] == ["-t", "1.txt", "2.txt"]
    assert arguments[arguments.index("--to_json") + 1] == "comet.json"


def comet_result(**changes: str) -> dict:
    """As `comet-score --to_json` lays it out."""
    systems = {"1.txt": ["Tag.", "Er."], "2.txt": ["Gut.", ""]}
    sources, references = ["Good day.", "He reads."], ["Guten Tag.", "Er liest."]
    return {
        file: [
            {"src": s, "mt": h, "ref": r, "COMET": 0.5 + 0.1 * i} | changes
            for i, (s, h, r) in enumerate(zip(sources, outputs, references, strict=True))
        ]
        for file, outputs in systems.items()
    }


def test_comets_scores_are_read_if_they_are_of_these_segments(tmp_path: Path) -> None:
    path = tmp_path / "comet.json"
    path.write_text(json.dumps(comet_result()), encoding="utf-8")
    scores = NEURAL["comet"].read(tmp_path, SEGMENTS)
    assert scores == [[0.5, 0.6], [0.5, 0.6]]
    path.write_text(json.dumps(comet_result(ref="another")), encoding="utf-8")
    assert NEURAL["comet"].read(tmp_path, SEGMENTS) is None
    path.write_text("no JSON", encoding="utf-8")
    with pytest.raises(ValueError, match=r"comet.json is no result of a metric"):
        NEURAL["comet"].read(tmp_path, SEGMENTS)


def test_metricx_reads_and_writes_a_json_object_a_line(tmp_path: Path) -> None:
    metric = NEURAL["metricx"]
    metric.write(tmp_path, SEGMENTS)
    lines = (tmp_path / "metricx.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[1] == {"source": "He reads.", "hypothesis": "Er.", "reference": "Er liest."}
    assert len(rows) == 4
    (tmp_path / "out").mkdir()
    answered = [json.dumps(row | {"prediction": i / 2}) for i, row in enumerate(rows)]
    (tmp_path / metric.result).write_text("\n".join(answered) + "\n", encoding="utf-8")
    assert metric.read(tmp_path, SEGMENTS) == [[0.0, 0.5], [1.0, 1.5]]
    (tmp_path / metric.result).write_text(answered[0], encoding="utf-8")
    assert metric.read(tmp_path, SEGMENTS) is None


def test_a_signature_has_model_and_version() -> None:
    signature = NEURAL["comet"].signature("2.2.7")
    assert signature == "nrefs:1|model:Unbabel/wmt22-comet-da|version:2.2.7|scale:100"
