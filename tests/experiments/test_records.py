"""Committed records are laid out in one way, and all of them are as `publish` would write them."""

import json
from pathlib import Path
from typing import Any

import publish
import pytest
import records
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = sorted((ROOT / "experiments").rglob("results/**/*.json"))

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(values, st.integers(0, 60))
def test_a_layout_is_json_of_the_same_value(value: Any, width: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "WIDTH", width)
        assert json.loads(records.layout(value)) == value


def test_what_fits_is_one_line_and_plain_values_always_are() -> None:
    record = {
        "command": ["a" * 150, "b" * 150],
        "layers": {f"layer {i}": {"source": {"tokens": i}} for i in range(20)},
        "empty": {},
    }
    command = json.dumps(record["command"])
    lines = records.layout(record).splitlines()
    assert lines[:3] == ["{", f' "command": {command},', ' "layers": {']
    assert lines[3] == '  "layer 0": {"source": {"tokens": 0}},'
    assert lines[-2:] == [' "empty": {}', "}"]
    assert len(lines) == 3 + 20 + 1 + 2


def test_a_line_of_more_than_plain_values_is_no_longer_than_the_width() -> None:
    record = {"k" * key: {"inner": {"x": "v" * 150}, "n": 1} for key in range(1, 60)}
    long = [line for line in records.layout(record).splitlines() if len(line) > records.WIDTH]
    assert long == []


def test_a_record_is_written_whole_and_read_back(tmp_path: Path) -> None:
    record = {"name": "தமிழ்", "values": [1, 2.5, None, True]}
    records.write(tmp_path / "results" / "run.json", record)
    assert records.read(tmp_path / "results" / "run.json") == record


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"scratch": True}, "from a changed working tree"),
        ({"status": "failed"}, "failed"),
        ({"status": "interrupted", "scratch": True}, "interrupted"),
    ],
)
def test_only_runs_that_ended_well_from_a_commit_count(
    changes: dict[str, Any], reason: str | None
) -> None:
    assert records.proves_nothing({"status": "done", "scratch": False} | changes) == reason


def test_a_benchmark_has_no_status_and_counts() -> None:
    assert records.proves_nothing({"scratch": False, "rows": []}) is None


def test_committed_records_are_as_publish_writes_them() -> None:
    assert len(COMMITTED) > 100
    for path in COMMITTED:
        record = records.read(path)
        assert "published" in record, f"{path}: make it with experiments/tools/publish.py"
        text = records.layout(publish.condensed_record(record)) + "\n"
        assert path.read_text(encoding="utf-8") == text, f"{path} was edited"


def test_committed_records_have_what_a_number_needs_to_be_believed() -> None:
    for path in COMMITTED:
        record = records.read(path)
        assert record["command"] and record["environment"]["commit"], path
        assert record["environment"]["packages"]["torch"], path
        for scores in record.get("metrics", {}).get("test", {}).values():
            metrics = [value for value in scores.values() if isinstance(value, dict)]
            assert all("signature" in metric for metric in metrics if "value" in metric), path
