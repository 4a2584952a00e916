"""Figures in which any script can be read: fonts of the system, found by the letters they have.

matplotlib's own font has Latin, Greek, Cyrillic and some Arabic letters. From 3.11 on it joins and
reorders letters as scripts ask for (HarfBuzz), given a font that has them.
"""

import unicodedata
import warnings
from collections.abc import Iterable
from functools import cache
from typing import Any

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

_EAST_ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "IDEOGRAPHIC"}
_PLACEHOLDERS = ("Last Resort", "Unicode BMP Fallback")  # fonts that have a box for every letter
_noted_scripts: set[str] = set()  # scripts without a font that the user knows of


class ReadableFigure(Figure):
    """A figure whose texts get fonts that have their letters whenever it is drawn or saved.

    A letter that no font of this system has is a box. Which script it is of, and which package has
    a font for it, is said once for each script.
    """

    def draw(self, renderer: Any) -> None:
        for text in self.findobj(Text):
            _fit(text)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*missing from font.*")
            super().draw(renderer)


def _fit(text: Text) -> None:
    """Puts fonts for the letters that the text's own one lacks before it."""
    lacking = [letter for letter in text.get_text() if letter.isprintable()]
    lacking = [letter for letter in lacking if ord(letter) not in _own_letters()]
    if not lacking:
        return
    families = []
    for script, letters in _by_script(lacking).items():
        family = family_with(letters)
        if family is None:
            _note_missing_font(script)
        else:
            families.append(family)
    if families:
        text.set_fontfamily([*families, *font_manager.FontProperties().get_family()])


@cache
def _own_letters() -> frozenset[int]:
    path = font_manager.findfont(font_manager.FontProperties())
    return frozenset(font_manager.get_font(path).get_charmap())


def _by_script(letters: Iterable[str]) -> dict[str, frozenset[str]]:
    scripts: dict[str, set[str]] = {}
    for letter in letters:
        # The first word of a letter's Unicode name is its script: TAMIL LETTER KA.
        scripts.setdefault(unicodedata.name(letter, "UNNAMED").split()[0], set()).add(letter)
    return {script: frozenset(own) for script, own in scripts.items()}


@cache
def family_with(letters: frozenset[str]) -> str | None:
    """Return the family of an upright regular font here that has all the letters, or None."""
    characters = {ord(letter) for letter in letters}
    paths = {entry.fname for entry in font_manager.fontManager.ttflist}
    if family := _search(paths, characters):
        return family
    # matplotlib lists the fonts once and never looks again: some may have been installed since.
    new = set(font_manager.findSystemFonts()) - paths
    for path in sorted(new):
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # no font that FreeType can read
            new.discard(path)
    return _search(new, characters) if new else None


def _search(paths: set[str], characters: set[int]) -> str | None:
    entries = [
        entry
        for entry in font_manager.fontManager.ttflist
        if entry.fname in paths
        and entry.style == "normal"
        and entry.weight in (400, "normal", "regular")
        and not entry.name.startswith(_PLACEHOLDERS)
    ]
    # Where there is a choice, sans-serif as the rest is, and no fixed widths.
    entries.sort(key=lambda e: ("Sans" not in e.name, "Mono" in e.name, e.name))
    for entry in entries:
        if characters <= font_manager.get_font(entry.fname).get_charmap().keys():
            return entry.name
    return None


def _note_missing_font(script: str) -> None:
    if script in _noted_scripts:
        return
    _noted_scripts.add(script)
    package = "fonts-noto-cjk" if script in _EAST_ASIAN else "fonts-noto-core"
    print(
        f"note: no font of this system has {script.capitalize()} letters, so pictures show boxes: "
        f"install one, for example with `apt install {package}`.",
        flush=True,
    )
