"""Positions of the tokens of a forward pass in their sentences, and what is kept of earlier ones.

A layer sees hidden states alone: not which of them are padding, nor how many tokens went before
them into a cache of keys and values. `watch_tokens` makes a `Tokens` before each forward pass of a
Hugging Face model. What a layer keeps about a row is stored with that cache: beam search reorders
the cache's rows, and memory that is kept elsewhere would stay with the wrong hypothesis.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

SIDES = ("source", "target")
"""The two parts of a row: the source prompt, and the translation that follows it."""


class RowMemory:
    """A transformers `Cache` that reorders, repeats and selects what layers keep about its rows.

    `Tokens.keep` turns a cache into one, in place: it is the same object and holds the same keys
    and values.

    Attributes:
        row_states: tensors whose first dimension is the cache's rows.
    """

    row_states: dict[int, Tensor]
    is_croppable = False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._replace(lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._replace(lambda rows: rows.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._replace(lambda rows: rows[indices])

    def reset(self) -> None:
        super().reset()
        self.row_states.clear()

    def crop(self, *length: int, **named: int) -> None:
        """Raises ValueError: a state that sums up the past cannot be taken back."""
        raise ValueError(
            "these router features keep a state that cannot go back to fewer tokens: "
            "decode without an assistant model"
        )

    def _replace(self, change: Callable[[Tensor], Tensor]) -> None:
        for key, rows in self.row_states.items():
            self.row_states[key] = change(rows)


@functools.cache
def _with_memory(kind: type) -> type:
    return type(f"Remembering{kind.__name__}", (RowMemory, kind), {})


def _make_memory(cache: Any) -> None:
    """Turn a cache into a `RowMemory`, in place, if it is none."""
    if not isinstance(cache, RowMemory):
        cache.__class__ = _with_memory(type(cache))
        cache.row_states = {}


def joined_row_states(caches: Sequence[Any], joined: Any) -> None:
    """Keep with one cache what layers keep about the rows of several, whose rows it has."""
    of_caches = [getattr(cache, "row_states", {}) for cache in caches]
    for key in of_caches[0]:
        _make_memory(joined)
        joined.row_states[key] = torch.cat([states[key] for states in of_caches])


@dataclass(frozen=True)
class Tokens:
    """The tokens of one forward pass.

    Attributes:
        real: false on padding.
        positions: how many real tokens of the row went before; so padding does not count.
        prompt: real tokens of the source prompt, those before the translation.
        cache: the model's cache of keys and values; None where each pass is on its own.
        past_length: tokens per row, padding included, that the cache held before this pass.
    """

    real: Bool[Tensor, "rows length"]
    positions: Int[Tensor, "rows length"]
    prompt: Bool[Tensor, "rows length"]
    cache: Any = None
    past_length: int = 0

    @classmethod
    def from_mask(
        cls,
        mask: Int[Tensor, "rows past_and_length"],
        prompt_lengths: Int[Tensor, " rows"],
        cache: Any = None,
        past_length: int = 0,
    ) -> "Tokens":
        """Return the tokens of a pass, from the mask of all tokens so far and `past_length`.

        Args:
            mask: zero on padding.
            prompt_lengths: real tokens in each row's source prompt.
        """
        real = mask.bool()
        positions = (real.cumsum(1) - 1).clamp_(min=0)[:, past_length:]
        real = real[:, past_length:]
        return cls(
            real, positions, real & (positions < prompt_lengths[:, None]), cache, past_length
        )

    def recall(self, layer: nn.Module) -> Tensor | None:
        """Return what `layer` kept in the pass before; None in a sentence's first pass.

        Raises:
            RuntimeError: the cache was filled while the layer was not told of it.
        """
        if self.cache is None or self.past_length == 0:
            return None
        states = getattr(self.cache, "row_states", {})
        if id(layer) not in states:
            raise RuntimeError(
                f"the cache holds {self.past_length} tokens of which the router kept nothing: pass "
                "the empty cache to the first forward pass too, inside strategy.routing(batch)"
            )
        return states[id(layer)]

    def keep(self, layer: nn.Module, rows: Tensor) -> None:
        """Keeps `rows`, one entry per row, for the next pass; nothing where there is no cache."""
        if self.cache is None:
            return
        _make_memory(self.cache)
        self.cache.row_states[id(layer)] = rows


@dataclass(frozen=True)
class TokenView:
    """The routed tokens of one forward pass, one after the other: all but padding.

    A row that has ended is padding too: `generate` goes on with it while its neighbours have not.

    Attributes:
        directions: of each row.
        real: where the routed tokens stand.
        places: likewise, as positions in the flattened batch; None if all tokens are routed.
        rows: the row of each.
        in_prompt: whether each belongs to the source prompt, not to the translation.
        tokens: all tokens of the pass, and what is kept of those before it.
    """

    directions: tuple[str, ...]
    real: Bool[Tensor, "rows length"]
    places: Int[Tensor, " tokens"] | None
    rows: Int[Tensor, " tokens"]
    in_prompt: Bool[Tensor, " tokens"]
    tokens: Tokens

    @classmethod
    def from_tokens(
        cls,
        tokens: Tokens,
        directions: Sequence[str],
        ended: Bool[Tensor, " rows"] | None = None,
    ) -> "TokenView":
        """Return the view of a pass; rows that have `ended` have no tokens in it."""
        real = tokens.real if ended is None else tokens.real & ~ended[:, None]
        prompt = tokens.prompt.flatten()
        every = torch.arange(real.numel(), device=real.device)
        places = None if bool(real.all()) else real.flatten().nonzero().squeeze(1)
        routed = every if places is None else places
        rows = routed // max(real.shape[1], 1)
        return cls(tuple(directions), real, places, rows, prompt[routed], tokens)

    def gather(self, x: Float[Tensor, "rows length in"]) -> Float[Tensor, "tokens in"]:
        """Return the routed tokens of a layer's input."""
        flat = x.reshape(-1, x.shape[-1])
        return flat if self.places is None else flat.index_select(0, self.places)

    def add_to(
        self, y: Float[Tensor, "rows length out"], update: Float[Tensor, "tokens out"]
    ) -> Float[Tensor, "rows length out"]:
        """Add the updates of the routed tokens to a layer's output, in place."""
        if self.places is None:
            return y.add_(update.view_as(y))
        return y.reshape(-1, y.shape[-1]).index_add_(0, self.places, update).view_as(y)


