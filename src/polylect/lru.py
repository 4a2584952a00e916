"""A cache with a budget of bytes, which drops what was used longest ago."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteBudgetLRU(Generic[Key, Value]):
    """Adapters, or factors of them, by key: those used longest ago are let go first.

    Args:
        budget_bytes: what all values may take together.

    Attributes:
        loads, hits, evictions: how often a value was added, was there already, was let go to make
            room.
        bytes: of the values held.
    """

    def __init__(self, budget_bytes: int) -> None:
        if budget_bytes < 1:
            raise ValueError(f"the byte budget for adapters must be positive, got {budget_bytes}")
        self.budget_bytes = budget_bytes
        self.loads = self.hits = self.evictions = self.bytes = 0
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[Key]:
        """The keys, the one used longest ago first."""
        return iter(self._entries)

    def __getitem__(self, key: Key) -> Value:
        return self._entries[key][0]

    def held_bytes(self, key: Key) -> int:
        """Return the bytes of a value that is held."""
        return self._entries[key][1]

    def touch(self, key: Key) -> None:
        """Counts a hit: the value is now the one used last."""
        self._entries.move_to_end(key)
        self.hits += 1

    def add(self, key: Key, value: Value, nbytes: int) -> None:
        """Holds a value, for which `make_room` has made room."""
        self._entries[key] = value, nbytes
        self.bytes += nbytes
        self.loads += 1

    def remove(self, key: Key) -> None:
        """Lets go of a value."""
        value, nbytes = self._entries.pop(key)
        self.bytes -= nbytes
        self.on_release(key, value)

    def on_release(self, key: Key, value: Value) -> None:
        """Do what the loss of a value asks for; nothing by default."""

    def make_room(self, nbytes: int, stay: Collection[Key] = ()) -> None:
        """Lets go of values, those in `stay` apart, until so many bytes more fit.

        Raises:
            ValueError: they do not fit beside those that stay.
        """
        while self.bytes + nbytes > self.budget_bytes:
            key = next((key for key in self._entries if key not in stay), None)
            if key is None:
                raise ValueError(
                    f"the budget of {self.budget_bytes} bytes has no room for an adapter of "
                    f"{nbytes}: raise it, or ask again if the adapter was replaced meanwhile"
                )
            self.remove(key)
            self.evictions += 1

    def get(self, keys: Sequence[Key], nbytes: int, load: Callable[[Key], Value]) -> list[Value]:
        """Return the values of all keys, each of `nbytes`; those that are not held are loaded.

        Raises:
            ValueError: together they are larger than the budget.
        """
        if len(keys) * nbytes > self.budget_bytes:
            raise ValueError(
                f"a layer needs {len(keys)} adapters of {nbytes} bytes at once, the budget is "
                f"{self.budget_bytes}: raise it or translate fewer rows together"
            )
        for key in keys:
            if key in self._entries:
                self.touch(key)
        for key in keys:  # those just used are the youngest and fit, so that none of them goes
            if key not in self._entries:
                self.make_room(nbytes)
                self.add(key, load(key), nbytes)
        return [self[key] for key in keys]
