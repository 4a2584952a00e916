"""Prompts that show matches of a translation memory, whatever the template; in training as well.

A model that was trained on other prompts alone is lost in such ones: on the quick start chrF++
falls from 92 to 20, and two lines of three are empty. So that is refused.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from polylect.data.prompt import PromptRow, Template
from polylect.models.context import context_of
from polylect.retrieval.memory import Match, Memory
from polylect.retrieval.shots import Shots

_LOOKED_AT = 200
"""Training sentences of each direction that must find something before training begins."""


class MemoryTemplate(Template):
    """A template that begins with matches of a memory, the best one next to the sentence.

    Args:
        template: the template without them.
        memory: or fixed examples; counts what is shown, and what is dropped.
        room: from the tokens of a prompt without matches to the most that it may have with them.
        most: tokens of a prompt with matches and its target, in training.
        check: called with each direction whose prompts are to show matches; may raise.
    """

    def __init__(
        self,
        template: Template,
        memory: Memory | Shots,
        room: Callable[[int], int | float] = lambda prompt: math.inf,
        most: int | float = math.inf,
        check: Callable[[str], None] = lambda direction: None,
    ) -> None:
        self.inner, self.memory = template, memory
        self._prompt_room, self._max_tokens, self._check = room, most, check

    def encode_many(
        self,
        tokenizer: Any,
        sources: Sequence[str | None],
        directions: Sequence[str],
        shots: Sequence[Sequence[tuple[str, str]]] | None = None,
    ) -> list[list[int]]:
        """Do `Template.encode_many` with the matches of each source for which there is room.

        Raises as that does, as `Memory.find` does, and ValueError for directions that must not be
        shown any.
        """
        for direction in dict.fromkeys(d for d in directions if "-" in d):
            self._check(direction)
        prompts = self.inner.encode_many(tokenizer, sources, directions, shots)
        rooms = [self._prompt_room(len(prompt)) for prompt in prompts]
        return self._with_matches(tokenizer, sources, directions, prompts, rooms, shots)

    def encode_pairs(
        self,
        tokenizer: Any,
        sources: Sequence[str | None],
        targets: Sequence[str],
        directions: Sequence[str],
    ) -> list[tuple[list[int], list[int]]]:
        """Do `Template.encode_pairs` with the matches for which there is room beside the target."""
        pairs = self.inner.encode_pairs(tokenizer, sources, targets, directions)
        prompts, rooms = (
            [prompt for prompt, _ in pairs],
            [self._max_tokens - len(ids) for _, ids in pairs],
        )
        prompts = self._with_matches(tokenizer, sources, directions, prompts, rooms)
        return [(prompt, ids) for prompt, (_, ids) in zip(prompts, pairs, strict=True)]

    def _with_matches(
        self,
        tokenizer: Any,
        sources: Sequence[str | None],
        directions: Sequence[str],
        without: Sequence[list[int]],
        rooms: Sequence[int | float],
        shots: Sequence[Sequence[tuple[str, str]]] | None = None,
    ) -> list[list[int]]:
        """Return the prompts, lengthened by as many matches as each has room for."""
        prompts = list(without)
        matches = [
            self.memory.find(str(source), direction) if "-" in direction else []
            for source, direction in zip(sources, directions, strict=True)
        ]
        rows = [row for row, matched in enumerate(matches) if matched]
        while rows:
            longer = self.inner.encode_many(
                tokenizer,
                [sources[row] for row in rows],
                [directions[row] for row in rows],
                [[*(shots[row] if shots else ()), *_pairs(matches[row])] for row in rows],
            )
            for row, ids in zip(rows, longer, strict=True):
                if len(ids) <= min(rooms[row], self.memory.max_length):
                    prompts[row], matches[row] = ids, []
                else:
                    matches[row].pop()
                    self.memory.count(directions[row], {"dropped": 1})
            rows = [row for row in rows if matches[row]]
        return prompts

    def encode_targets(
        self, tokenizer: Any, targets: Sequence[str], directions: Sequence[str | None]
    ) -> list[list[int]]:
        """Return the same as the template without matches."""
        return self.inner.encode_targets(tokenizer, targets, directions)

    def end_ids(self, tokenizer: Any) -> list[int]:
        """Return the same as the template without matches."""
        return self.inner.end_ids(tokenizer)

    def stop_ids(self, tokenizer: Any) -> list[int]:
        """Return the same as the template without matches."""
        return self.inner.stop_ids(tokenizer)

    def _prompts(self, tokenizer: Any, rows: Sequence[PromptRow]) -> list[list[int]]:
        return self.inner._prompts(tokenizer, rows)


def _pairs(matches: Sequence[Match]) -> list[tuple[str, str]]:
    """Return the pairs of the matches, the best match last."""
    return [(match.source, match.target) for match in reversed(matches)]


def show_matches(module: Any, memory: Memory | Shots) -> None:
    """Let every prompt of a strategy with a base model show matches of the memory.

    A prompt never takes the room that its translation would have without them. Prompts of a
    direction that was trained without examples raise ValueError, unless `memory.untrained`.
    """
    context = context_of(module.backbone.config).length

    def check(direction: str) -> None:
        if not (memory.untrained or module.reads_examples(direction)):
            raise ValueError(
                f"{direction} was trained on prompts without examples, and they would make its "
                "translations much worse, or empty: train with memory.corpus=train, or set "
                "memory.untrained=true to show them all the same."
            )

    def room(prompt: int) -> int | float:
        return context - module.generation.cap(prompt)

    module.template = MemoryTemplate(module.template, memory, room, check=check)


def teach_matches(data: Any, memory: Memory) -> None:
    """Let training examples of the data show matches of the memory, as far as they fit.

    Those of the validation loss do, too; what is asked for translations does not. Reads the
    training corpora. Raises ValueError where the first sentences find no match, or none for which
    there is room: a model would be taken to have learnt from examples, and has not. And where
    tokens come from a cache, which has prompts without matches.
    """
    if data.cache is not None:
        raise ValueError("data.cache has prompts without matches: leave it or memory.corpus out")
    data.lessons = MemoryTemplate(data.template, memory, most=data.max_length)
    data.setup("fit")
    for direction in (d for d in data.directions if "-" in d):
        data.examples(direction, "train", _LOOKED_AT)
    counts = sum(memory.counts.values(), Counter())
    memory.counts.clear()
    if not counts["matched"]:
        raise ValueError(
            f"memory: of the first training sentences, {counts['sentences']} in all, none is like "
            f"any in the memory at memory.threshold={memory.threshold}: lower it, or give another "
            "memory.corpus."
        )
    if counts["dropped"] == counts["matches"]:
        raise ValueError(
            f"memory: of the first training sentences, {counts['matched']} have matches, and none "
            f"has room for one within data.max_length={data.max_length} and "
            f"memory.max_length={memory.max_length} tokens: raise them."
        )
