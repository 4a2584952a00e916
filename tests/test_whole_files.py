"""Files and folders of ours are whole or not there."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from polylect.files import Unwritable, load_tensors, whole_file, whole_folder, write_json

FULL = """
import resource, signal, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from polylect.files import Unwritable, whole_file, whole_folder, write_text

folder, way = Path(sys.argv[1]), sys.argv[2]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a disk with 1000 bytes left
large = torch.ones(1000)
try:
    if way == "text":
        write_text(folder / "file", "x" * 4000)
    elif way == "folder":
        with whole_folder(folder / "file", replace=True) as new:
            (new / "small").write_text("x")
            save_file({"large": large}, new / "large")
    else:
        with whole_file(folder / "file") as partial, partial.open("wb") as file:
            torch.save(large, file) if way == "torch" else save_file({"large": large}, partial)
except Unwritable as error:
    print(error)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("way", ["text", "torch", "safetensors", "folder"])
def test_a_full_disk_is_a_sentence_and_leaves_what_was_there(way: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if way == "folder":
        path.mkdir()
        (path / "old").write_text("old")
    else:
        path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path, way], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{path} cannot be written (") and done.stdout.count("\n") == 1
    assert "too large" in done.stdout
    assert names(tmp_path) == ["file"]
    assert (path / "old" if way == "folder" else path).read_text() == "old"
    if way == "folder":
        assert names(path) == ["old"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"  # the folder is made
    for text in ("first", "second"):
        with whole_file(path) as partial:
            partial.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
        assert names(path.parent) == ["file"]


def test_an_error_of_the_writer_is_its_own_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": ["ä"]})
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert names(tmp_path) == ["file.json"]
    assert path.read_text(encoding="utf-8") == '{\n "a": [\n  "ä"\n ]\n}\n'


def test_a_folder_takes_the_place_of_another_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "library" / "adapter"
    for text in ("first", "second"):
        with whole_folder(path, replace=text == "second") as new:
            (new / text).write_text(text)
            assert not (path / text).exists()
        assert names(path) == [text]
    with pytest.raises(Unwritable, match=f"^{path} cannot be written"), whole_folder(path) as new:
        (new / "third").write_text("third")
    assert names(path) == ["second"]
    assert names(path.parent) == ["adapter"]


def test_a_place_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for whole in (whole_file, whole_folder):
        path = tmp_path / "file" / "below"
        with pytest.raises(Unwritable, match=f"^{path} cannot be written"), whole(path) as new:
            save_file({"a": torch.ones(1)}, new)


@pytest.mark.parametrize("replaced", [False, True])
def test_safetensors_that_change_between_header_and_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """safetensors reads the header, torch then opens the path again."""
    path, real = tmp_path / "adapter.safetensors", torch.UntypedStorage.from_file
    save_file({"a": torch.zeros(3)}, path)

    def change_first(*args: object, **kwargs: object) -> torch.UntypedStorage:
        path.unlink()
        if replaced:
            save_file({"b": torch.ones(3)}, path)
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.UntypedStorage, "from_file", change_first)
    says = "replaced while it was opened" if replaced else "adapter.safetensors does not exist"
    with pytest.raises(ValueError if replaced else FileNotFoundError, match=says):
        load_tensors(path, "the weights")
