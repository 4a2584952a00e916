"""What a report is made of: sections of blocks, written by a template for each form."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from polylect.eval.table import Table


@dataclass(frozen=True)
class Heading:
    """The title of what follows within a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Missing:
    """A sentence on what a run does not have, or what could not be computed."""

    text: str
    kind: ClassVar[str] = "missing"


@dataclass(frozen=True)
class Grid:
    """A table with a caption.

    Attributes:
        shades: of the cells of each row beside its name, from 0 to 1; None for no colour. Empty
            for a table without colours.
    """

    caption: str
    table: Table
    shades: Sequence[Sequence[float | None]] = ()
    kind: ClassVar[str] = "grid"


@dataclass(frozen=True)
class Picture:
    """A PNG file with what it shows; `name` is that of a file, without ending."""

    name: str
    caption: str
    png: bytes
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Code:
    """Text of a machine; what is long is folded away where that can be done."""

    title: str
    text: str
    folded: bool = False
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Passage:
    """A text in some language, whose marked pieces differ from what it is compared with.

    Attributes:
        language: code as in `data.directions`; None for an unknown one.
        pieces: texts, and whether each is marked.
    """

    language: str | None
    pieces: Sequence[tuple[str, bool]]


@dataclass(frozen=True)
class Sample:
    """What systems made of one line of a test set, each with a label."""

    label: str
    passages: Sequence[tuple[str, Passage]]
    kind: ClassVar[str] = "sample"


Block = Heading | Text | Missing | Grid | Picture | Code | Sample


@dataclass
class Section:
    """A titled part of the report."""

    title: str
    blocks: list[Block] = field(default_factory=list)
