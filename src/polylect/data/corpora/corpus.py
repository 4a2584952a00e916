"""Corpora of sentence pairs: their specs in a configuration, and reading them.

A spec is a mapping with the key `kind`, or a string from which it is inferred, or a list of specs
(several corpora for one direction). Kinds and their keys:

    aligned   path with {lang}, or source and target; references (paths)
    tsv       path; source (0), target (1), references: columns from 0, or names in the header;
              header; quotation marks are letters (for quoted cells: kind csv, delimiter "\\t")
    csv       as tsv, but cells may be quoted, and header is true; delimiter (",")
    jsonl     path; source, target, references: fields; dots go into nested objects
    tmx       path
    xliff     path; XLIFF 1.2 and 2; what is not translated yet is passed over and counted
    hf        path (hub name, or local folder or file), name, split; source, target, references;
              revision; streaming (false): read as it is needed, and not stored first; with {lang}
              in the name, line i of both configurations is one sentence, and fields are
              source.FIELD and target.FIELD; data_files with {pair}: tab-separated, no header
    hub       path, one of the short names in `hub_sets`, and the keys of hf
    tongues   split, size (2000 to train, else 200), seed, synthetic: the embedded languages

and for all of them `start` and `stop` (rows from 0, end excluded), `codes`, the names that the
corpus uses for languages, such as {de: deu_Latn}, and `check_sides` (true): refuse texts that are
clearly in the language of the other side, see `polylect.data.corpora.sides`. For placeholders in
names see `PathPattern`: with them a set stored in one orientation serves both. Where no field is
named, "en", "translation.en", "source", and then whatever `headers` knows as a name of the side are
tried for the source, "text" for monolingual text, and likewise for the target.

A first line that names the languages is a header by itself, unless `header` is false; being nowhere
announced, it counts as a row for `start` and `stop`. Strings: "tongues", "hub:NAME", and files by
their endings (.gz may follow); others are aligned.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from polylect.data.corpora import sides
from polylect.data.corpora.hub_sets import hub_spec
from polylect.data.corpora.kinds import SpecReader, as_list, file_ending
from polylect.data.corpora.lines import check_no_pattern
from polylect.data.corpora.rows import Row
from polylect.data.corpora.spec_values import check_values
from polylect.data.corpora.tables import are_quoted
from polylect.data.languages import split_direction
from polylect.did_you_mean import check_known, did_you_mean

log = logging.getLogger(__name__)

COMMON = {"kind", "start", "stop", "codes", "check_sides"}
KEYS: dict[str, set[str]] = {
    "aligned": {"path", "source", "target", "references"},
    "tsv": {"path", "source", "target", "references", "header"},
    "csv": {"path", "source", "target", "references", "header", "delimiter"},
    "jsonl": {"path", "source", "target", "references"},
    "tmx": {"path"},
    "xliff": {"path"},
    "hf": {
        *("path", "name", "split", "source", "target", "references"),
        *("revision", "streaming", "data_files"),
    },
    "tongues": {"split", "size", "seed", "synthetic", "stories"},
}
_KIND_OF_ENDING = {kind: kind for kind in ("tsv", "csv", "jsonl", "tmx", "xliff")} | {
    "json": "jsonl",
    "xlf": "xliff",
}
_OTHER_ARCHIVES = {".xz", ".bz2", ".zst", ".lz4", ".zip", ".7z", ".tar", ".tgz"}
_FILLED = ("path", "name", "split", "source", "target", "references", "data_files")
"""Keys whose values may have placeholders."""


@dataclass(frozen=True)
class Corpus:
    """One spec, checked, for one direction; nothing is opened before `rows`.

    `setting` ("train", "val" or "test") is named in errors and chooses the default split;
    `check_sides` holds where the spec says nothing of it.

    Raises:
        ValueError: a key that the kind does not have, one that it needs and is not there, or a
            value that it cannot have.
    """

    direction: str
    spec: Mapping[str, Any]
    setting: str
    root: Path | None = None
    check_sides: bool = True

    def __post_init__(self) -> None:
        kind, where = self.spec["kind"], f"{self.setting} of {self.direction!r}"
        check_known(f"{where}: kind", kind, KEYS)
        for key in self.spec.keys() - KEYS[kind] - COMMON:
            hint = did_you_mean(str(key), KEYS[kind] | COMMON)
            raise ValueError(f"{where}: a corpus of kind {kind!r} has no key {key!r}; {hint}")
        check_values(self.spec, where)
        for key in _FILLED:
            for pattern in as_list(self.spec.get(key)):
                self._reader.path_pattern.check(pattern, f"{where}: {key}")
        if kind not in ("aligned", "tongues") and not self.spec.get("path"):
            raise ValueError(f"{where}: a corpus of kind {kind!r} needs the key 'path'")
        for side in self._reader.path_pattern.sides if kind == "aligned" else ():
            if self._reader.pattern(side) is None:
                raise ValueError(f"{where}: {self._without_file(side)}")

    def rows(self) -> Iterator[Row]:
        """Yield the rows from `start` to `stop`, streamed.

        Raises:
            FileNotFoundError, ValueError: one sentence with file and line; texts that are clearly
                in the language of the other side, with the spec that is likely right.
        """
        span = islice(self._reader.read(), self.spec.get("start") or 0, self.spec.get("stop"))
        rows = (row for row in span if row is not None)
        check = self.spec.get("check_sides")
        if self.spec["kind"] != "tongues" and (self.check_sides if check is None else check):
            ahead = sides.read_ahead(rows)
            self._check(ahead)
            yield from ahead
        yield from rows

    @property
    def skip_counts(self) -> Counter[str]:
        """How many units the last reading passed over before they were rows, by reason."""
        return self._reader.skip_counts

    @property
    def name(self) -> str:
        """What the corpus is called in reports: its file or files, below `root`, or a dataset."""
        pattern = self.spec.get("path")
        if self.spec["kind"] == "aligned" and pattern:
            return str(pattern)
        files = [self._reader.files.get(side) for side in ("source", "target")]
        below = [
            file.relative_to(self.root) if self.root and isinstance(file, Path) else file
            for file in files
            if file is not None
        ]
        return " + ".join(map(str, below))

    def identity(self) -> dict[str, Any]:
        """Return what its rows depend on: the spec, and the hash of each file by name."""
        return {"spec": dict(self.spec), "files": self._reader.hashes()}

    def location(self, line: int, side: str = "target") -> str:
        """Return "file:line" of one side of a row."""
        files = self._reader.files
        return f"{files.get(side) or files['target']}:{line}"

    @cached_property
    def _reader(self) -> SpecReader:
        return SpecReader(self.direction, self.spec, self.setting, self.root)

    def _without_file(self, side: str) -> str:
        """What is wrong where aligned files are meant, or seem to be, and a side has none."""
        path = str(self.spec.get("path") or "")
        file = self._reader.path_pattern.path(path)
        if path and file.is_dir():
            return (
                f"{path} is a folder: name its files, as in {path.rstrip('/')}/NAME.{{lang}}, or "
                "give {kind: hf, path: FOLDER} for a saved Hugging Face dataset"
            )
        if path:
            check_no_pattern(file)
        if file.suffix in _OTHER_ARCHIVES:
            return f"{path} is compressed otherwise than by gzip: unpack it, or make it a .gz file"
        endings = ", ".join(_KIND_OF_ENDING)
        return (
            f"no file for the {side} side; put {{lang}} into the path or give 'source' and "
            f"'target'; a file that holds both sides ends in {endings}, or is named with its kind, "
            f"as in {{kind: tsv, path: {path or 'my.tsv'}}}"
        )

    def _check(self, rows: Sequence[Row]) -> None:
        """Raise ValueError where the sides are clearly not in their languages and others are.

        Where no others are, there may be a reason (a language in another script): that is logged.
        """
        texts = [text for row in rows for text in (row.source, row.target) if text]
        if self.spec["kind"] == "tsv" and are_quoted(texts):
            log.warning(
                "%s: %s: texts stand in quotation marks, which are letters in kind tsv; cells that "
                "are quoted as in CSV are read by kind csv with delimiter: '\\t'",
                *(f"{self.setting} of {self.direction!r}", self.location(rows[0].line)),
            )
        codes = self._reader.codes
        columns = {
            side: sides.Column([getattr(row, side) for row in rows], codes) for side in codes
        }
        wrong = {side: what for side in codes if (what := columns[side].wrong_for(side))}
        if not wrong:
            return
        message = (
            f"{self.setting} of {self.direction!r}: {self.location(rows[0].line)}: "
            + " and ".join(f"the {side} side {what}" for side, what in wrong.items())
        )
        cells = self._reader.cells(rows[0].line, rows[-1].line)
        right = ""
        if likely := sides.likely_columns(cells, codes):
            right = self._reader.with_columns(likely)
        elif not cells and sides.are_swapped(columns):
            right = self._reader.swap_sides()
        if right:
            raise ValueError(
                f"{message}; what is right is likely {right} (with check_sides: false it is taken "
                "as it is)"
            )
        if not all(columns[side].holds_identifiers for side in wrong):  # numbers may be meant
            log.warning("%s; see that it is what you mean", message)


def corpora(
    setting: str,
    value: Any,
    directions: Sequence[str],
    root: str | Path | None = None,
    check_sides: bool = True,
) -> dict[str, list[Corpus]]:
    """Return the corpora of each direction, from the value of the setting "train", "val" or "test".

    The value is one spec for all directions, or a mapping from direction (or "*", any other) to
    specs; it may have more directions than this run. Directions whose spec is None are left out.
    `check_sides` holds for the specs that do not say it themselves.

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
        if specs == []:
            raise ValueError(
                f"data.{setting}: the list of corpora for direction {direction!r} is empty: name "
                f"a file, or leave {setting} out with null"
            )
        if specs is not None:
            folder = Path(root).expanduser() if root else None
            result[direction] = [
                Corpus(direction, _spec(setting, spec, direction), setting, folder, check_sides)
                for spec in as_list(specs)
            ]
    return result


