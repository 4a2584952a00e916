"""The running server that is to load a new adapter."""

import json
import urllib.error
import urllib.request
from collections.abc import Collection, Mapping
from typing import Any

from polylect.config.roots import ConfigError
from polylect.files import read_keys
from polylect.library import AdapterLibrary
from polylect.programs.add_language.stages import verify_server

_SECONDS = 120


class Server:
    """A `polylect serve`, asked over HTTP.

    Args:
        url: its address, with or without /v1 at its end.
        key_file: file whose first key is one that it takes.

    Raises:
        ConfigError: no address, or no key in the file.
    """

    def __init__(self, url: str, key_file: str | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"server={url} is no address: give one as http://HOST:PORT.")
        self.url = url.rstrip("/").removesuffix("/v1")
        self._key_file = key_file
        self._headers = {"Content-Type": "application/json"}
        if key_file is not None:
            self._headers["Authorization"] = f"Bearer {read_keys(key_file)[0]}"

    def check_free(self, names: Collection[str]) -> None:
        """Raises ConfigError if the server does not answer, or has an adapter of such a name."""
        loaded = {adapter["name"] for adapter in self._ask("GET", "adapters")["adapters"]}
        if taken := sorted(loaded & set(names)):
            raise ConfigError(
                f"server={self.url} has an adapter {taken[0]} already: take it off with curl -X "
                f"DELETE {self.url}/v1/adapters/{taken[0]}, or leave out server=…."
            )

    def load(self, library: AdapterLibrary, names: Collection[str]) -> None:
        """Have adapters loaded, and hold the server to what their passports say.

        Raises:
            ConfigError: it refuses one, or translates otherwise.
        """
        for name in names:
            self._ask("POST", "adapters", {"folder": name, "name": name})
            verify_server(f"{self.url}/v1", library.folder(name), self._key_file)
            print(f"{self.url} serves {name}")

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        url = f"{self.url}/v1/{path}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, content, self._headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode("utf-8", "replace")
            raise ConfigError(
                f"server={self.url} answers {error.code}: {_message(said)}"
            ) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise ConfigError(
                f"server={self.url} does not answer as polylect serve does ({reason}): is it up?"
            ) from error


def _message(text: str) -> str:
    try:
        return json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return " ".join(text.split())[:200]
