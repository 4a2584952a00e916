"""Sentence pairs as one block of UTF-8 bytes and offsets, in memory or mapped from a file."""

import hashlib
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPILL_BYTES = 256 * 1024**2
_LOOK = 1024
"""Pairs after which the size is looked at."""


class Pair(NamedTuple):
    """A sentence pair; no source if monolingual; `references` as in `corpora.rows.Row`."""

    source: str | None
    target: str
    references: tuple[str, ...] = ()


class PairStore:
    """Sentence pairs by number, decoded when asked for: 24 bytes per pair beside the text.

    The strings of pair i are those from `first[i]` to `first[i + 1]`; string j is the bytes from
    `ends[j - 1]` to `ends[j]`.

    Args:
        pairs: streamed; either all have a source or none has.
        spill_bytes: beyond this size the content goes to unnamed temporary files (in `TMPDIR`),
            which are memory-mapped and vanish with the process, whatever ends it.
        spill_folder: where those are, if not in `TMPDIR`.
    """

    def __init__(
        self,
        pairs: Iterable[Pair],
        spill_bytes: int = SPILL_BYTES,
        spill_folder: Path | None = None,
    ) -> None:
        columns = [_Column(typecode, spill_folder) for typecode in "Bqq"]
        self.monolingual = False
        try:
            self._fill(pairs, spill_bytes, *columns)
            self._text, self._ends, self._first = [column.finish() for column in columns]
        finally:
            for column in columns:
                column.close()
        self.spilled = columns[0].file is not None
        hashes = b"".join(column.hash.digest() for column in columns)
        self.sha256: str = hashlib.sha256(bytes([self.monolingual]) + hashes).hexdigest()

    def _fill(
        self,
        pairs: Iterable[Pair],
        spill_bytes: int,
        text: "_Column",
        ends: "_Column",
        first: "_Column",
    ) -> None:
        columns = (text, ends, first)
        end = strings = 0
        for source, target, references in pairs:
            first.values.append(strings)
            self.monolingual = source is None
            for string in ((target,) if source is None else (source, target)) + references:
                raw = string.encode()
                text.values.frombytes(raw)
                end += len(raw)
                ends.values.append(end)
                strings += 1
            if len(first.values) % _LOOK == 0 or len(text.values) > spill_bytes:
                _spill(columns, spill_bytes)
        first.values.append(strings)
        _spill(columns, spill_bytes)

    @property
    def nbytes(self) -> int:
        """Bytes of text and offsets."""
        return self._text.nbytes + self._ends.nbytes + self._first.nbytes

    def __len__(self) -> int:
        return len(self._first) - 1

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no pair {index}: the store has {len(self)}")
        low, high = int(self._first[index]), int(self._first[index + 1])
        ends = self._ends[low:high].tolist()
        start = int(self._ends[low - 1]) if low else 0
        raw = self._text[start : ends[-1]].tobytes()
        starts = [start, *ends[:-1]]
        texts = [raw[a - start : b - start].decode() for a, b in zip(starts, ends, strict=True)]
        source = None if self.monolingual else texts.pop(0)
        return Pair(source, texts[0], tuple(texts[1:]))

    def slice(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the pairs from `start` to `stop` (excluded) as three arrays.

        Those are where the strings of each pair begin, where the bytes of each string begin, both
        with the end after the last, and the bytes.
        """
        bounds = self._first[start : stop + 1]
        low, high = int(bounds[0]), int(bounds[-1])
        begin = int(self._ends[low - 1]) if low else 0
        ends = np.concatenate([[begin], self._ends[low:high]])
        return bounds - low, ends - begin, self._text[begin : int(ends[-1])]


def _spill(columns: Sequence["_Column"], most: int) -> None:
    """Move the columns to their files if they have more than `most` bytes in memory."""
    if sum(column.nbytes for column in columns) > most:
        for column in columns:
            column.spill()


class _Column:
    """An array that grows, in memory or in a file, and the hash of all that was added."""

    def __init__(self, typecode: str, folder: Path | None) -> None:
        self.folder = folder
        self.values = array(typecode)
        self.hash = hashlib.sha256()
        self.file = None

    @property
    def nbytes(self) -> int:
        return len(self.values) * self.values.itemsize

    def spill(self) -> None:
        """Move what is in memory to the end of the file."""
        if self.file is None:
            self.file = tempfile.TemporaryFile(prefix="polylect-", dir=self.folder)  # noqa: SIM115 (see close)
        self.hash.update(self.values)
        self.values.tofile(self.file)
        del self.values[:]

    def finish(self) -> np.ndarray:
        """Return the whole column; an array in memory, or one that maps the file."""
        dtype = np.dtype(self.values.typecode)
        if self.file is None:
            self.hash.update(self.values)
            return np.frombuffer(self.values, dtype)
        self.spill()
        self.file.flush()
        if self.file.tell() == 0:  # an empty file cannot be mapped
            return np.empty(0, dtype)
        return np.asarray(np.memmap(self.file, dtype, mode="r"))

    def close(self) -> None:
        """Close the file; what is mapped stays."""
        if self.file is not None:
            self.file.close()
