"""The cache of keys and values of a base model, under the name that its release gives it."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from polylect.layers.tokens import joined_row_states


def empty_cache(backbone: Any) -> dict[str, DynamicCache]:
    """Return an empty cache as a keyword argument of the model and of its `generate`.

    Newer versions of transformers have renamed it.
    """
    known = inspect.signature(backbone.forward).parameters
    name = "cache" if "cache" in known else "past_key_values"
    return {name: DynamicCache(config=backbone.config.get_text_config(decoder=True))}


def joined_cache(
    backbone: Any, caches: Sequence[DynamicCache], length: int
) -> dict[str, DynamicCache]:
    """Return one cache of the rows of several, as `empty_cache` returns it.

    Each row has its last `length` positions; what is missing before them is zero, for padding on
    the left. What layers keep about rows is joined as well.
    """
    named = empty_cache(backbone)
    (joined,) = named.values()
    for index, layers in enumerate(zip(*(cache.layers for cache in caches), strict=True)):
        keys = torch.cat([_last(layer.keys, length) for layer in layers])
        values = torch.cat([_last(layer.values, length) for layer in layers])
        joined.update(keys, values, index)
    joined_row_states(caches, joined)
    return named


def _last(
    states: Float[Tensor, "rows heads positions width"], length: int
) -> Float[Tensor, "rows heads length width"]:
    """Return the states of the last positions; zero where there are none, or none are kept."""
    return functional.pad(states[:, :, -length:], (0, 0, max(0, length - states.shape[2]), 0))
