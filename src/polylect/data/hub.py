"""Reader of Hugging Face `datasets`: a name on the hub, a saved folder, or a local file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from polylect.data.readers import Row, choose_fields, row_of_record

_FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def read_datasets(
    path: str | Path,
    configurations: Sequence[str | None],
    split: str,
    source: Sequence[str],
    target: Sequence[str],
    references: Sequence[str],
) -> Iterator[Row]:
    """Rows of one split; `path` is a Path for local data and a str for a name on the hub.

    The first of `configurations` that the dataset has is taken (None: its default). Fields are
    given as candidates, as for JSONL. Examples are counted from 1; the data stays memory-mapped.

    Raises:
        ValueError: what cannot be loaded, an unknown split, a missing field, a field without text.
    """
    where = f"{path}[{split}]"
    fields = None
    for number, record in enumerate(_load(path, configurations, split), 1):
        fields = fields or choose_fields(record, (source, target, references), f"{where}:{number}")
        yield row_of_record(record, fields, number, f"{where}:{number}")


def _load(path: str | Path, configurations: Sequence[str | None], split: str) -> Any:
    reason = ""
    for name in configurations:
        try:
            return _load_one(path, name, split)
        # What `datasets` raises depends on the file format and on the hub client.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    tried = " or ".join(repr(name) for name in configurations if name)
    which = f" ({tried})" if tried else ""
    raise ValueError(f"cannot load split {split!r} of dataset {str(path)!r}{which}: {reason}")


def _load_one(path: str | Path, name: str | None, split: str) -> Any:
    import datasets

    if isinstance(path, Path):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if (path / "state.json").is_file():
            return datasets.load_from_disk(path)
        if (path / "dataset_dict.json").is_file():
            return datasets.load_from_disk(path)[split]
        if path.is_file():
            form = _FORMATS.get(path.suffix, "json")
            separator = {"sep": "\t"} if path.suffix == ".tsv" else {}
            return datasets.load_dataset(form, data_files=str(path), split="train", **separator)
    return datasets.load_dataset(str(path), name, split=split)
