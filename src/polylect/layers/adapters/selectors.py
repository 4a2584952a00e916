"""Selectors of a library's adapters: by token, by sentence, or by name for each row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.layers.adapters.bank import AdapterBank
from polylect.layers.adapters.scores import top_scored
from polylect.layers.adapters.selection import RouterSettings, Selection, select, tally
from polylect.layers.tokens import TokenView


@runtime_checkable
class Selector(Protocol):
    """Chooses among the adapters of one library, in every layer.

    Attributes:
        by_row: whether it has to know which row a token belongs to.
    """

    by_row: ClassVar[bool]

    def select(
        self, x: Float[Tensor, "tokens in"], bank: AdapterBank, view: TokenView | None
    ) -> Selection | None:
        """Return the adapters of each token; None where none of the library acts.

        Args:
            x: the layer's input at the routed tokens, in at least float32.
            bank: the library's adapters that change the layer.
            view: of the pass; None, and never with `by_row`, if the input does not tell rows.
        """
        ...


@dataclass(frozen=True)
class PerToken:
    """Each token chooses for itself, in each layer."""

    settings: RouterSettings
    by_row: ClassVar[bool] = False

    def select(self, x: Tensor, bank: AdapterBank, view: TokenView | None) -> Selection:
        return select(x, bank, self.settings)


@dataclass(frozen=True)
class PerPrompt:
    """In each layer all tokens of a row's prompt get what the last of them chooses.

    It has read the whole prompt, where the first have not. Later tokens choose for themselves.
    """

    settings: RouterSettings
    by_row: ClassVar[bool] = True

    def select(self, x: Tensor, bank: AdapterBank, view: TokenView) -> Selection:
        own = select(x, bank, self.settings)
        if not view.in_prompt.any():
            return own
        if past_length := view.tokens.past_length:
            raise RuntimeError(
                f"the cache holds {past_length} tokens and the prompt goes on: pass the whole "
                "prompt in one forward pass, inside strategy.routing(batch)"
            )
        places = torch.arange(len(x), device=x.device)
        chooser = torch.where(view.in_prompt, _last_of_prompt(view), places)
        return Selection(own.indices[chooser], own.weights[chooser])


@dataclass(frozen=True)
class PerSentence:
    """In each layer all tokens of a row get whom the tokens of its prompt gave the most weight.

    The choice of the first pass is kept with the cache.
    """

    settings: RouterSettings
    by_row: ClassVar[bool] = True

    def select(self, x: Tensor, bank: AdapterBank, view: TokenView) -> Selection:
        chosen = view.tokens.recall(bank)
        if chosen is None:
            chosen = top_scored(prompt_votes(x, bank, view, self.settings), 1).squeeze(1)
            view.tokens.keep(bank, chosen)
        return _per_row(x, view, chosen)


@dataclass(frozen=True)
class Oracle:
    """Each row gets the adapter that serves its direction, or none."""

    by_row: ClassVar[bool] = True

    def select(self, x: Tensor, bank: AdapterBank, view: TokenView) -> Selection:
        chosen = [bank.serving.get(name, -1) for name in view.directions]
        return _per_row(x, view, torch.tensor(chosen, device=x.device))


@dataclass(frozen=True)
class Named:
    """Each row of the batch gets the adapter of its name, where that changes the layer.

    Whose row is whose is kept with the cache from the first pass on, as rows may leave the batch.

    Attributes:
        names: one per row; each is repeated where beam search multiplied the batch.
    """

    names: Sequence[str]
    by_row: ClassVar[bool] = True

    def select(self, x: Tensor, bank: AdapterBank, view: TokenView) -> Selection:
        chosen = view.tokens.recall(bank)
        if chosen is None:
            positions = [bank.position.get(name, -1) for name in self.names]
            copies = len(view.real) // len(positions)
            chosen = torch.tensor(positions, device=x.device).repeat_interleave(copies)
            view.tokens.keep(bank, chosen)
        return _per_row(x, view, chosen)


class ModelVote:
    """Sums up, by row, how much weight each layer gives to the adapters over the prompt.

    At the level "last" the last token of the prompt votes alone.

    While the votes are counted no adapter acts; `Named(vote.winners())` follows them. A layer that
    an adapter does not change has no vote on it.
    """

    by_row: ClassVar[bool] = True

    def __init__(self, settings: RouterSettings) -> None:
        self.settings = settings
        self._votes: dict[tuple[str, ...], Tensor] = {}

    def select(self, x: Tensor, bank: AdapterBank, view: TokenView) -> None:
        self.add(bank.names, prompt_votes(x, bank, view, self.settings))

    def add(self, names: Sequence[str], votes: Float[Tensor, "rows adapters"]) -> None:
        """Counts the votes of one layer, in the order of the names of its adapters."""
        key = tuple(names)
        self._votes[key] = self._votes[key] + votes if key in self._votes else votes

    def winners(self) -> list[str]:
        """Return the adapter of each row; where several have as many votes, the first of them.

        First is who comes first in the layer that voted first.
        """
        if not self._votes:  # in a batch without tokens
            return []
        every = list(dict.fromkeys(name for names in self._votes for name in names))
        position = {name: i for i, name in enumerate(every)}
        first = next(iter(self._votes.values()))
        total = first.new_zeros(len(first), len(every))
        for names, votes in self._votes.items():
            total[:, [position[name] for name in names]] += votes
        return [every[i] for i in top_scored(total, 1).squeeze(1).tolist()]


def selector_for(settings: RouterSettings) -> Selector | None:
    """Return the selector that settings describe.

    It is None at the levels "model" and "last", which take a vote first.
    """
    if settings.router == "oracle":
        return Oracle()
    if settings.level == "token":
        return PerToken(settings)
    if settings.level == "prompt":
        return PerPrompt(settings)
    return PerSentence(settings) if settings.level == "sentence" else None


def prompt_votes(
    x: Float[Tensor, "tokens in"], bank: AdapterBank, view: TokenView, settings: RouterSettings
) -> Float[Tensor, "rows adapters"]:
    """Return the weight that the tokens of each row's prompt give to each adapter of a bank.

    At the level "last" those of the last token of each prompt.
    """
    selection = select(x, bank, settings)
    voting = view.in_prompt
    if settings.level == "last":
        voting = voting & (_last_of_prompt(view) == torch.arange(len(x), device=x.device))
    return tally(selection, view.rows, len(view.real), voting, len(bank.names))


def _last_of_prompt(view: TokenView) -> Int[Tensor, " tokens"]:
    """Return for each token the place of the last one of its row's prompt; 0 without a prompt."""
    places = torch.arange(len(view.rows), device=view.rows.device)
    last = places.new_zeros(len(view.real)).scatter_reduce_(
        0, view.rows, torch.where(view.in_prompt, places, 0), "amax"
    )
    return last[view.rows]


def _per_row(x: Tensor, view: TokenView, chosen: Int[Tensor, " rows"]) -> Selection:
    """Select one adapter for each row, by its position in the bank; -1 for none."""
    own = chosen[view.rows].unsqueeze(1)
    return Selection(own.clamp(min=0), (own >= 0).to(x.dtype))
