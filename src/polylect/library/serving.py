"""Maps a direction to the adapter of a library that serves it."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from polylect.did_you_mean import did_you_mean
from polylect.library.adapter_index import adapters_by_direction
from polylect.library.folder import AdapterLibrary


class Serving:
    """From direction to the one adapter of a library that serves it.

    An adapter serves the directions that its files name, or else the one it is named for. Its own
    name stands for it too, unless that is a direction which others serve.

    Args:
        library: the adapters.
        adapters: the setting `strategy.adapters`, from adapter to the directions that it shall
            serve whatever the files say; adapters of other libraries do not matter.

    Raises:
        ValueError: two adapters of the library shall serve one direction.

    Attributes:
        adapter: by direction.
        contested: by direction the adapters, where several would serve it and none is chosen.
    """

    def __init__(self, library: AdapterLibrary, adapters: Mapping[str, Sequence[str]]) -> None:
        self._library, self._names = library, frozenset(library.names)
        claims: dict[str, list[str]] = {}
        for name in library.names:
            for direction in library.about(name).get("directions", [name]):
                claims.setdefault(direction, []).append(name)
        own = {name: served for name, served in adapters.items() if name in self._names}
        pinned = adapters_by_direction(own, library.names)
        claims |= {direction: [name] for direction, name in pinned.items()}
        self.contested = {d: names for d, names in claims.items() if len(names) > 1}
        self.adapter = {name: name for name in library.names if name not in claims}
        self.adapter |= {d: names[0] for d, names in claims.items() if len(names) == 1}

    def check_known(self, name: str, direction: str) -> None:
        """Raises ValueError, with the nearest, if a direction asks for an adapter not there."""
        if name not in self._names:
            raise ValueError(
                f"{self._library.path} has no adapter {name}, which {direction} asks for; "
                f"{did_you_mean(name, self._names)}"
            )

    def check_uncontested(self, directions: Iterable[str]) -> None:
        """Raises ValueError for a direction that several adapters would serve."""
        for direction in directions:
            if names := self.contested.get(direction):
                raise ValueError(
                    f"direction {direction} is served by {' and by '.join(names)} of "
                    f"{self._library.path}: choose one with "
                    f"strategy.adapters={{{names[0]}: [{direction}]}}."
                )

    def assign(self, direction: str, name: str | None) -> None:
        """Let this adapter serve a direction; with None it stays with the one it had."""
        self.contested.pop(direction, None)
        if name is not None:
            self.adapter[direction] = name


def check_served(libraries: Collection[Serving], directions: Sequence[str]) -> None:
    """Raises ValueError for a direction that no adapter of the libraries serves, or several do."""
    for serving in libraries:
        serving.check_uncontested(directions)
    served = {direction for serving in libraries for direction in serving.adapter}
    for direction in directions:
        if "-" in direction and direction not in served:
            raise ValueError(
                f"no adapter serves direction {direction}; {did_you_mean(direction, served)}"
            )


def check_adapters_setting(
    adapters: Mapping[str, Sequence[str]], libraries: Iterable[AdapterLibrary]
) -> None:
    """Raises ValueError where `strategy.adapters` names an adapter that is in no library."""
    known_names = [name for library in libraries for name in library.names]
    for name in adapters:
        if name not in known_names:
            raise ValueError(
                f"strategy.adapters names {name}, which is in no library; "
                f"{did_you_mean(name, known_names)}"
            )
