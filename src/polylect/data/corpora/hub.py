"""Reader of Hugging Face `datasets`: a name on the hub, a saved folder, or a Parquet file."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from polylect.data.corpora.records import Fields
from polylect.data.corpora.rows import Row


def read_datasets(
    path: str | Path,
    configurations: Sequence[str | None],
    split: str,
    fields: Fields,
) -> Iterator[Row]:
    """Yield rows of one split; `path` is a Path for local data and a str for a name on the hub.

    Local data are saved folders and Parquet files; text files have readers of ours. The first of
    `configurations` that the dataset has is taken (None: its default). Examples are counted from 1;
    the data stays memory-mapped.

    Raises:
        ValueError: what cannot be loaded, an unknown split, a missing field, a field without text.
    """
    what = f"split {split!r} of dataset {str(path)!r}"
    records = _first_that_loads(partial(_load_one, path, split), configurations, what)
    for number, record in enumerate(records, 1):
        yield fields.row(record, number, f"{path}[{split}]:{number}")


def commit_of(path: str, configurations: Sequence[str | None], revision: str | None) -> str:
    """Return the commit that a name on the hub stands for; raises ValueError as `read_datasets`."""
    import datasets

    def commit(name: str | None) -> str:
        return datasets.load_dataset_builder(path, name, revision=revision).hash

    return _first_that_loads(commit, configurations, f"dataset {path!r}")


def _first_that_loads(
    load: Callable[[str | None], Any], configurations: Sequence[str | None], what: str
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


def _load_one(path: str | Path, split: str, name: str | None) -> Any:
    import datasets

    if path == "pandas":  # no data set but the reader of pickles that older `datasets` have
        raise ValueError("it names a reader of pickles, which can hold code")
    if isinstance(path, Path):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if (path / "state.json").is_file():
            return datasets.load_from_disk(path)
        if (path / "dataset_dict.json").is_file():
            return datasets.load_from_disk(path)[split]
        if path.is_file():
            return datasets.load_dataset("parquet", data_files=str(path), split="train")
    if datasets.load_dataset_builder(str(path), name).name == "csv":
        return _csv_as_text(str(path), name, split)
    return datasets.load_dataset(str(path), name, split=split)


def _csv_as_text(path: str, name: str | None, split: str) -> Any:
    """Return a CSV dataset read as text; `datasets` alone drops "NA" and makes "007" a number."""
    import datasets

    columns = datasets.load_dataset(path, name, split=split).column_names
    texts = datasets.Features({column: datasets.Value("string") for column in columns})
    return datasets.load_dataset(path, name, split=split, na_filter=False, features=texts)
