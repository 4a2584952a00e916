"""Prompts that show matches of a translation memory, whatever the template."""

from collections.abc import Callable, Sequence
from typing import Any

from polylect.data.prompt import Asked, Template
from polylect.retrieval.memory import Match, Memory


class MemoryTemplate(Template):
    """A template that begins with matches of a memory, the best one next to the sentence.

    Args:
        template: the template without them.
        memory: counts what is shown, and what is dropped.
        room: from the tokens of a prompt without matches to the most that it may have with them.
    """

    def __init__(self, template: Template, memory: Memory, room: Callable[[int], int]) -> None:
        self.bare, self.memory, self._room = template, memory, room

    def encode_many(
        self,
        tokenizer: Any,
        sources: Sequence[str | None],
        directions: Sequence[str],
        shown: Sequence[Sequence[tuple[str, str]]] | None = None,
    ) -> list[list[int]]:
        """`Template.encode_many` with the matches of each source for which there is room.

        Raises as that does, and as `Memory.find` does.
        """
        prompts = self.bare.encode_many(tokenizer, sources, directions, shown)
        rooms = [self._room(len(prompt)) for prompt in prompts]
        matches = [
            self.memory.find(str(source), direction) if "-" in direction else []
            for source, direction in zip(sources, directions, strict=True)
        ]
        rows = [row for row, found in enumerate(matches) if found]
        while rows:
            longer = self.bare.encode_many(
                tokenizer,
                [sources[row] for row in rows],
                [directions[row] for row in rows],
                [[*(shown[row] if shown else ()), *_pairs(matches[row])] for row in rows],
            )
            for row, ids in zip(rows, longer, strict=True):
                if len(ids) <= rooms[row]:
                    prompts[row], matches[row] = ids, []
                else:
                    matches[row].pop()
                    self.memory.counts[directions[row]]["dropped"] += 1
            rows = [row for row in rows if matches[row]]
        return prompts

    def encode_targets(
        self, tokenizer: Any, targets: Sequence[str], directions: Sequence[str | None]
    ) -> list[list[int]]:
        """As those of the template without matches."""
        return self.bare.encode_targets(tokenizer, targets, directions)

    def end_ids(self, tokenizer: Any) -> list[int]:
        """As those of the template without matches."""
        return self.bare.end_ids(tokenizer)

    def _prompts(self, tokenizer: Any, rows: Sequence[Asked]) -> list[list[int]]:
        return self.bare._prompts(tokenizer, rows)


def _pairs(matches: Sequence[Match]) -> list[tuple[str, str]]:
    """The best match last."""
    return [(match.source, match.target) for match in reversed(matches)]


def show_matches(module: Any, memory: Memory) -> None:
    """From now on every prompt of a strategy with a base model shows matches of the memory.

    A prompt never takes the room that its translation would have without them.
    """
    context = getattr(module.backbone.config, "max_position_embeddings", None)

    def room(bare: int) -> int:
        most = memory.max_length
        return most if context is None else min(most, context - module.generation.cap(bare))

    module.template = MemoryTemplate(module.template, memory, room)
