"""Records and folders: nothing is overwritten, nothing is half-written."""

from pathlib import Path

import pytest

from polylect.record import Record, new_folder, write_text


def test_a_taken_folder_is_numbered(tmp_path: Path) -> None:
    made = [new_folder(tmp_path, "run") for _ in range(3)]
    assert [m.name for m in made] == ["run", "run_2", "run_3"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800\n")
    assert path.read_text() == "old\n"


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = Record(run="x", config={"seed": 1}, metrics={"objective": 1.5}, status="done")
    record.write(tmp_path)
    assert Record.read(tmp_path) == record


def test_a_run_from_a_changed_tree_is_scratch() -> None:
    clean = {"commit": "abc", "dirty": False}
    assert not Record(run="x", config={}, environment=clean).scratch
    assert Record(run="x", config={}, environment=clean | {"dirty": True}).scratch
    assert Record(run="x", config={}, environment={"commit": None}).scratch


def test_a_folder_without_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"record\.json does not exist"):
        Record.read(tmp_path)
