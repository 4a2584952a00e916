"""Limits, keys, and what a server tells nobody."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.serving import TEXTS, read_metrics, translate
from starlette.testclient import TestClient

from polylect.programs.serve.guard import PAGE
from polylect.programs.serve.limits import Limits

BODY = {"texts": ["We read."], "direction": "en-de"}


def message(answer) -> str:
    return answer.json()["error"]["message"]


def test_too_many_bytes_and_texts_are_refused(serve) -> None:
    client = serve(None, Limits(max_bytes=300, max_texts=3))
    answer = client.post("/v1/translate", json=BODY | {"texts": ["x" * 400]})
    assert answer.status_code == 413 and "more than 300 bytes" in message(answer)
    chunks = (b"x" * 100 for _ in range(10))  # no length is announced
    assert client.post("/v1/translate", content=chunks).status_code == 413
    answer = client.post("/v1/translate", json=BODY | {"texts": ["a"] * 4})
    assert answer.status_code == 413 and "4 texts are more" in message(answer)
    lines = {"model": "en-de", "prompt": "a\n" * 4}
    assert client.post("/v1/completions", json=lines).status_code == 413
    assert client.post("/v1/translate", json=BODY).status_code == 200


class Held:
    """A translator that decodes only when it is let."""

    def __init__(self, translator) -> None:
        self.translator, self.may, self.runs = translator, threading.Event(), threading.Event()
        self._decode, translator.decode = translator.decode, self._held

    def _held(self, *arguments):
        self.runs.set()
        assert self.may.wait(60)
        return self._decode(*arguments)


def test_a_full_queue_is_refused_until_there_is_room(serve, make_translator) -> None:
    held = Held(make_translator())
    client = serve(held.translator, Limits(queue=3, max_texts=3, wait_ms=0))
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(client.post, "/v1/translate", json=BODY)
        assert held.runs.wait(60)
        waiting = pool.submit(client.post, "/v1/translate", json=BODY | {"texts": TEXTS})
        while read_metrics(client)["polylect_queue_texts"] < 3:
            pass
        answer = client.post("/v1/translate", json=BODY)
        assert answer.status_code == 429 and int(answer.headers["Retry-After"]) > 0
        assert "3 texts wait already" in message(answer)
        held.may.set()
        assert running.result().status_code == waiting.result().status_code == 200
    assert client.post("/v1/translate", json=BODY).status_code == 200


def test_a_request_whose_time_is_up_is_told_so(serve, make_translator) -> None:
    held = Held(make_translator())
    client = serve(held.translator, Limits(timeout=0.2))
    answer = client.post("/v1/translate", json=BODY)
    assert answer.status_code == 503 and "took more than 0.2 seconds" in message(answer)
    held.may.set()


def test_what_was_taken_is_finished_when_the_server_stops(make_translator, offline) -> None:
    from polylect.programs.serve.app import create_app

    held = Held(make_translator())
    app = create_app(held.translator, Limits(wait_ms=0))
    with TestClient(app, base_url="http://localhost") as client, ThreadPoolExecutor(4) as pool:
        bodies = [BODY | {"texts": [text]} for text in TEXTS]
        answers = [pool.submit(client.post, "/v1/translate", json=bodies[0])]
        assert held.runs.wait(60)
        answers += [pool.submit(client.post, "/v1/translate", json=body) for body in bodies[1:]]
        while app.state.engine.queued() < len(bodies) - 1:
            pass
        assert client.get("/ready").status_code == 200
        stopping = pool.submit(app.state.engine.stop)
        while client.get("/ready").status_code == 200:
            pass
        assert client.post("/v1/translate", json=BODY).status_code == 503
        held.may.set()
        stopping.result()
        found = [a.result().json()["translations"][0]["text"] for a in answers]
        assert found == offline.translate(TEXTS, "en-de")
        assert client.get("/health").status_code == 503


def test_a_key_is_asked_for(serve) -> None:
    client = serve(keys=["one", "two"])
    answer = client.post("/v1/translate", json=BODY)
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
    for key, status in (("one", 200), ("two", 200), ("three", 401), ("", 401)):
        headers = {"Authorization": f"Bearer {key}"}
        assert client.post("/v1/translate", json=BODY, headers=headers).status_code == status
    for scheme in ("bearer", "BEARER"):  # which has no case
        headers = {"Authorization": f"{scheme} one"}
        assert client.post("/v1/translate", json=BODY, headers=headers).status_code == 200
    for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/adapters", "/nothing"):
        assert client.get(path).status_code == 401
    for path in ("/", "/page.js", "/page.css", "/health", "/ready"):
        assert client.get(path).status_code == 200
    headers = {"Authorization": "Bearer one"}
    described = client.get("/openapi.json", headers=headers).json()
    assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"


def test_pages_elsewhere_cannot_use_the_server(client: TestClient) -> None:
    """A form or script of another site sends no JSON without asking, and is told no."""
    answer = client.post("/v1/translate", json=BODY, headers={"Host": "evil.example"})
    assert answer.status_code == 400
    plain = {"Content-Type": "text/plain", "Origin": "http://evil.example"}
    answer = client.post("/v1/translate", content=b'{"texts": ["a"]}', headers=plain)
    assert answer.status_code == 422
    ask = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    asked = client.options("/v1/translate", headers=ask)
    assert asked.status_code == 405
    assert "access-control-allow-origin" not in asked.headers


@pytest.mark.parametrize("wanted", [False, True])
def test_texts_are_logged_only_where_that_is_asked_for(
    serve, caplog: pytest.LogCaptureFixture, wanted: bool
) -> None:
    with caplog.at_level(logging.DEBUG):
        client = serve(logs_texts=wanted)
        translate(client, **BODY | {"texts": ["A secret."]})
        client.post("/v1/translate", json=BODY | {"direction": "A secret."})
        client.post("/v1/translate", json={"texts": 5, "secret": "A secret."})
    logged = "".join(r.getMessage() for r in caplog.records if r.name.startswith("polylect"))
    assert ("A secret." in logged) == wanted


def test_what_does_not_exist_is_said_so(client: TestClient) -> None:
    answer = client.get("/nothing")
    assert answer.status_code == 404 and message(answer) == "Not Found"
    assert client.get("/v1/translate").status_code == 405
    assert client.post("/v1/translate", content=b"{").status_code == 422


@pytest.mark.parametrize("path", ["/", "/page.js", "/health", "/ready"])
def test_who_looks_whether_it_is_there_is_answered(client: TestClient, path: str) -> None:
    assert client.head(path).status_code == client.get(path).status_code == 200


def test_nothing_of_the_page_or_the_description_is_loaded_from_elsewhere(
    client: TestClient,
) -> None:
    assert {"/", "/page.js", "/page.css", "/server.js"} < set(PAGE)
    for path in PAGE:
        answer = client.get(path)
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        for mark in ("http://", "https://", '="//', "@import"):
            assert mark not in answer.text.replace("http://www.w3.org/", "")
    for path in ("/docs", "/redoc"):
        assert client.get(path).status_code == 404
    assert set(client.get("/openapi.json").json()["paths"]) == {
        "/v1/translate", "/v1/directions", "/v1/documents", "/v1/adapters", "/v1/adapters/{name}",
        "/v1/models", "/v1/models/{name}", "/v1/completions", "/v1/chat/completions",
        "/health", "/ready", "/metrics",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        (b"{", "application/json", "the body is no JSON: "),
        (
            b"",
            "application/json",
            "must be a JSON object, sent with Content-Type: application/json",
        ),
        (b'{"texts": ["a"]}', "text/plain", "sent with Content-Type: application/json"),
        (b'{"texts": ["a"], "direction": 3}', "application/json", "direction must be a name, or a"),
        (b'{"texts": ["a"], "adapter": [3]}', "application/json", "adapter must be a name, or a"),
        (b'{"texts": [3]}', "application/json", "texts.0: Input should be a valid string"),
        (b'{"texts": ["a"], "x": 3}', "application/json", "x: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(client, body: bytes, kind: str, sentence: str) -> None:
    answer = client.post("/v1/translate", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 422
    assert sentence in message(answer) and "[" not in message(answer)
