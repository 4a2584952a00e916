"""Placeholders in the names of files, columns and fields, filled in for one direction."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from polylect.data.languages import split_direction
from polylect.did_you_mean import did_you_mean

PLACEHOLDERS = ("src", "tgt", "lang", "direction", "pair")


@dataclass(frozen=True)
class PathPattern:
    """How a corpus names the languages of a direction and where its files are.

    {src}, {tgt} are the codes of the direction, {lang} is the code of the side, {direction} is
    "src-tgt" ("tgt" for text in one language), {pair} "src-tgt" or "tgt-src", whichever exists.
    `codes` translates our codes into those of the corpus; relative paths start from `root`, or from
    the working directory if it is None.
    """

    direction: str
    codes: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None

    @cached_property
    def sides(self) -> dict[str, str]:
        """The corpus' codes by side; only "target" if the direction is monolingual."""
        source, target = split_direction(self.direction)
        sides = {"target": target} | ({"source": source} if source else {})
        return {side: self.codes.get(code, code) for side, code in sides.items()}

    @property
    def pairs(self) -> list[str]:
        """What {pair} may stand for, the direction's own order first."""
        if "source" not in self.sides:
            return [""]
        source, target = self.sides["source"], self.sides["target"]
        return [f"{source}-{target}", f"{target}-{source}"]

    def fill(self, pattern: str, side: str = "target", pair: str | None = None) -> str:
        """Return the pattern with its placeholders filled in.

        Raises:
            ValueError: {src} or {pair} for monolingual text.
        """
        if "source" not in self.sides and ("{src}" in pattern or "{pair}" in pattern):
            raise ValueError(
                f"{pattern!r} names two languages, but direction {self.direction!r} has one"
            )
        values = {
            "{src}": self.sides.get("source", ""),
            "{tgt}": self.sides["target"],
            "{lang}": self.sides.get(side, ""),
            "{direction}": self.pairs[0] or self.sides["target"],
            "{pair}": self.pairs[0] if pair is None else pair,
        }
        for placeholder, value in values.items():
            pattern = pattern.replace(placeholder, value)
        return pattern

    def check(self, pattern: object, where: str) -> None:
        """Raises ValueError, which begins with `where`, for a placeholder that does not exist."""
        for name in re.findall(r"\{(\w+)\}", pattern) if isinstance(pattern, str) else ():
            if name not in PLACEHOLDERS:
                raise ValueError(
                    f"{where} has the placeholder {{{name}}}, which does not exist; "
                    f"{did_you_mean(name, PLACEHOLDERS, '{{{}}}'.format)}"
                )

    def path(self, pattern: str, side: str = "target") -> Path:
        """Return the file of a pattern; of the two orientations of {pair} the one that exists."""
        paths = [self._under_root(self.fill(pattern, side, pair)) for pair in self.pairs]
        return next((path for path in paths if path.exists()), paths[0])

    def is_reversed(self, pattern: str) -> bool:
        """Return whether {pair} exists only as "tgt-src"."""
        return self.path(pattern) != self._under_root(self.fill(pattern))

    def _under_root(self, name: str) -> Path:
        path = Path(name).expanduser()
        return self.root / path if self.root else path
