"""The application: routes, what refuses, and the engine that runs as long as it does."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from polylect import __version__
from polylect.programs.serve.answering import refusal_of
from polylect.programs.serve.api.adapters import adapter_routes
from polylect.programs.serve.api.documents import document_routes
from polylect.programs.serve.api.native import native_routes
from polylect.programs.serve.api.openai import openai_routes
from polylect.programs.serve.api.schemas import State, refusals, sentence_of
from polylect.programs.serve.engine import Engine
from polylect.programs.serve.guard import PAGE, Guard, mistake, refusal_response
from polylect.programs.serve.limits import Limits, Refusal
from polylect.programs.serve.metrics import Metrics
from polylect.translator import Translator

_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def create_app(
    translator: Translator,
    limits: Limits | None = None,
    *,
    keys: Collection[str] = (),
    adapters: Path | None = None,
    hosts: Collection[str] = LOOPBACK,
    logs_texts: bool = False,
    name: str = "",
    beside: FastAPI | None = None,
) -> FastAPI:
    """Return an ASGI application that serves a translator.

    Args:
        keys: of which requests must send one; none for no key.
        adapters: folder from which adapters may be loaded at run time; None for none.
        hosts: names by which clients may call the server. A page elsewhere, whose name was made to
            point here, calls it by another one; ("*",) takes any.
        logs_texts: whether texts and translations go to the log.
        name: of what is served, for people.
        beside: an application for comparison, which is found under /beside.
    """
    metrics = Metrics()
    engine = Engine(translator, limits or Limits(), metrics, logs_texts)
    metrics.watch(translator.module, engine.queued)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if beside is not None:  # which Starlette does not start by itself
                await stack.enter_async_context(beside.router.lifespan_context(beside))
            engine.start()
            yield
            await asyncio.to_thread(engine.stop)

    app = FastAPI(
        title="polylect",
        version=__version__,
        description="Translations in many directions from one base model.",
        docs_url=None,  # these pages load what they need from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        dependencies=[Depends(HTTPBearer(auto_error=False))] if keys else [],
    )
    app.state.engine = engine
    app.include_router(native_routes(engine, name, beside is not None))
    app.include_router(adapter_routes(engine, adapters))
    app.include_router(document_routes(engine))
    app.include_router(openai_routes(engine))
    app.include_router(_state_routes(engine, metrics))
    _add_page(app)
    if beside is not None:
        app.mount("/beside", beside)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    for kind in (Refusal, ValueError, FileNotFoundError, Exception):
        app.add_exception_handler(kind, _failed)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(Guard, limits=engine.limits, metrics=metrics, keys=keys)
    return app


def _state_routes(engine: Engine, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["state"])
    down: dict[int | str, dict[str, Any]] = {503: {"model": State}}

    @router.get("/health", responses=down)
    async def health(response: Response) -> State:
        """Whether the server works; if not, it has to be started again."""
        response.status_code = 200 if engine.is_alive else 503
        return State(status="ok" if engine.is_alive else "dead")

    @router.get("/ready", responses=down)
    async def ready(response: Response) -> State:
        """Whether it takes requests."""
        response.status_code = 200 if engine.takes_requests else 503
        return State(status="ready" if engine.takes_requests else "stopping")

    for path, endpoint in (("/health", health), ("/ready", ready)):  # as load balancers ask
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)

    @router.get("/metrics", response_class=Response, responses=refusals())
    async def metrics_page() -> Response:
        """Counters for Prometheus."""
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def _add_page(app: FastAPI) -> None:
    for path, file in PAGE.items():
        media_type = f"{_TYPES[file.name.rsplit('.', 1)[1]]}; charset=utf-8"
        endpoint = _file_endpoint(file.read_bytes(), media_type)
        app.router.add_route(path, endpoint, include_in_schema=False)


def _file_endpoint(content: bytes, media_type: str) -> Any:
    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_PAGE_HEADERS)

    return endpoint


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """A body of another form; what it held is not repeated."""
    assert isinstance(error, RequestValidationError)
    said = list(dict.fromkeys(sentence_of(wrong) for wrong in error.errors()))
    more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
    return JSONResponse(mistake(422, "; ".join(said[:3]) + more), 422)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # what FastAPI makes of bytes that are no text
        return JSONResponse(mistake(422, "the body is no JSON in UTF-8."), 422)
    return JSONResponse(mistake(error.status_code, error.detail), error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return refusal_response(refusal_of(error))
