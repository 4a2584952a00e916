"""What requests and answers of our own API look like."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

STRICT = ConfigDict(extra="forbid", strict=True)
NAME_PATTERN = "^[A-Za-z0-9_-]{1,100}$"
"""What adapters may be called."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class TranslationRequest(BaseModel):
    """Texts, each one line, with one setting for all of them or one for each."""

    model_config = STRICT | {
        "json_schema_extra": {
            "examples": [
                {"texts": ["The boy sleeps.", "The boy sleeps."], "direction": ["en-de", "en-hi"]},
                {"texts": ["The boy sleeps."], "target": "fr", "stream": True},
            ]
        }
    }

    texts: list[str] = Field(min_length=1)
    direction: Name | list[Name | None] | None = Field(
        None, description="As en-de. Without it that of the target, or the adapter's only one."
    )
    target: Name | list[Name | None] | None = Field(
        None, description="Language to translate into, from the one that is detected."
    )
    adapter: str | list[str | None] | None = Field(
        None, description='Without it the one that serves the direction; "" is the base alone.'
    )
    stream: bool = Field(False, description="Send server-sent events as the texts grow.")
    usage: bool = Field(
        False, description="Tell which adapters or experts wrote each token; reads all once more."
    )


class TokenUsage(BaseModel):
    """Who wrote a translation, token by token."""

    names: list[str] = Field(description="Adapters, experts, or kinds of neurons.")
    tokens: list[str] = Field(description="Pieces that put together are the text.")
    shares: list[list[float]] = Field(
        description="For each token those of the names: the mean over the model's layers."
    )


class TranslationAnswer(BaseModel):
    """A translation that is whole."""

    text: str
    direction: str
    adapter: str | None = Field(description="Null where adapters are not named.")
    source_tokens: int
    tokens: int
    capped: bool = Field(description="Whether it ran into the length cap.")
    usage: TokenUsage | None = Field(
        None, description="Where it was asked for; null where all tokens use all weights."
    )


class TranslationAnswers(BaseModel):
    """Translations in the order of the texts."""

    translations: list[TranslationAnswer]


class AdapterRequest(BaseModel):
    """An adapter to load: a folder within the server's folder of adapters."""

    model_config = STRICT

    folder: Name
    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] | None = Field(
        None, description="The folder's by default."
    )
    directions: list[Name] | None = Field(
        None, description="That it serves, in place of what its files say."
    )


class AdapterAnswer(BaseModel):
    """An adapter that can be used."""

    name: str
    directions: list[str]
    resident: bool = Field(description="Whether it is in memory; if not, it is read when needed.")


class AdapterAnswers(BaseModel):
    """All adapters, by name."""

    adapters: list[AdapterAnswer]


class Directions(BaseModel):
    """What is served."""

    name: str = Field(description="Of the run, or of the base model.")
    strategy: str
    beside: bool = Field(description="Whether another run is served, under /beside.")
    directions: list[str] = Field(description="Empty where the strategy takes any.")
    languages: dict[str, str] = Field(description="English names of the codes in them.")


class State(BaseModel):
    """How the server is."""

    status: str


class Mistake(BaseModel):
    """What is wrong, in one sentence."""

    message: str
    type: str
    code: str | None = None


class MistakeAnswer(BaseModel):
    """The answer to a request that is refused, as OpenAI has it."""

    error: Mistake


EVENTS = {"text/event-stream": {"schema": {"type": "object", "required": ["data"]}}}
"""Content of an answer that is streamed, event by event."""

_MEANINGS = {
    401: "No API key, or not one that this server knows.",
    403: "A folder outside the server's folder of adapters.",
    404: "There is no such adapter or model.",
    408: "The body took too long to arrive.",
    409: "The name is taken.",
    413: "More bytes or texts than this server takes at once.",
    422: "The request cannot be answered as it is; the sentence says what is wrong.",
    429: "Too many texts wait already: try again.",
    507: "There is no room to store it.",
    503: "The server stops, or the request took too long.",
}


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the refusals that a route may answer with, for its description."""
    always = (401, 408, 413, 422, 503)
    return {
        code: {"model": MistakeAnswer, "description": _MEANINGS[code]}
        for code in sorted({*always, *codes})
    }


_NAMES = "a name, or a list with one or null for each text"
_FORMS = {
    "adapter": _NAMES,
    "content": "a text, or a list of parts of the type text",
    "direction": _NAMES,
    "prompt": "a text, or a list of texts; token ids are not read",
    "stop": "a text, or a list of texts",
    "target": _NAMES,
}
"""What fields of several forms must be."""


def sentence_of(wrong: Mapping[str, Any]) -> str:
    """Return what is wrong with a body as a clause, from an error of pydantic's."""
    place, kind = wrong["loc"][1:], wrong["type"]
    if kind == "json_invalid":
        return f"the body is no JSON: {wrong['ctx']['error']} at character {place[0] + 1}"
    if not place:
        return "the body must be a JSON object, sent with Content-Type: application/json"
    for end, name in enumerate(place[:-1], 1):  # behind its name stands which form was tried
        if name in _FORMS and kind not in ("missing", "extra_forbidden"):
            return f"{'.'.join(map(str, place[:end]))} must be {_FORMS[name]}"
    return f"{'.'.join(map(str, place))}: {wrong['msg']}"