_OF_A_CORPUS = ("path", "source", "target", "start", "stop", "header")
"""Keys of a corpus, none of them a direction."""


def _check_direction_key(setting: str, key: Any) -> None:
    if key == "*":
        return
    if key in _OF_A_CORPUS:
        raise ValueError(
            f"{setting}: a corpus with the key {key!r} needs its kind, too, as in "
            "{kind: tsv, path: my.tsv}; kinds are those of the table of formats"
        )
    try:
        split_direction(key if isinstance(key, str) else repr(key))
    except ValueError as error:
        raise ValueError(
            f"{setting}: {key!r} is neither a direction nor '*', and a single corpus would have "
            f"the key 'kind' ({error})"
        ) from None


def _spec(setting: str, spec: Any, direction: str) -> Mapping[str, Any]:
    if isinstance(spec, str) and spec.startswith("hub:"):
        spec = {"kind": "hub", "path": spec.removeprefix("hub:")}
    if isinstance(spec, Mapping):
        if spec.get("kind") == "hub":
            return hub_spec(spec, direction, setting)
        if "kind" in spec:
            return dict(spec) | ({"delimiter": "\t"} if spec.get("delimiter") == r"\t" else {})
        raise ValueError(f"{setting}: the corpus {dict(spec)} needs the key 'kind'")
    if not isinstance(spec, str):
        raise ValueError(f"{setting}: {spec!r} is not a corpus: give a file name or a mapping")
    if spec == "tongues":
        return {"kind": "tongues"}
    return {"kind": _KIND_OF_ENDING.get(file_ending(spec), "aligned"), "path": spec}
