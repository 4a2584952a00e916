"""A translation, and who is told of it while it is decoded."""

from collections.abc import Callable
from dataclasses import dataclass

from polylect.data.batch import Example


@dataclass(frozen=True)
class Translation:
    """One hypothesis.

    Attributes:
        text: one line.
        tokens: number of its tokens, without the end token.
        capped: whether it ran into the length cap.
        too_long: whether the prompt left no room in the model's context, and there is no text.
    """

    text: str
    tokens: int
    capped: bool
    too_long: bool = False


Accept = Callable[[Example], bool]
"""Is asked for one prompt after the other whether it may join; those that may are to be given."""


@dataclass(frozen=True)
class Watch:
    """Who is told what becomes of prompts, by their numbers, and may add to them.

    None of it is called in beam search but `end`.

    Attributes:
        token: of each token but for those that end a translation, within the route of the batch;
            where it returns True, that translation ends there.
        end: of each translation when it leaves its batch, which may go on with others; likewise.
        waits: whether prompts wait that `join` would give.
        join: is asked for prompts that join the batch, with their numbers, outside of a route.
    """

    token: Callable[[int, int], bool] | None = None
    end: Callable[[int, Translation], None] | None = None
    waits: Callable[[], bool] = lambda: False
    join: Callable[[Accept], list[tuple[int, Example]]] = lambda _: []

    def by_place(self, numbers: list[int]) -> "Watch":
        """Return one that takes a prompt's place among these numbers for its number.

        Numbers of prompts that join are appended.
        """
        token, end = self.token, self.end

        def join(accept: Accept) -> list[tuple[int, Example]]:
            joining = self.join(accept)
            begin = len(numbers)
            numbers.extend(number for number, _ in joining)
            return [(begin + place, prompt) for place, (_, prompt) in enumerate(joining)]

        return Watch(
            token and (lambda place, newest: token(numbers[place], newest)),
            end and (lambda place, translation: end(numbers[place], translation)),
            self.waits,
            join,
        )


UNWATCHED = Watch()
