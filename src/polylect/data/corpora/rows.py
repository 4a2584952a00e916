"""The rows that every reader makes, and the reader of aligned lines.

Every error says file and line. What a text is, `polylect.data.text` says.
"""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from polylect.data.corpora.lines import text_lines
from polylect.data.text import one_line


class Row(NamedTuple):
    """A sentence pair as read: its line (from 1), and its texts; no source if monolingual.

    `references` are the right translations if there are several, `target` among them; else empty.
    """

    line: int
    source: str | None
    target: str
    references: tuple[str, ...] = ()


def read_aligned(source: Path | None, target: Path, references: Sequence[Path]) -> Iterator[Row]:
    """Yield rows of files in which line i of each is the same sentence.

    The target is a reference beside the others, whether it is named among them or not.

    Raises:
        ValueError: the files have unequal numbers of lines (and see `text_lines`).
    """
    paths = ([source] if source else []) + [target, *references]
    files = [text_lines(path) for path in paths]
    for number, texts in enumerate(zip_longest(*files), 1):
        if None in texts:
            counts = [
                number - 1 if text is None else number + sum(1 for _ in file)
                for text, file in zip(texts, files, strict=True)
            ]
            raise ValueError(_unequal(paths, counts))
        clean = [one_line(text) for text in texts]
        first = clean.pop(0) if source else None
        others = clean[1:] if target in references or not references else clean
        yield Row(number, first, clean[0], tuple(others))


def _unequal(paths: Sequence[Path], counts: Sequence[int]) -> str:
    short, long = counts.index(min(counts)), counts.index(max(counts))
    return (
        f"{paths[short]}:{counts[short] + 1}: there is no such line: the file has {counts[short]} "
        f"lines but {paths[long]} has {counts[long]}; line i of aligned files must be one sentence"
    )
