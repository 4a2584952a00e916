"""What stands before every request: key, size of the body, time, and the count of answers."""

import asyncio
import hmac
import time
from collections.abc import Collection
from importlib.resources import files
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polylect.programs.serve.limits import Limits, Refusal
from polylect.programs.serve.metrics import Metrics

_FOLDER = files("polylect.programs.serve").joinpath("page")
PAGE = {f"/{file.name}".removesuffix("index.html"): file for file in _FOLDER.iterdir()}
"""The files of the page, by path."""
OPEN_PATHS = frozenset({*PAGE, "/health", "/ready"})
"""What needs no key: the page, which asks for it, and what tells whether the server is well."""


class _Gone(Exception):
    """The client went away while it sent."""


class Guard:
    """Refuses requests without a key (401) and with bodies too large (413) or too slow (408).

    The body is read whole before the application sees the request.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, metrics: Metrics, keys: Collection[str] = ()
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 499  # nobody was there for an answer

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, counted)
        except _Gone:
            pass
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - begin)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_key(scope)
            body = await self._body(scope, receive)
        except Refusal as refusal:
            await refusal_response(refusal)(scope, receive, send)
            return
        await self._app(scope, _given(body, receive), send)

    def _check_key(self, scope: Scope) -> None:
        if not self._keys or scope["path"] in OPEN_PATHS:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        given = given[7:] if given[:7].lower() == b"bearer " else given
        if not any([hmac.compare_digest(given, key) for key in self._keys]):
            raise Refusal(401, "this server wants an API key: send Authorization: Bearer KEY.")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        is_upload = scope["method"] == "PUT"  # of an adapter
        most = max(self._limits.max_bytes, self._limits.max_upload if is_upload else 0)
        how = "" if is_upload else ": send fewer texts at once"
        too_large = Refusal(413, f"the body has more than {most} bytes{how}.")
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most:
            raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._limits.timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise too_large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            sentence = f"the body took more than {self._limits.timeout:g} seconds to arrive."
            raise Refusal(408, sentence) from None


def _given(body: bytes, receive: Receive) -> Receive:
    """What gives the body that was read, and then what comes after it."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def mistake(status: int, sentence: str) -> dict[str, Any]:
    """Return the body of a refusal, as clients of OpenAI read it."""
    kinds = {401: "authentication_error", 429: "rate_limit_error", 404: "not_found_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": sentence, "type": kind, "code": None}}


def refusal_response(refusal: Refusal) -> JSONResponse:
    """Return the answer to a request that is refused."""
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(mistake(refusal.status, str(refusal)), refusal.status, headers)
