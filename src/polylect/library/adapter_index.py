"""Adapter folders from anywhere, by name, and which of them serves a direction."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polylect.data.languages import split_direction
from polylect.did_you_mean import did_you_mean
from polylect.library import AdapterLibrary
from polylect.library.folder import CONFIG


class AdapterIndex(AdapterLibrary):
    """Adapter folders from anywhere, by name, and which of them serves a direction.

    Of several adapters that serve one direction the one that came first has it, and those that
    came together, as the adapters of a library, have to be told apart.

    Args:
        pinned: from direction to the adapter that serves it whatever others do.
    """

    def __init__(self, pinned: Mapping[str, str] | None = None) -> None:
        super().__init__(Path())
        self._pinned = dict(pinned or {})
        self._folders: dict[str, Path] = {}  # in the order of their coming
        self._arrival: dict[str, int] = {}
        self._directions_given: dict[
            str, tuple[str, ...]
        ] = {}  # what the caller said that they serve
        self._directions: dict[str, tuple[str, ...]] = {}
        self._serving: dict[str, list[str]] = {}

    @property
    def names(self) -> list[str]:
        return sorted(self._folders)

    def add_folders(
        self, folders: Mapping[str, Path], directions: Sequence[str] | None = None
    ) -> None:
        """Takes adapters that come together, by name.

        Args:
            directions: that they serve, in place of what their files say.

        Raises:
            FileNotFoundError: a folder is no adapter.
            ValueError: a name is taken, or a file says nonsense.
        """
        for name, folder in folders.items():
            if not (folder / CONFIG).is_file():
                raise FileNotFoundError(f"{folder} is not a PEFT adapter: it lacks {CONFIG}.")
            if name in self._folders:
                raise ValueError(f"an adapter named {name!r} is there already: give another name.")
        arrival = max(self._arrival.values(), default=0) + 1
        try:
            for name, folder in folders.items():
                self._folders[name], self._arrival[name] = folder.absolute(), arrival
                if directions:
                    self._directions_given[name] = tuple(directions)
                self._directions[name] = self._read(name)
        except ValueError:
            self._forget(folders)
            raise
        self._index()

    def drop(self, name: str) -> None:
        """Takes an adapter off; raises ValueError with the nearest name if there is none."""
        self.folder(name)
        self._forget([name])
        self._index()

    def directions_of(self, name: str) -> tuple[str, ...]:
        """Return the directions that an adapter serves; raises ValueError with the nearest name."""
        self.folder(name)
        return self._directions[name]

    def update(self, name: str, about: Mapping[str, Any]) -> None:
        """Take the directions of an adapter whose files were read again."""
        directions = self._read(name, about)
        if directions != self._directions[name]:
            self._directions[name] = directions
            self._index()

    def adapter_for(self, direction: str) -> str | None:
        """Return the adapter that serves a direction; None if none does.

        Raises:
            ValueError: several do.
        """
        names = self._serving.get(direction, [])
        if len(names) > 1:
            raise ValueError(
                f"direction {direction} is served by {' and by '.join(names)}: name one with "
                f"adapter={names[0]}, or strategy.adapters={{{names[0]}: [{direction}]}}."
            )
        return names[0] if names else None

    def require_adapter(self, direction: str) -> str:
        """Do as `adapter_for`, but raise ValueError with the nearest direction if there is none."""
        if direction not in self._serving:
            for name in self._folders:
                if self.version(name) is not None:
                    self.update(name, self.about(name))
        adapter = self.adapter_for(direction)
        if adapter is None:
            hint = did_you_mean(direction, self._serving)
            raise ValueError(f"no adapter serves direction {direction}; {hint}")
        return adapter

    def _read(self, name: str, about: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Return the directions in an adapter's file, or the one in its or its folder's name."""
        if name in self._directions_given:
            return self._directions_given[name]
        about = self.about(name) if about is None else about
        folder = self._folders[name].name
        named = name if _is_direction(name) or not _is_direction(folder) else folder
        return tuple(about.get("directions", [named]))

    def _index(self) -> None:
        by_direction: dict[str, list[str]] = {}
        for name in self._folders:
            for direction in self._directions[name]:
                names = by_direction.setdefault(direction, [])
                if not names or self._arrival[names[0]] == self._arrival[name]:
                    names.append(name)
        pinned = {d: [name] for d, name in self._pinned.items() if name in self._folders}
        self._serving = by_direction | pinned

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            for by_name in (self._folders, self._arrival, self._directions_given, self._directions):
                by_name.pop(name, None)

    def _place(self, name: str) -> Path:
        return self._folders[name]

    def folder(self, name: str) -> Path:
        if name not in self._folders:
            raise ValueError(f"no adapter is named {name!r}; {did_you_mean(name, self._folders)}")
        return self._folders[name]


def _is_direction(word: str) -> bool:
    try:
        return split_direction(word)[0] is not None
    except ValueError:
        return False


def adapters_by_direction(
    adapters: Mapping[str, Sequence[str]], known: Sequence[str]
) -> dict[str, str]:
    """Return the setting `strategy.adapters`, from adapter to directions, as direction to adapter.

    Raises ValueError for an adapter that is not known, and a direction that two are to serve.
    """
    adapter_of: dict[str, str] = {}
    for name, directions in adapters.items():
        if name not in known:
            raise ValueError(
                f"strategy.adapters names {name}, which is not in the library; "
                f"{did_you_mean(name, known)}"
            )
        if isinstance(directions, str):
            raise ValueError(f"strategy.adapters.{name} must be a list, such as [{directions}].")
        for direction in directions:
            if direction in adapter_of:
                raise ValueError(
                    f"strategy.adapters gives direction {direction} to two adapters, "
                    f"{adapter_of[direction]} and {name}."
                )
            adapter_of[direction] = name
    return adapter_of
