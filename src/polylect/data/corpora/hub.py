"""Reader of Hugging Face `datasets`: a name on the hub, a saved folder, or a Parquet file."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from polylect.data.corpora.records import Fields
from polylect.data.corpora.rows import Row
from polylect.files import file_digest

_IDS = ("id", "idx")
"""Columns by which two configurations for one language each are compared."""


@dataclass(frozen=True)
class Hub:
    """A dataset, and how it is read.

    Attributes:
        path: a Path for local data and a str for a name on the hub. Local data are saved folders,
            folders as they are on the hub, and Parquet files; text files have readers of ours.
        split: of the dataset.
        revision: a commit, branch or tag on the hub.
        streaming: read over the network as it is needed, and not stored first.
    """

    path: Path | str
    split: str
    revision: str | None = None
    streaming: bool = False

    def rows(self, configurations: Sequence[str | None], fields: Fields) -> Iterator[Row]:
        """Yield rows; the first of the configurations that the dataset has is taken (None: its
        default). Examples are counted from 1; the data stays memory-mapped, or is streamed.

        Raises:
            ValueError: what cannot be loaded, an unknown split, a missing field, one without text.
        """
        records = _first_that_loads(self._load, configurations, self._what)
        return self._rows(records, fields)

    def joined_rows(self, configurations: Mapping[str, str], fields: Fields) -> Iterator[Row]:
        """Yield rows from one configuration for each side; example i of all is one sentence.

        Fields are those of a record {"source": …, "target": …} of examples. Raises ValueError as
        `rows` does, and where the examples are unequally many or their ids differ.
        """
        sides = {
            side: _first_that_loads(self._load, [name], self._what)
            for side, name in configurations.items()
        }
        return self._rows(self._join(sides, configurations), fields)

    def table_rows(self, files: Mapping[str, Sequence[str]], fields: Fields) -> Iterator[Row]:
        """Yield rows of a tab-separated file without header, here or at an address.

        Args:
            files: by file the languages of its first columns; the first that is there is taken.
        """
        load = partial(self._load_table, files)
        return self._rows(_first_that_loads(load, list(files), self._what), fields)

    def hashes(self, configurations: Sequence[str | None]) -> dict[str, str]:
        """Return what decides the rows of the first of the configurations that is there.

        The SHA-256 of each file by name, or of a name on the hub the commit that it stands for.
        Raises ValueError as `rows` does.
        """
        path = self.path
        if isinstance(path, Path) and (path.is_file() or any(map(Path.is_file, self._marks()))):
            files = [path] if path.is_file() else sorted(path.rglob("*"))
            return {str(file): file_digest(file) for file in files if file.is_file()}
        builder = _first_that_loads(self._builder, configurations, self._what)
        if isinstance(path, str):
            return {path: builder.hash}
        files = builder.config.data_files.get(self.split, [])
        return {file: file_digest(Path(file)) for file in files}

    def table_hashes(self, files: Sequence[str]) -> dict[str, str]:
        """Do `hashes` for what `table_rows` reads; what an address has is known by what it says."""
        import datasets

        for file in (Path(file) for file in files if Path(file).is_file()):
            return {str(file): file_digest(file)}

        def origin(file: str) -> dict[str, str]:
            builder = datasets.load_dataset_builder("csv", data_files=file)
            return {file: str(builder.config.data_files["train"].origin_metadata)}

        return _first_that_loads(origin, files, self._what)

    def _marks(self) -> list[Path]:
        """Return the files of which a folder that `datasets` has saved holds one."""
        return [Path(self.path, name) for name in ("state.json", "dataset_dict.json")]

    def _builder(self, name: str | None) -> Any:
        import datasets

        at = {} if self.revision is None else {"revision": self.revision}
        return datasets.load_dataset_builder(str(self.path), name, **at)

    @property
    def _what(self) -> str:
        return f"split {self.split!r} of dataset {str(self.path)!r}"

    def _rows(self, records: Any, fields: Fields) -> Iterator[Row]:
        for number, record in enumerate(records, 1):
            yield fields.row(record, number, f"{self.path}[{self.split}]:{number}")

    def _join(self, sides: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        for number, examples in enumerate(zip_longest(*sides.values()), 1):
            where = f"{self.path}[{self.split}]:{number}"
            if None in examples:
                short = [
                    name for name, e in zip(names.values(), examples, strict=True) if e is None
                ]
                raise ValueError(f"{where}: {short[0]} has no such example, and the others have")
            for key in _IDS:
                ids = [example[key] for example in examples if key in example]
                if len(set(ids)) > 1:
                    beside = " beside ".join(map(str, ids))
                    raise ValueError(
                        f"{where}: {key} {beside}: {' and '.join(names.values())} are not the same "
                        "sentences in one order"
                    )
            yield dict(zip(sides, examples, strict=True))

    def _load(self, name: str | None) -> Any:
        import datasets

        path = self.path
        if path == "pandas":  # no data set but the reader of pickles that older `datasets` have
            raise ValueError("it names a reader of pickles, which can hold code")
        if isinstance(path, Path):
            if not path.exists():
                raise FileNotFoundError(f"{path} does not exist")
            single, several = self._marks()
            if single.is_file():
                return datasets.load_from_disk(path)
            if several.is_file():
                return datasets.load_from_disk(path)[self.split]
            if path.is_file():
                return datasets.load_dataset("parquet", data_files=str(path), split="train")
        at = {} if self.revision is None else {"revision": self.revision}
        options = {"split": self.split, **at, **({"streaming": True} if self.streaming else {})}
        if self._builder(name).name == "csv":
            table = datasets.load_dataset(str(path), name, **options)
            options |= _as_text(table.column_names or list(next(iter(table))))
        return datasets.load_dataset(str(path), name, **options)

    def _load_table(self, files: Mapping[str, Sequence[str]], file: str) -> Any:
        import datasets

        languages = list(files[file])
        return datasets.load_dataset(
            "csv",
            data_files=file,
            split="train",
            streaming=self.streaming,
            delimiter="\t",
            quoting=csv.QUOTE_NONE,
            column_names=languages,
            usecols=list(range(len(languages))),
            **_as_text(languages),
        )


def _first_that_loads(
    load: Callable[[Any], Any], configurations: Sequence[str | None], what: str
) -> Any:
    reason = ""
    for name in configurations:
        try:
            return load(name)
        # What `datasets` raises depends on the file format and on the hub client.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    tried = " or ".join(repr(name) for name in configurations if name)
    which = f" ({tried})" if tried else ""
    raise ValueError(f"cannot load {what}{which}: {reason}")


def _as_text(columns: Sequence[str]) -> dict[str, Any]:
    """Return what reads a CSV dataset as text: alone "NA" is dropped and "007" made a number."""
    import datasets

    texts = datasets.Features({column: datasets.Value("string") for column in columns})
    return {"na_filter": False, "features": texts}
