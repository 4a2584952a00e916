"""Files of keys: what stands beside a key opens nothing."""

from pathlib import Path

import pytest

from polylect.files import read_keys


def test_each_line_is_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_bytes(b"\xef\xbb\xbfone\r\n\r\n# of Bo\n  two \n")
    assert read_keys(str(file)) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"one\nbo two\n", "line 2, has a space in it"),
        (b"\n# nothing\n", "holds no key"),
        (b"\xff\xfe\x00", "is no text"),
    ],
)
def test_a_file_that_may_be_meant_otherwise_is_refused(
    content: bytes, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "keys.txt").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_keys(str(tmp_path / "keys.txt"))
    with pytest.raises(ValueError, match="is no file"):
        read_keys(str(tmp_path))
