"""Token ids of training pairs in Arrow files: made by all cores once, then mapped into memory.

A cache is a folder of folders, one for each direction and everything that its tokens depend on:
`texts.arrow` (the strings of each pair), `ids*.arrow` (prompt and target of each), and
`manifest.json`. A folder appears whole or not at all, also if several processes want it at once.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from polylect.data.batch import Example
from polylect.data.cache.inputs import cache_inputs, changes, key_of
from polylect.data.corpora.corpus import Corpus
from polylect.data.corpora.read_pairs import read_pairs
from polylect.data.filters import PairFilter
from polylect.data.prompt import Template
from polylect.data.store import Pair, PairStore
from polylect.files import read_json, write_json

log = logging.getLogger(__name__)

MANIFEST, TEXTS = "manifest.json", "texts.arrow"
_BATCH = 2000
"""Pairs that are tokenised by one call."""

_ROWS = 10_000
"""Pairs of one record batch in the files."""

_SPILL_BYTES = 16 * 2**20
"""Of pairs that are held in memory on their way into the files."""

Report = dict[str, Any]


class CachedPairs:
    """Pairs of one direction with their token ids, mapped from the folder of a cache.

    Takes the place of a `PairStore`. Nothing is read but what is asked for.

    Raises:
        ValueError: a file is missing or has not the size that the manifest says, or the manifest
            is damaged.
    """

    def __init__(self, folder: Path) -> None:
        import datasets

        self.manifest = _read_manifest(folder)
        for name, size in self.manifest["bytes"].items():
            file = folder / name
            if not file.is_file() or file.stat().st_size != size:
                raise ValueError(
                    f"{file} is not whole, which the manifest beside it says has {size:,} bytes: "
                    "delete the folder, and it is made again"
                )
        ids = [datasets.Dataset.from_file(str(file)) for file in _id_files(folder)]
        self._ids = datasets.concatenate_datasets(ids)
        self._texts = datasets.Dataset.from_file(str(folder / TEXTS))
        self.sha256: str = self.manifest["report"]["sha256"]
        self._direction: str = self.manifest["inputs"]["direction"]

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no pair {index}: the cache has {len(self)}")
        return self._pair(self._texts[int(index)]["texts"])

    def examples(self, rows: Sequence[int]) -> list[Example]:
        """Return the pairs of these numbers as token ids."""
        if not len(rows):
            return []
        texts, ids = self._texts[rows]["texts"], self._ids[rows]
        examples = []
        for strings, prompt, target in zip(texts, ids["prompt"], ids["target"], strict=True):
            pair = self._pair(strings)
            references = pair.references or (pair.target,)
            examples.append(Example(prompt, target, self._direction, pair.source or "", references))
        return examples

    def _pair(self, strings: list[str]) -> Pair:
        source = strings.pop(0) if "-" in self._direction else None
        return Pair(source, strings[0], tuple(strings[1:]))


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = read_json(path, "the manifest of a cache")
        parts = [manifest[name] for name in ("inputs", "report", "bytes")]
    except (ValueError, KeyError, TypeError) as error:
        parts = [error]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"{path} is damaged: delete its folder, and it is made again")
    return manifest


@dataclass(frozen=True)
class TokenCache:
    """A folder of caches, and what tokens are made with.

    Attributes:
        processes: that tokenise at once.
    """

    folder: Path
    tokenizer: Any
    template: Template
    processes: int

    def pairs(
        self,
        corpora: Sequence[Corpus],
        filters: Mapping[str, Any],
        held_out: Sequence[str],
        keep: PairFilter | None,
    ) -> tuple[CachedPairs, Report]:
        """Return the pairs of a direction with their tokens, and what `read_pairs` tells of them.

        They are read and tokenised only where the folder does not have them; what is unlike the
        most similar cache of the direction is logged.

        Args:
            filters: the settings of `keep`.
            held_out: hashes of the texts that `keep` knows.

        Raises what `read_pairs` raises.
        """
        direction = corpora[0].direction
        inputs = cache_inputs(direction, corpora, filters, held_out, self.tokenizer, self.template)
        folder = self.folder / f"{direction}-{key_of(inputs)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(self.folder / f".{folder.name}.lock"):
            if not (folder / MANIFEST).is_file():
                _tell_changes(self.folder, inputs)
                new = self.folder / f".{folder.name}"
                shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
                try:
                    self._write(new, inputs, corpora, keep)
                    new.rename(folder)
                finally:
                    shutil.rmtree(new, ignore_errors=True)
        pairs = CachedPairs(folder)
        return pairs, pairs.manifest["report"]

    def _write(
        self,
        folder: Path,
        inputs: Mapping[str, Any],
        corpora: Sequence[Corpus],
        keep: PairFilter | None,
    ) -> None:
        folder.mkdir()
        store, report = read_pairs(corpora, keep, spill_bytes=_SPILL_BYTES, spill_folder=folder)
        _write_texts(store, folder / TEXTS)
        del store  # and with it its spilled files
        self._write_ids(folder, inputs["direction"])
        files = [folder / TEXTS, *_id_files(folder)]
        sizes = {file.name: file.stat().st_size for file in files}
        write_json(folder / MANIFEST, {"inputs": inputs, "report": report, "bytes": sizes})

    def _write_ids(self, folder: Path, direction: str) -> None:
        """Tokenise the texts of a folder, each process a part of them into a file of its own."""
        import datasets
        import pyarrow as pa

        ids = pa.list_(pa.int32())
        texts = datasets.Dataset.from_file(str(folder / TEXTS))
        shares = min(self.processes, -(-len(texts) // _BATCH))
        texts.with_format("arrow").map(
            _tokenise,
            fn_kwargs={
                "direction": direction,
                "tokenizer": self.tokenizer,
                "template": self.template,
            },
            batched=True,
            batch_size=_BATCH,
            writer_batch_size=_ROWS,
            remove_columns="texts",
            features=datasets.Features.from_arrow_schema(pa.schema({"prompt": ids, "target": ids})),
            num_proc=shares if shares > 1 else None,
            cache_file_name=str(folder / "ids.arrow"),
            load_from_cache_file=False,
            new_fingerprint=folder.name.rpartition("-")[2],
            desc=f"tokenising {direction}",
        )


def _id_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("ids*.arrow"))


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tell_changes(cache: Path, inputs: Mapping[str, Any]) -> None:
    """Log what is unlike the most similar cache of the direction."""
    differences = []
    for file in cache.glob(f"{inputs['direction']}-*/{MANIFEST}"):
        with suppress(ValueError):  # a damaged one, which is not asked for
            old = _read_manifest(file.parent)["inputs"]
            differences.append((changes(old, inputs), str(file.parent)))
    if differences:
        changed, folder = min(differences, key=lambda entry: len(entry[0]))
        log.warning(
            "%s is tokenised anew: unlike in %s, these have changed: %s",
            *(inputs["direction"], folder, ", ".join(changed)),
        )


def _write_texts(store: PairStore, file: Path) -> None:
    import pyarrow as pa

    schema = pa.schema({"texts": pa.list_(pa.string())})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, len(store), _ROWS):
            bounds, ends, text = store.slice(start, min(start + _ROWS, len(store)))
            strings = pa.StringArray.from_buffers(
                len(ends) - 1, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(text)
            )
            lists = pa.ListArray.from_arrays(bounds.astype(np.int32), strings)
            writer.write_batch(pa.record_batch([lists], schema=schema))


def _tokenise(table: Any, direction: str, tokenizer: Any, template: Template) -> Any:
    """Return prompt and target of each row of an Arrow table of texts, as an Arrow table."""
    import pyarrow as pa

    texts = table["texts"].to_pylist()
    is_pair = "-" in direction
    sources = [strings[0] if is_pair else None for strings in texts]
    targets = [strings[is_pair] for strings in texts]
    encoded = template.encode_pairs(tokenizer, sources, targets, [direction] * len(targets))
    columns = [_list_array(column) for column in zip(*encoded, strict=True)]
    return pa.table(columns, names=["prompt", "target"])


def _list_array(lists: Sequence[list[int]]) -> Any:
    """Return lists of ids as an Arrow array; `pyarrow.array` takes much longer for them."""
    import pyarrow as pa

    bounds = np.cumsum([0, *map(len, lists)], dtype=np.int32)
    ids = np.fromiter(chain.from_iterable(lists), np.int32, bounds[-1])
    return pa.ListArray.from_arrays(bounds, ids)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
