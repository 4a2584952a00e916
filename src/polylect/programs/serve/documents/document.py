"""A document as the texts in it that are to be translated, and how to write it with others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """The translatable texts of a file, in their order.

    Attributes:
        texts: one line each.
        write: returns the file with other texts in their place; all else in it stays.
    """

    texts: Sequence[str]
    write: Callable[[Sequence[str]], str]


def line_end(content: str) -> str:
    """Return how the lines of a file end."""
    return "\r\n" if "\r\n" in content else "\n"
