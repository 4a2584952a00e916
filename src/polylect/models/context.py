"""The context length of a base model, family by family."""

import math
from dataclasses import dataclass
from typing import Any

_NAMES = ("max_position_embeddings", "max_seq_len")  # the second is MPT's
_STRETCHED = ("linear", "dynamic", "yarn")
"""Scalings of rotary positions whose factor may come on top of what the configuration names."""


@dataclass(frozen=True)
class Context:
    """The tokens of a row, prompt and translation together.

    Attributes:
        length: most that the model takes; infinite where its positions have no end (BLOOM).
        shared: most that it takes in a row which is in a batch with others. Some scalings of
            rotary positions change for the whole batch as soon as one row is longer than this.
    """

    length: float | int = math.inf
    shared: float | int = math.inf

    def has_room(self, prompt: int) -> bool:
        """Return whether a prompt of so many tokens leaves a token for its translation."""
        return prompt < self.length


UNLIMITED = Context()


def context_of(config: Any) -> Context:
    """Return the context of a base model, from its configuration.

    A sliding window is no limit: what has left it is known to deeper layers by what they passed on.
    """
    config = config.get_text_config(decoder=True)
    named = next((getattr(config, name) for name in _NAMES if hasattr(config, name)), None)
    if named is None or named < 1:
        return UNLIMITED
    scaling = getattr(config, "rope_parameters", None) or {}
    kind, factor = scaling.get("rope_type"), scaling.get("factor") or 1.0
    trained = scaling.get("original_max_position_embeddings") or named
    length = max(named, int(factor * trained)) if kind in _STRETCHED else named
    return Context(length, {"longrope": trained, "dynamic": named}.get(kind, length))
