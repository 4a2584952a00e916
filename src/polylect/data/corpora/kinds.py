"""Turns a spec of each kind into rows: fills in names, finds columns and fields, opens files."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from polylect.data.corpora import records, tables
from polylect.data.corpora import rows as readers
from polylect.data.corpora.bitext.tmx import read_tmx
from polylect.data.corpora.bitext.xliff import read_xliff
from polylect.data.corpora.headers import SideNames
from polylect.data.corpora.hub import Hub
from polylect.data.corpora.lines import check_exists
from polylect.data.corpora.path_pattern import PathPattern
from polylect.data.corpora.rows import Row
from polylect.data.languages import split_direction
from polylect.files import file_digest

_LOCAL_DATASETS = {"json", "jsonl", "csv", "tsv", "parquet"}
_OWN = {"csv": "csv", "tsv": "csv", "json": "jsonl", "jsonl": "jsonl"}


@dataclass(frozen=True)
class SpecReader:
    """Reads one checked spec for one direction; see `polylect.data.corpora.corpus`.

    Attributes:
        skip_counts: of the last `read`, how many units were passed over, by reason.
    """

    direction: str
    spec: Mapping[str, Any]
    setting: str
    root: Path | None = None
    skip_counts: Counter[str] = field(default_factory=Counter, compare=False)

    def read(self) -> Iterator[Row | None]:
        """Return all rows; None stands for a header that is no row but counts as one."""
        self.skip_counts.clear()
        return getattr(self, f"_{self.format}")()

    @cached_property
    def path_pattern(self) -> PathPattern:
        """What fills the placeholders in the spec's paths."""
        return PathPattern(self.direction, self.spec.get("codes") or {}, self.root)

    @cached_property
    def codes(self) -> dict[str, str]:
        """Our codes by side."""
        codes = dict(zip(("source", "target"), split_direction(self.direction), strict=True))
        return {side: code for side, code in codes.items() if code is not None}

    @cached_property
    def _names(self) -> SideNames:
        return SideNames(self.codes, self.path_pattern.sides)

    @cached_property
    def files(self) -> dict[str, Path | str]:
        """The file of each side, or the name of a dataset."""
        kind = self.spec["kind"]
        if kind == "aligned":
            sides = self.path_pattern.sides
            return {side: self.path_pattern.path(str(self.pattern(side)), side) for side in sides}
        if kind == "tongues":
            return {"target": "tongues"}
        return {"target": self._dataset() if kind == "hf" else self._path}

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each file that is read, or the commit of a dataset on the hub.

        Raises:
            FileNotFoundError, ValueError: what is read is not there.
        """
        if self.spec["kind"] == "tongues":
            return {}
        if self.format == "hf":
            return {self._below_root(Path(name)): h for name, h in self._hub_hashes().items()}
        references = self.spec.get("references") if self.spec["kind"] == "aligned" else None
        others = [self.path_pattern.path(name) for name in as_list(references)]
        files = [Path(file) for file in (*self.files.values(), *others)]
        for file in files:
            check_exists(file)
        return {self._below_root(file): file_digest(file) for file in files}

    def _hub_hashes(self) -> dict[str, str]:
        if self.spec.get("data_files"):
            return self._hub.table_hashes(list(self._tables()))
        if names := self._joined():
            parts = [self._hub.hashes([name]) for name in names.values()]
            return {name: digest for part in parts for name, digest in part.items()}
        return self._hub.hashes(self._configurations())

    def _below_root(self, file: Path) -> str:
        is_below = self.root is not None and file.is_relative_to(self.root)
        return str(file.relative_to(self.root) if is_below else file)

    @property
    def _path(self) -> Path:
        return self.path_pattern.path(self.spec["path"])

    @cached_property
    def format(self) -> str:
        """The kind, but for the local files of kind hf whose cells `datasets` would not leave be.

        It makes "NA", "null" and empty cells no text, and of columns of digits numbers.
        """
        if self.spec["kind"] != "hf":
            return self.spec["kind"]
        path = self._dataset()
        is_file = isinstance(path, Path) and path.is_file()
        return _OWN.get(file_ending(str(path)), "hf") if is_file else "hf"

    def pattern(self, side: str) -> str | None:
        """Return the file name of one side of aligned files.

        A single file can only be monolingual.
        """
        path = self.spec.get("path")
        usable = path and ("{lang}" in path or len(self.path_pattern.sides) == 1)
        return self.spec.get(side) or (path if usable else None)

    def _aligned(self) -> Iterator[Row]:
        references = [self.path_pattern.path(name) for name in as_list(self.spec.get("references"))]
        files = {side: Path(path) for side, path in self.files.items()}
        return readers.read_aligned(files.get("source"), files["target"], references)

    def _tsv(self) -> Iterator[Row | None]:
        return self._table(self.spec.get("header"))

    def _csv(self) -> Iterator[Row | None]:
        header = self.spec.get("header")
        return self._table(True if header is None else header)

    def _table(self, header: bool | None) -> Iterator[Row | None]:
        defaults = {"source": 0, "target": 1}
        if "source" not in self.codes:
            defaults = {"target": 0}
        elif self.path_pattern.is_reversed(self.spec["path"]):
            defaults = {"source": 1, "target": 0}
        spec_columns = {s: c for s in defaults if (c := self.spec.get(s)) is not None}
        columns = {side: self._column(column, side) for side, column in spec_columns.items()}
        references = [self._column(c, "target") for c in as_list(self.spec.get("references"))]
        return tables.table_rows(
            self._path, self._lines(), columns, defaults, references, header, self._names
        )

    def _lines(self) -> Iterator[tables.Line]:
        """Return the lines of the table, each with its cells."""
        if self.format == "tsv":
            return tables.tsv_lines(self._path)
        default = "\t" if file_ending(self._path.name) == "tsv" else ","
        return tables.csv_lines(self._path, self.spec.get("delimiter", default))

    def _column(self, column: int | str, side: str) -> int | str:
        return self.path_pattern.fill(column, side) if isinstance(column, str) else column

    def _jsonl(self) -> Iterator[Row]:
        return records.read_json(self._path, self._fields)

    @cached_property
    def _fields(self) -> records.Fields:
        source = self._candidates("source", ["source"]) if "source" in self.codes else []
        target = self._candidates("target", ["target"] if source else ["text"])
        references = self.spec.get("references") or "references"
        candidates = {"source": source, "target": target} if source else {"target": target}
        unnamed = [side for side in candidates if not self.spec.get(side)]
        return records.Fields(candidates, references, self._names, unnamed)

    def _candidates(self, side: str, last: list[str]) -> list[str]:
        if self.spec.get(side):
            return [self.path_pattern.fill(self.spec[side], side)]
        code = self.path_pattern.sides[side]
        return [code, f"translation.{code}", *last]

    def _tmx(self) -> Iterator[Row]:
        sides = self.path_pattern.sides
        return read_tmx(self._path, sides.get("source"), sides["target"], self.skip_counts)

    def _xliff(self) -> Iterator[Row]:
        sides = self.path_pattern.sides
        return read_xliff(self._path, sides.get("source"), sides["target"], self.skip_counts)

    def _configurations(self) -> list[str | None]:
        name = self.spec.get("name")
        pairs = self.path_pattern.pairs if name and "{pair}" in name else [None]
        return [name and self.path_pattern.fill(name, "target", pair) for pair in pairs]

    def _hf(self) -> Iterator[Row]:
        if self.spec.get("data_files"):
            return self._hub.table_rows(self._tables(), self._fields)
        if names := self._joined():
            return self._hub.joined_rows(names, self._fields)
        return self._hub.rows(self._configurations(), self._fields)

    def _joined(self) -> dict[str, str]:
        """Return the configuration of each side, where they are for one language each."""
        name = str(self.spec.get("name"))
        sides = ("source", "target") if "{lang}" in name and len(self.codes) == 2 else ()
        return {side: self.path_pattern.fill(name, side) for side in sides}

    @property
    def _hub(self) -> Hub:
        split = self.spec.get("split") or {"val": "validation"}.get(self.setting, self.setting)
        split = self.path_pattern.fill(split)
        streaming = self.spec.get("streaming") is True
        return Hub(self._dataset(), split, self.spec.get("revision"), streaming)

    def _tables(self) -> dict[str, list[str]]:
        """Return for each file that may be meant the languages of its columns.

        What the folder of the dataset has goes before the address.
        """
        files = {}
        dataset, sides = self._dataset(), self.path_pattern.sides
        for pair in self.path_pattern.pairs:
            address = self.path_pattern.fill(self.spec["data_files"], pair=pair)
            file = Path(dataset, address.rpartition("/")[2]) if isinstance(dataset, Path) else None
            ordered = [sides["source"], sides["target"]]
            is_own = pair == self.path_pattern.pairs[0]
            files[str(file or address)] = ordered if is_own else ordered[::-1]
        return files

    def _dataset(self) -> Path | str:
        """Return a Path if the name is that of a local file or folder, else the name on the hub."""
        name = self.path_pattern.fill(self.spec["path"])
        is_local = name.startswith((".", "/", "~")) or file_ending(name) in _LOCAL_DATASETS
        return self._path if is_local or self._path.exists() else name

    def cells(self, first: int, last: int) -> list[list[str]]:
        """Return the cells of a table's lines from `first` to `last`; nothing of other kinds."""
        if self.format not in ("tsv", "csv"):
            return []
        upto = takewhile(lambda line: line[0] <= last, self._lines())
        return [cells for number, cells in upto if number >= first]

    def with_columns(self, columns: Mapping[str, int]) -> str:
        """Return the spec, as it would be written, with these columns of a table by side."""
        spec = dict(self.spec)
        if spec["kind"] == "tsv" and any(isinstance(spec.get(side), str) for side in columns):
            spec["header"] = True  # the names have said so till now
        return _as_yaml(spec | columns)

    def swap_sides(self) -> str:
        """Return the spec, as it would be written, with source and target swapped."""
        spec = dict(self.spec)
        if self.format in ("tmx", "xliff"):
            theirs = self.path_pattern.sides
            codes = {self.codes["source"]: theirs["target"], self.codes["target"]: theirs["source"]}
            return _as_yaml(spec | {"codes": codes})
        if self.format == "aligned":
            path = spec.pop("path", "")
            source = spec.get("source", path).replace("{lang}", "{src}")
            target = spec.get("target", path).replace("{lang}", "{tgt}")
        else:
            source, target = self._fields.chosen["source"], self._fields.chosen["target"]
        return _as_yaml(spec | {"source": target, "target": source})

    def _tongues(self) -> Iterator[Row]:
        from polylect import tongues

        split = self.spec.get("split") or {"val": "dev"}.get(self.setting, self.setting)
        options = {key: self.spec[key] for key in ("seed", "synthetic") if key in self.spec}
        options["size"] = self.spec.get("size", 2000 if self.setting == "train" else 200)
        source, target = split_direction(self.direction)
        if source is None:
            if "stories" in self.spec:
                options["sentences"] = self.spec["stories"]
            say = tongues.stories if "stories" in self.spec else tongues.monolingual
            texts = say(target, split, **options)
            return (Row(number, None, text) for number, text in enumerate(texts, 1))
        pairs = tongues.parallel(self.direction, split, **options)
        return (Row(number, *pair) for number, pair in enumerate(pairs, 1))


def _as_yaml(spec: Mapping[str, Any]) -> str:
    flow = yaml.safe_dump(
        dict(spec), default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    )
    return flow.strip()


def as_list(value: Any) -> list[Any]:
    """Return a list of what may be one or several; empty for None."""
    if value is None:
        return []
    is_one = isinstance(value, str | int | Mapping)
    return [value] if is_one else list(value)


def file_ending(name: str) -> str:
    """Return the ending of a file's name, without the dot and without .gz."""
    return Path(name.removesuffix(".gz")).suffix.removeprefix(".")