def _find_cache(arguments: Iterable[Any]) -> Any:
    """Return the cache among a forward pass's arguments, recognised by its methods.

    Its keyword has been renamed between releases of transformers, and models differ in it.
    """
    return next((value for value in arguments if hasattr(value, "get_seq_length")), None)


def watch_tokens(
    model: nn.Module,
    prompt_lengths: Callable[[int], Tensor],
    put: Callable[[Tokens], None],
) -> RemovableHandle:
    """Tells `put` about the tokens of every forward pass of `model`, before it.

    Args:
        model: a Hugging Face decoder, `backbone.base_model`: what both the language model and the
            training loss call.
        prompt_lengths: real tokens in each row's source prompt, for a pass of so many rows (beam
            search multiplies the batch); may raise outside a route.
        put: takes the tokens to where the layers find them.

    Raises:
        ValueError: in a forward pass, if the attention mask does not cover rows and tokens.
    """

    def see(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        ids = kwargs["inputs_embeds"] if ids is None else ids
        rows, length = ids.shape[:2]
        cache = _find_cache((*args, *kwargs.values()))
        past_length = 0 if cache is None else int(cache.get_seq_length())
        mask = kwargs.get("attention_mask")
        if mask is None:
            mask = torch.ones(rows, past_length + length, dtype=torch.long, device=ids.device)
        elif mask.shape != (rows, past_length + length):
            raise ValueError(
                f"the attention mask has shape {tuple(mask.shape)}: the router's features need "
                f"one entry per row and token so far, {(rows, past_length + length)}"
            )
        put(Tokens.from_mask(mask.long(), prompt_lengths(rows), cache, past_length))

    return model.register_forward_pre_hook(see, with_kwargs=True)
