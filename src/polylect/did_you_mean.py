"""Words for error messages."""

import difflib
from collections.abc import Callable, Iterable

_LISTED = 20


def did_you_mean(word: str, choices: Iterable[str], show: Callable[[str], str] = str) -> str:
    """Return a hint for an unknown word: the known ones nearest to it, or some where none is near.

    `show` gives the words of the hint, if those known are other ways of writing them.
    """
    words = sorted(set(choices))
    close = dict.fromkeys(map(show, difflib.get_close_matches(word, words, n=2, cutoff=0.5)))
    if close:
        return f"did you mean {' or '.join(close)}?"
    names = sorted(set(map(show, words)))
    more = len(names) - _LISTED
    return f"known: {', '.join(names[:_LISTED])}{f' and {more} more' if more > 0 else ''}."


def check_known(
    key: str, value: object, choices: Iterable[str], error: type[ValueError] = ValueError
) -> None:
    """Raises the error, with those nearest, for the value of a setting that is not known."""
    if value not in choices:
        raise error(f"{key}={value} does not exist; {did_you_mean(str(value), choices)}")
