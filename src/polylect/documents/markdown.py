"""Markdown: the text of paragraphs, headings, items and cells; code and structure stay."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from polylect.documents.document import Document, lines_of
from polylect.documents.markdown_lines import Kind, line_kinds

_LEAD = re.compile(r"\s*(?:>\s*)*(?:(?:#{1,6}|[-*+]|\d+[.)]|\[\^[^\]]+\]:)\s+)?(?:\[[ xX]\]\s+)?")
"""Quotes, and the mark of a heading, an item, a task or a footnote."""
_HEADING_END = re.compile(r"\s+#+$")
_QUOTE = re.compile(r"\s*(?:>\s?)*")


@dataclass
class _Part:
    """What is written before a text, and after it; lines that are kept have no text.

    Attributes:
        quotes: of how many quotes within each other it is.
        is_open: whether the next line may go on with it.
    """

    before: str
    text: str = ""
    after: str = ""
    quotes: int = 0
    is_open: bool = False


def read_markdown(content: str, **_: object) -> Document:
    """Read Markdown; the lines of a paragraph are one text, and one line afterwards.

    A hard line break ends a text.
    """
    lines, ends = lines_of(content)
    parts: list[_Part] = []
    for line, end, kind in zip(lines, ends, line_kinds(lines), strict=True):
        if kind is Kind.KEPT:
            parts.append(_Part(line, after=end))
        elif kind is Kind.ROW:
            parts += _cells(line, end)
        else:
            _add_text(parts, line, end, may_go_on=kind is Kind.TEXT)
    texts = [part.text for part in parts if part.text]

    def write(translations: Sequence[str]) -> str:
        rest = iter(translations)
        return "".join(f"{p.before}{next(rest) if p.text else ''}{p.after}" for p in parts)

    return Document(texts, write)


def _cells(line: str, end: str) -> list[_Part]:
    quote = _QUOTE.match(line)[0]
    cells = re.split(r"(?<!\\)\|", line[len(quote) :])
    parts = [_Part(quote)]
    for number, cell in enumerate(cells):
        bar, text = ("|" if number else ""), cell.strip()
        before, after = cell[: len(cell) - len(cell.lstrip())], cell[len(cell.rstrip()) :]
        parts.append(_Part(bar + before, text, after if text else ""))
    parts[-1].after += end
    return parts


def _add_text(parts: list[_Part], line: str, end: str, may_go_on: bool) -> None:
    lead = _LEAD.match(line)[0]
    mark, quotes = lead.strip(" \t>"), lead.count(">")
    text = line[len(lead) :].rstrip()
    breaks = line.endswith("  ") or text.endswith("\\")
    if text.endswith("\\"):
        text = text[:-1].rstrip()
    elif mark.startswith("#"):
        text = _HEADING_END.sub("", text)
    after = line[len(lead) + len(text) :] + end
    is_open = may_go_on and not breaks and not mark.startswith("#")
    last = parts[-1] if parts else _Part("")
    if last.is_open and may_go_on and not mark and quotes in (0, last.quotes):
        last.text, last.after, last.is_open = f"{last.text} {text}", after, is_open
    else:
        parts.append(_Part(lead, text, after, quotes, is_open))
