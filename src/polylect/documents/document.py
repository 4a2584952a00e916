"""A document as the texts in it that are to be translated, and how to write it with others."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_END = re.compile(r"(\r\n|\n|\r)")


@dataclass(frozen=True)
class Document:
    """The translatable texts of a file, in their order.

    Attributes:
        texts: one line each.
        write: returns the file with other texts in their place; all else in it stays.
    """

    texts: Sequence[str]
    write: Callable[[Sequence[str]], str]


def lines_of(content: str) -> tuple[list[str], list[str]]:
    """Return the lines of a file and how each of them ends, which may differ within a file.

    The last one has no end; it is empty where the file ends with that of a line.
    """
    cut = _END.split(content)
    return cut[::2], [*cut[1::2], ""]
