"""An OpenAI-compatible server, held to golden outputs: `POST …/completions`, nothing else."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

from polylect.config.roots import ConfigError
from polylect.data.text import one_line
from polylect.run.passport.file import GoldenOutput, Passport
from polylect.run.verify.check import Check, not_checked
from polylect.run.verify.outputs import compare_outputs

_LARGEST = 2**22  # bytes of an answer
_SECONDS = 120


class Endpoint:
    """A server of completions; one of polylect's own is sent the sources, which it translates.

    Args:
        url: with or without /v1 at its end.
        prompts: whether prompts are sent as token "ids", which no server can take otherwise than
            they are meant, or as "text", to which it adds a begin token or not.
        key: that it wants, if any.

    Raises:
        ConfigError: it is no http or https address.
    """

    def __init__(self, url: str, prompts: str = "ids", key: str | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"target={url} is no address: give one as http://HOST:PORT/v1.")
        self.url = url.rstrip("/")
        if not self.url.endswith("/v1"):
            self.url += "/v1"
        self._prompts = prompts
        self._is_polylect = False
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    def models(self) -> list[str]:
        """Return the names of the models that it serves; raises RuntimeError if it does not say."""
        answer = self._ask("models", None)
        try:
            models = answer["data"]
            self._is_polylect = any(model.get("owned_by") == "polylect" for model in models)
            return [str(model["id"]) for model in models]
        except (KeyError, TypeError, AttributeError) as error:
            raise RuntimeError(f"{self.url}/models answers no list of models.") from error

    def complete(self, model: str, output: GoldenOutput, passport: Passport) -> str:
        """Return what a model makes of a golden prompt, greedily; raises RuntimeError if nothing.

        No more tokens are asked for than there were, and one for the end. A server of polylect's
        decodes with its own settings: of a golden output that was cut, its beginning counts.
        """
        question: dict[str, Any] = {"model": model}
        if self._is_polylect:
            question |= {"prompt": output.source, "direction": output.direction}
        else:
            prompt = list(output.prompt) if self._prompts == "ids" else output.prompt_text
            most = max(output.tokens + (not output.capped), 1)
            question |= {"prompt": prompt, "max_tokens": most, "temperature": 0}
        answer = self._ask("completions", question)
        try:
            text = one_line(str(answer["choices"][0]["text"]))
        except (KeyError, IndexError, TypeError) as error:
            raise RuntimeError(f"{self.url}/completions answers no text.") from error
        beginning = output.text.rstrip("\ufffd")  # a character that was cut
        is_longer = self._is_polylect and output.capped and text.startswith(beginning)
        return output.text if is_longer else text

    def _ask(self, path: str, question: dict[str, Any] | None) -> Any:
        url = f"{self.url}/{path}"
        content = None if question is None else json.dumps(question).encode("utf-8")
        request = urllib.request.Request(url, content, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
                text = answer.read(_LARGEST + 1)
        except urllib.error.HTTPError as error:
            said = error.read(300).decode("utf-8", "replace").strip()
            raise RuntimeError(f"{url} answers {error.code}: {' '.join(said.split())}") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise RuntimeError(f"{url} does not answer ({reason}): is the server up?") from error
        if len(text) > _LARGEST:
            raise RuntimeError(f"{url} answers more than {_LARGEST} bytes.")
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RuntimeError(f"{url} answers something else than JSON.") from error


def check_endpoint(
    endpoint: Endpoint, passport: Passport, name: str | None, adapter: str | None
) -> list[Check]:
    """Hold a server to the golden outputs of a passport.

    Args:
        name: of the model for all directions; None takes the one that is named as the direction,
            or as the adapter, or the only one.
        adapter: name of the adapter whose passport it is, if it is one's.
    """
    models = endpoint.models()
    named = {
        direction: name or _model_of(direction, adapter, models)
        for direction in dict.fromkeys(output.direction for output in passport.golden)
    }
    absent = sorted({str(m or d) for d, m in named.items() if m not in models})
    faults = [f"{endpoint.url} serves no model {m}: it has {', '.join(models)}." for m in absent]
    served = Check("the models are served", f"{len(models)} models by name", tuple(faults))
    unseen = not_checked(
        "weights, tokenizer and template", "a server shows none of them: verify its folder as well"
    )
    golden = [output for output in passport.golden if named[output.direction] in models]

    def again(output: GoldenOutput) -> tuple[str, None, None]:
        return endpoint.complete(str(named[output.direction]), output, passport), None, None

    return [served, compare_outputs(golden, again, "the server"), unseen]


def _model_of(direction: str, adapter: str | None, models: Sequence[str]) -> str | None:
    for name in (direction, adapter):
        if name in models:
            return name
    return models[0] if len(models) == 1 else None
