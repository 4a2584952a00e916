"""The direction of a text of which only the target language is given."""

from dataclasses import replace

from polylect.data.languages import language, split_direction
from polylect.eval.language import OTHER, UNDECIDED, detect
from polylect.programs.serve.jobs import Order
from polylect.run.text_settings import directions_served
from polylect.strategies.base import TranslationModule


def settle_direction(module: TranslationModule, order: Order, number: int) -> Order:
    """Return the order with its direction, if a target is given: from the language of its text.

    Args:
        number: of the text in its request, from 1.

    Raises:
        ValueError: no direction into the target is served, or the language cannot be told.
    """
    if order.target is None:
        return order
    language(order.target)  # which refuses a code that is not known
    directions = directions_served(module)
    sources = [split_direction(d)[0] for d in directions if split_direction(d)[1] == order.target]
    if not sources:
        known = ", ".join(directions) or "none by name"
        raise ValueError(f"text {number}: no direction into {order.target} is served, but {known}.")
    source = _source(order.text, [str(code) for code in sources], number)
    return replace(order, direction=f"{source}-{order.target}", target=None)


def _source(text: str, sources: list[str], number: int) -> str:
    scripts = {code: language(code).scripts for code in sources}
    (found,) = detect([text], sources, scripts)
    if found == UNDECIDED and len(sources) == 1:  # too short to judge, but nothing else it may be
        return sources[0]
    if found in (UNDECIDED, OTHER):
        raise ValueError(
            f"text {number}: it cannot be told in which of the languages {', '.join(sources)} it "
            "is: give its direction."
        )
    return found
