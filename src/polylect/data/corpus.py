"""Where sentence pairs come from: the corpus specs of a configuration, and reading them.

A spec is a mapping with the key `kind`, or a string from which it is inferred, or a list of specs
(several corpora for one direction). Kinds and their keys:

    aligned   path with {lang}, or source and target; references (paths)
    tsv       path; source (0), target (1), references: columns from 0, or names in the header
    jsonl     path; source, target, references: fields; dots go into nested objects
    tmx       path
    hf        path (hub name, or local folder or file), name, split; source, target, references
    tongues   split, size (2000 to train, else 200), seed, synthetic: the embedded languages

and for all of them `start` and `stop` (rows from 0, end excluded) and `codes`, the names that the
corpus uses for languages, such as {de: deu_Latn}. For placeholders in names see `Naming`: with them
a set stored in one orientation serves both. Where no field is named, "en", "translation.en" and
"source" are tried for the source, "text" for monolingual text, and likewise for the target.

Strings: "tongues"; names ending in .tsv, .jsonl, .tmx (and .gz after it); all others are aligned.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from polylect.data import hub, readers, tmx
from polylect.data.languages import split_direction
from polylect.data.naming import Naming
from polylect.data.readers import Row
from polylect.hints import nearest

_COMMON = {"kind", "start", "stop", "codes"}
_KEYS = {
    "aligned": {"path", "source", "target", "references"},
    "tsv": {"path", "source", "target", "references"},
    "jsonl": {"path", "source", "target", "references"},
    "tmx": {"path"},
    "hf": {"path", "name", "split", "source", "target", "references"},
    "tongues": {"split", "size", "seed", "synthetic", "stories"},
}
_LOCAL_DATASETS = {".json", ".jsonl", ".csv", ".tsv", ".parquet"}


@dataclass(frozen=True)
class Corpus:
    """One spec, checked, for one direction; nothing is opened before `rows`.

    `setting` ("train", "val" or "test") is named in errors and chooses the default split.

    Raises:
        ValueError: a key that the kind does not have, or one that it needs and is not there.
    """

    direction: str
    spec: Mapping[str, Any]
    setting: str
    root: Path | None = None

    def __post_init__(self) -> None:
        kind, where = self.spec["kind"], f"{self.setting} of {self.direction!r}"
        if kind not in _KEYS:
            raise ValueError(f"{where}: unknown kind {kind!r}; {nearest(str(kind), _KEYS)}")
        for key in self.spec.keys() - _KEYS[kind] - _COMMON:
            hint = nearest(str(key), _KEYS[kind] | _COMMON)
            raise ValueError(f"{where}: a corpus of kind {kind!r} has no key {key!r}; {hint}")
        if kind not in ("aligned", "tongues") and not self.spec.get("path"):
            raise ValueError(f"{where}: a corpus of kind {kind!r} needs the key 'path'")
        for side in self._naming.sides if kind == "aligned" else ():
            if self._pattern(side) is None:
                raise ValueError(
                    f"{where}: no file for the {side} side; "
                    "put {lang} into the path or give 'source' and 'target'"
                )

    def rows(self) -> Iterator[Row]:
        """The rows from `start` to `stop`, streamed.

        Raises:
            FileNotFoundError, ValueError: one sentence with file and line.
        """
        read = getattr(self, f"_{self.spec['kind']}")
        return islice(read(), self.spec.get("start") or 0, self.spec.get("stop"))

    def where(self, line: int, side: str = "target") -> str:
        """ "file:line" of one side of a row."""
        return f"{self._files.get(side) or self._files['target']}:{line}"

    @cached_property
    def _naming(self) -> Naming:
        return Naming(self.direction, self.spec.get("codes") or {}, self.root)

    @cached_property
    def _files(self) -> dict[str, Path | str]:
        kind = self.spec["kind"]
        if kind == "aligned":
            sides = self._naming.sides
            return {side: self._naming.path(str(self._pattern(side)), side) for side in sides}
        if kind == "tongues":
            return {"target": "tongues"}
        return {"target": self._dataset() if kind == "hf" else self._path}

    @property
    def _path(self) -> Path:
        return self._naming.path(self.spec["path"])

    def _pattern(self, side: str) -> str | None:
        """The file name of one side of aligned files; a single file can only be monolingual."""
        path = self.spec.get("path")
        usable = path and ("{lang}" in path or len(self._naming.sides) == 1)
        return self.spec.get(side) or (path if usable else None)

    def _aligned(self) -> Iterator[Row]:
        references = [self._naming.path(name) for name in _listed(self.spec.get("references"))]
        files = {side: Path(path) for side, path in self._files.items()}
        return readers.read_aligned(files.get("source"), files["target"], references)

    def _tsv(self) -> Iterator[Row]:
        defaults = {"source": 0, "target": 1}
        if "source" not in self._naming.sides:
            defaults = {"target": 0}
        elif self._naming.is_reversed(self.spec["path"]):
            defaults = {"source": 1, "target": 0}
        columns = {s: self._column(self.spec.get(s, c), s) for s, c in defaults.items()}
        references = [self._column(c, "target") for c in _listed(self.spec.get("references"))]
        return readers.read_tsv(self._path, columns.get("source"), columns["target"], references)

    def _column(self, column: int | str, side: str) -> int | str:
        return self._naming.fill(column, side) if isinstance(column, str) else column

    def _jsonl(self) -> Iterator[Row]:
        return readers.read_jsonl(self._path, *self._fields())

    def _fields(self) -> tuple[list[str], list[str], list[str]]:
        sides = self._naming.sides
        source = self._candidates("source", ["source"]) if "source" in sides else []
        target = self._candidates("target", ["target"] if source else ["text"])
        return source, target, [self.spec.get("references") or "references"]

    def _candidates(self, side: str, last: list[str]) -> list[str]:
        if self.spec.get(side):
            return [self._naming.fill(self.spec[side], side)]
        code = self._naming.sides[side]
        return [code, f"translation.{code}", *last]

    def _tmx(self) -> Iterator[Row]:
        sides = self._naming.sides
        return tmx.read_tmx(self._path, sides.get("source"), sides["target"])

    def _hf(self) -> Iterator[Row]:
        name = self.spec.get("name")
        pairs = self._naming.pairs if name and "{pair}" in name else [None]
        names = [name and self._naming.fill(name, "target", pair) for pair in pairs]
        split = self.spec.get("split") or {"val": "validation"}.get(self.setting, self.setting)
        return hub.read_datasets(self._dataset(), names, split, *self._fields())

    def _dataset(self) -> Path | str:
        """A Path if the name is that of a local file or folder, else the name on the hub."""
        name = self._naming.fill(self.spec["path"])
        is_local = name.startswith((".", "/", "~")) or Path(name).suffix in _LOCAL_DATASETS
        return self._path if is_local or self._path.exists() else name

    def _tongues(self) -> Iterator[Row]:
        from polylect.data import tongues

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


def corpora(
    setting: str, value: Any, directions: Sequence[str], root: str | Path | None = None
) -> dict[str, list[Corpus]]:
    """The corpora of each direction, from the value of the setting "train", "val" or "test".

    The value is one spec for all directions, or a mapping from direction (or "*", any other) to
    specs; it may have more directions than this run. Directions whose spec is None are left out.

    Raises:
        ValueError: a key that is no direction, or a direction without a spec.
    """
    if value is None:
        return {}
    per_direction = isinstance(value, Mapping) and "kind" not in value
    for key in value if per_direction else ():
        _check_direction_key(setting, key)
    result = {}
    for direction in directions:
        specs = value.get(direction, value.get("*", "")) if per_direction else value
        if specs == "":
            raise ValueError(f"{setting}: no corpus for direction {direction!r}; add it or '*'")
        if specs is not None:
            folder = Path(root).expanduser() if root else None
            result[direction] = [
                Corpus(direction, _spec(setting, spec), setting, folder) for spec in _listed(specs)
            ]
    return result


def _check_direction_key(setting: str, key: Any) -> None:
    if key == "*":
        return
    try:
        split_direction(key if isinstance(key, str) else repr(key))
    except ValueError as error:
        raise ValueError(
            f"{setting}: {key!r} is neither a direction nor '*', and a single corpus would have "
            f"the key 'kind' ({error})"
        ) from None


def _spec(setting: str, spec: Any) -> Mapping[str, Any]:
    if isinstance(spec, Mapping):
        if "kind" in spec:
            return dict(spec)
        raise ValueError(f"{setting}: the corpus {dict(spec)} needs the key 'kind'")
    if not isinstance(spec, str):
        raise ValueError(f"{setting}: {spec!r} is not a corpus: give a file name or a mapping")
    if spec == "tongues":
        return {"kind": "tongues"}
    ending = Path(spec.removesuffix(".gz")).suffix.removeprefix(".")
    return {"kind": ending if ending in ("tsv", "jsonl", "tmx") else "aligned", "path": spec}


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    is_one = isinstance(value, str | int | Mapping)
    return [value] if is_one else list(value)
