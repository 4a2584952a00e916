"""Checks of the values in a corpus' spec: what a key may hold, before anything is opened."""

from collections.abc import Callable, Mapping
from typing import Any

from polylect.data.languages import language


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_number(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_truth(value: Any) -> bool:
    return value is True or value is False


def _is_column(value: Any) -> bool:
    return _is_text(value) or _is_number(value)


def _or_list(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        is_right(value) or (isinstance(value, list | tuple) and all(map(is_right, value)))
    )


_Wanted = tuple[Callable[[Any], bool], str]
_TEXT: _Wanted = (_is_text, "a text")
_COUNT: _Wanted = (_is_number, "a whole number, at least 0")
_ROW: _Wanted = (_is_number, "a whole number of rows from 0 on")
_TRUTH: _Wanted = (_is_truth, "true or false")
_COLUMN: _Wanted = (_is_column, "a column, by its number from 0 or its name in the header")

_OF_ALL: dict[str, _Wanted] = {
    "path": (_is_text, "the name of one file, in quotes if it is a number; several stand in a list "
             "of corpora, as in [a.tsv, b.tsv]"),
    "source": _TEXT, "target": _TEXT, "name": _TEXT, "split": _TEXT, "revision": _TEXT,
    "data_files": _TEXT, "references": _TEXT,
    "header": _TRUTH, "check_sides": _TRUTH, "streaming": _TRUTH,
    "start": _ROW, "stop": _ROW, "size": _COUNT,
    "delimiter": (lambda v: _is_text(v) and len(v) == 1 and v not in '"\r\n',
                  "one character, which is no quotation mark and no line break (\\t is a tab)"),
}  # fmt: skip
_COLUMNS: dict[str, _Wanted] = {
    "source": _COLUMN,
    "target": _COLUMN,
    "references": (_or_list(_is_column), "columns, by their numbers from 0 or their names"),
}
_OF_KIND: dict[str, dict[str, _Wanted]] = {
    "aligned": {"references": (_or_list(_is_text), "the name of a file, or a list of them")},
    "tsv": _COLUMNS,
    "csv": _COLUMNS,
}
"""Where a kind wants something else than the others do."""


def check_values(spec: Mapping[str, Any], where: str) -> None:
    """Check the values of a spec whose keys are right; null stands for a key that is not there.

    Raises:
        ValueError: a value that its key cannot have; the sentence begins with `where`.
    """
    wanted = _OF_ALL | _OF_KIND.get(spec["kind"], {})
    for key, value in spec.items():
        if value is not None and key in wanted and not wanted[key][0](value):
            raise ValueError(f"{where}: {key} must be {wanted[key][1]}, got {value!r}")
    _check_codes(spec.get("codes"), where)
    _check_span(spec.get("start") or 0, spec.get("stop"), where)
    named = [key for key in ("source", "target") if isinstance(spec.get(key), str)]
    if spec.get("header") is False and named:
        raise ValueError(f"{where}: {named[0]} names a column, but header is false")


def _check_codes(codes: Any, where: str) -> None:
    if codes is None:
        return
    if not isinstance(codes, Mapping) or not all(map(_is_text, [*codes, *codes.values()])):
        raise ValueError(
            f"{where}: codes must name a language of the corpus for each of ours, as in "
            f"{{de: deu_Latn}}, got {codes!r}"
        )
    for code in codes:
        try:
            language(code)
        except ValueError as error:
            raise ValueError(f"{where}: codes: {error}") from None


def _check_span(start: int, stop: int | None, where: str) -> None:
    if stop is not None and stop <= start:
        raise ValueError(
            f"{where}: from start={start} to stop={stop} there is no row: rows are counted "
            "from 0, and stop is the first one left out"
        )
