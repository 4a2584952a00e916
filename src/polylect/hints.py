"""Words for error messages."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for an unknown word: the known ones nearest to it, or all where none is near."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(names)}."
