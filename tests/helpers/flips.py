"""Bits of files, flipped and set back."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """Within it one bit of the file is another; the file has the length that it had."""
    content = path.read_bytes()
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    try:
        yield
    finally:
        path.write_bytes(content)


def bit_of(path: Path, tensor: str) -> int:
    """The lowest bit of the first value of a tensor in a safetensors file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    begin, _ = json.loads(content[8 : 8 + length])[tensor]["data_offsets"]
    return 8 * (8 + length + begin)
