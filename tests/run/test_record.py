"""Records and folders: nothing is overwritten, nothing is half-written."""

import subprocess
from pathlib import Path

import pytest

from polylect.files import write_text
from polylect.run import record as recording
from polylect.run.record import Record, new_folder


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


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is no record of a run"),
        ('{"run": "x"}', "is no record of a run: .*config"),
        ('{"run": "x", "config": {}, "later": 1}', "has later, which the records of this version"),
        ("", "is empty and not the record of a run"),
    ],
)
def test_what_is_no_record_is_named(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=rf"record\.json {sentence}"):
        Record.read(tmp_path)


def test_records_beside_the_code_do_not_make_a_tree_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "src" / "polylect" / "run" / "record.py"
    module.parent.mkdir(parents=True)
    module.touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr(recording, "__file__", str(module))
    results = tmp_path / "experiments" / "demo" / "results" / "tongues"
    results.mkdir(parents=True)
    (results / "run.json").touch()
    translations = tmp_path / "experiments" / "demo" / "outputs" / "run"
    translations.mkdir(parents=True)
    (translations / "en-de.txt").touch()
    assert not recording.environment()["dirty"]
    (tmp_path / "src" / "new.py").touch()
    assert recording.environment()["dirty"]
