"""The cache of keys and values of a base model, under the name that its release gives it."""

import inspect
from typing import Any

from transformers import DynamicCache


def empty_cache(backbone: Any) -> dict[str, DynamicCache]:
    """Return an empty cache as a keyword argument of the model and of its `generate`.

    Newer versions of transformers have renamed it.
    """
    known = inspect.signature(backbone.forward).parameters
    name = "cache" if "cache" in known else "past_key_values"
    return {name: DynamicCache(config=backbone.config.get_text_config(decoder=True))}
