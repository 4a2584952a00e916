"""Which lines of Markdown are text, and which are code, markup or structure and stay."""

import re
from collections.abc import Sequence
from enum import Enum

_QUOTE = re.compile(r"\s{0,3}(?:>\s?)+")
_FENCE = re.compile(r"\s*(?:(?:[-*+]|\d+[.)])\s+)?(`{3,}(?=[^`]*$)|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])\s+(?=\S)")
_FOOTNOTE = re.compile(r"\s{0,3}\[\^[^\]]+\]:\s")
_STRUCTURE = re.compile(
    r"""\s*(?:
        (?:[-*_]\s*){3,} | =+ | \[(?!\^)[^\]]+\]:\s.* | \|?[\s:|-]*-[\s:|-]*  # rules, links, tables
        | :::.* | \[![A-Za-z]+\] | [-*+]\s+\[[ xX]\]                  # notes, tasks without text
    )?\s*""",
    re.VERBOSE,
)
_DELIMITERS = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)+\|?\s*|\s*\|\s*:?-+:?\s*\|\s*")
"""The second line of a table."""
_HTML = re.compile(r"\s*(?:</?[A-Za-z][\w-]*(?:[\s/>]|$)|<[!?])")
_INLINE_HTML = re.compile(
    r"\s*</?(?:a|abbr|b|br|cite|code|del|em|i|img|ins|kbd|mark|q|s|small|span|strong|sub|sup|u)\b",
    re.IGNORECASE,
)
_TAG = re.compile(r"<!--.*?-->|<[^<>]*>")
_UNFINISHED_TAG = re.compile(r"<[A-Za-z/][^<>]*$")
_OPENERS = (
    (re.compile(r"\s*<!--"), re.compile("-->")),
    (re.compile(r"\s*<(?:pre|script|style)\b", re.I), re.compile(r"</(?:pre|script|style)>", re.I)),
    (re.compile(r"\s*\$\$"), re.compile(r"\$\$")),
    (re.compile(r"\s*\\\["), re.compile(r"\\\]")),
)


class Kind(Enum):
    """What a line is.

    Attributes:
        TEXT: of a paragraph, heading or item, which the next line may go on with.
        ALONE: text within HTML, a text for itself.
        ROW: of a table.
        KEPT: code, structure, or markup without words.
    """

    TEXT, ALONE, ROW, KEPT = range(4)


def line_kinds(lines: Sequence[str]) -> list[Kind]:
    """Return what each line is."""
    head, rows = _front_matter(lines), _table_rows(lines)
    kinds = [Kind.KEPT] * head
    closing: re.Pattern[str] | None = None
    is_quoted, content = False, 0  # of what is to be closed; where text of the list's item begins
    for number, line in enumerate(lines[head:], head):
        quote = _QUOTE.match(line)
        body = line[quote.end() :] if quote else line
        goes_on = bool(kinds) and kinds[-1] is Kind.TEXT
        if closing is not None and is_quoted and not quote:
            closing = None  # what a quote holds ends with it
        if closing is not None:
            closing = None if closing.search(body) else closing
            kinds.append(Kind.KEPT)
            continue
        content = content if goes_on or not body.strip() or _indent(body) else 0
        is_code = _indent(body) >= content + 4 and not goes_on
        if not is_code and (closing := _closing(body)) is not None:
            is_quoted = bool(quote)
            kinds.append(Kind.KEPT)
            continue
        if is_code or _STRUCTURE.fullmatch(body):
            kinds.append(Kind.KEPT)
        elif number in rows:
            kinds.append(Kind.ROW)
        elif _HTML.match(body) and not _INLINE_HTML.match(body):
            kinds.append(Kind.ALONE if _TAG.sub("", body).strip() else Kind.KEPT)
        else:
            kinds.append(Kind.TEXT)
            if begun := _ITEM.match(body):
                content = len(begun[0].expandtabs(4))
            elif _FOOTNOTE.match(body):
                content = 4
    return kinds


def _front_matter(lines: Sequence[str]) -> int:
    """Return the number of lines of the file's head, in YAML or TOML; 0 where it has none."""
    mark = lines[0].strip()
    if mark in ("---", "+++"):
        ends = ("---", "...") if mark == "---" else ("+++",)
        for number, line in enumerate(lines[1:], 1):
            if line.strip() in ends:
                return number + 1
    return 0


def _table_rows(lines: Sequence[str]) -> set[int]:
    """Return the numbers of the lines of tables, with or without bars at their ends."""
    bodies = [_QUOTE.sub("", line, count=1) for line in lines]
    rows = {number for number, body in enumerate(bodies) if body.lstrip().startswith("|")}
    for number, body in enumerate(bodies):
        if number and _DELIMITERS.fullmatch(body) and "|" in bodies[number - 1]:
            rows.add(number - 1)
            end = number + 1
            while end < len(bodies) and "|" in bodies[end]:
                rows.add(end)
                end += 1
    return rows


def _closing(line: str) -> re.Pattern[str] | None:
    """Return what closes the code, formula, comment or tag that a line opens; None for nothing."""
    if fence := _FENCE.match(line):
        return re.compile(rf"^\s*{re.escape(fence[1][0])}{{{len(fence[1])},}}\s*$")
    for opener, closing in _OPENERS:
        if (opened := opener.match(line)) and not closing.search(line, opened.end()):
            return closing
    if _HTML.match(line) and _UNFINISHED_TAG.search(_TAG.sub("", line)):
        return re.compile(">")
    return None


def _indent(line: str) -> int:
    expanded = line.expandtabs(4)
    return len(expanded) - len(expanded.lstrip())
