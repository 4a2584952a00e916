"""Finds the adapter and the direction of each text of a call."""

from collections.abc import Sequence

from polylect.data.batch import Example
from polylect.data.languages import split_direction
from polylect.strategies.base import TranslationModule
from polylect.strategies.lag import LAG

Setting = str | Sequence[str | None] | None
"""One for all texts, or one per text; None where something else decides."""


def adapters_per_text(
    module: TranslationModule, adapter: Setting, default: str | None, count: int
) -> list[str | None]:
    """Return the adapter named for each text, "" for the base alone.

    It is None where the direction decides.

    Raises ValueError for a name that is not there, and for numbers that do not match.
    """
    named = [
        default if name is None else name for name in _one_per_text(adapter, count, "adapters")
    ]
    for name in dict.fromkeys(name for name in named if name is not None):
        library = module.named_adapters()
        if name:
            library.adapter_index.directions_of(name)  # which refuses a name that is not there
    return named


def directions_per_text(
    module: TranslationModule, direction: Setting, named: Sequence[str | None]
) -> list[str]:
    """Return the direction of each text, given or the only one that its adapter serves.

    Raises ValueError for one that is not served, and for numbers that do not match.
    """
    pairs = list(zip(named, _one_per_text(direction, len(named), "directions"), strict=True))
    direction_of = {pair: _direction(module, *pair) for pair in dict.fromkeys(pairs)}
    return [direction_of[pair] for pair in pairs]


def check_direction(module: TranslationModule, adapter: str | None, direction: str) -> None:
    """Raises ValueError, with the nearest, for a direction that is not served.

    A named adapter, and the base alone, takes any.
    """
    split_direction(direction)
    if adapter is None:
        module.check_direction(direction)


def adapters_used(module: TranslationModule, prompts: Sequence[Example]) -> list[str | None]:
    """Return the adapter that each prompt has now, "" for the base alone.

    It is None where the strategy has no adapters to name.
    """
    if not has_named_adapters(module):
        return [None] * len(prompts)
    return module.named_adapters().adapters_of(
        [prompt.adapter for prompt in prompts], [prompt.direction for prompt in prompts]
    )


def has_named_adapters(module: TranslationModule) -> bool:
    """Return whether the strategy loads and switches adapters by name."""
    try:
        module.named_adapters()
    except ValueError:
        return False
    return True


def directions_served(module: TranslationModule) -> list[str]:
    """Return the directions that are known, sorted; none where the strategy takes any.

    For a strategy that routes among adapters and takes any, those which its adapters serve. What
    an adapter's name or files say that is no direction is none.
    """
    if has_named_adapters(module):
        index = module.named_adapters().adapter_index
        known = {d for name in index.names for d in index.directions_of(name)}
    elif isinstance(module, LAG) and not module.directions:
        known = {name for serving in module.serving.values() for name in serving.adapter}
    else:
        known = set(module.directions)
    return sorted(filter(_is_direction, known))


def _is_direction(name: str) -> bool:
    try:
        return split_direction(name)[0] is not None
    except ValueError:
        return False


def _one_per_text(setting: Setting, count: int, what: str) -> list[str | None]:
    if setting is None or isinstance(setting, str):
        return [setting] * count
    if len(setting) != count:
        raise ValueError(f"{count} texts and {len(setting)} {what} do not match.")
    return list(setting)


def _direction(module: TranslationModule, adapter: str | None, direction: str | None) -> str:
    if direction is None:
        if not adapter:
            raise ValueError("give a direction: no adapter is set or named that serves one.")
        served = module.named_adapters().adapter_index.directions_of(adapter)
        if len(served) != 1:
            known = ", ".join(served) or "none"
            raise ValueError(f"give a direction: adapter {adapter} serves {known}.")
        direction = served[0]
    check_direction(module, adapter, direction)
    return direction
