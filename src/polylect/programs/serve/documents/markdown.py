"""Markdown: the text of paragraphs, headings, items and cells; code and structure stay."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from polylect.programs.serve.documents.document import Document, line_end

_FENCE = re.compile(r"\s*(```+|~~~+)")
_KEPT = re.compile(
    r"\s*$|    |\t|\s*<|\s*(?:[-*_]\s*){3,}$|\s*=+\s*$|\s*\[[^\]]+\]:\s|\s*\|?[\s:|-]*-[\s:|-]*$"
)
_LEAD = re.compile(r"\s*(?:>\s*)*(?:(?:#{1,6}|[-*+]|\d+[.)])\s+)?(?:\[[ xX]\]\s+)?")


@dataclass
class _Part:
    """What is written before a text, and after it; lines that are kept have no text."""

    before: str
    text: str = ""
    after: str = ""
    is_paragraph: bool = field(default=False, kw_only=True)


def read_markdown(content: str, **_: object) -> Document:
    """Read Markdown; the lines of a paragraph are one text, and one line afterwards."""
    end = line_end(content)
    parts: list[_Part] = []
    for line, is_kept in _lines(content.split(end)):
        if is_kept:
            parts.append(_Part(line, after=end))
        elif line.lstrip().startswith("|"):
            parts += _cells(line, end)
        else:
            _add_text(parts, line, end)
    texts = [part.text for part in parts if part.text]

    def write(translations: Sequence[str]) -> str:
        rest = iter(translations)
        written = (f"{p.before}{next(rest) if p.text else ''}{p.after}" for p in parts)
        return "".join(written).removesuffix(end)

    return Document(texts, write)


def _lines(lines: Sequence[str]) -> list[tuple[str, bool]]:
    """The lines, and whether each is kept: of code, of the head, of HTML, of structure alone."""
    found: list[tuple[str, bool]] = []
    fence, in_head, was_text = "", bool(lines) and lines[0].strip() == "---", False
    for number, line in enumerate(lines):
        opened = _FENCE.match(line)
        if in_head:
            is_kept = True
            in_head = number == 0 or line.strip() not in ("---", "...")
        elif fence:
            is_kept = True
            fence = "" if line.strip().startswith(fence) else fence
        elif opened:
            is_kept, fence = True, opened[1]
        else:  # what is indented goes on with a paragraph or an item, or is code
            goes_on = was_text and line.startswith(("    ", "\t")) and line.strip()
            is_kept = bool(_KEPT.match(line)) and not goes_on
        found.append((line, is_kept))
        was_text = not is_kept
    return found


def _cells(line: str, end: str) -> list[_Part]:
    cells = re.split(r"(?<!\\)\|", line)
    parts = []
    for number, cell in enumerate(cells):
        bar, text = ("|" if number else ""), cell.strip()
        before, after = cell[: len(cell) - len(cell.lstrip())], cell[len(cell.rstrip()) :]
        parts.append(_Part(bar + before, text, after if text else ""))
    parts[-1].after += end
    return parts


def _add_text(parts: list[_Part], line: str, end: str) -> None:
    lead = _LEAD.match(line)[0]
    text, quote = line[len(lead) :].rstrip(), ">" in lead
    goes_on = bool(parts) and parts[-1].is_paragraph and (not lead.strip() or quote)
    if goes_on and (not quote or ">" in parts[-1].before):
        parts[-1].text += f" {text}"
        parts[-1].after = line[len(line.rstrip()) :] + end
        return
    is_paragraph = not lead.lstrip(" >").startswith("#")
    after = line[len(line.rstrip()) :] + end
    parts.append(_Part(lead, text, after, is_paragraph=is_paragraph))
