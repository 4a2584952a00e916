"""Requests to servers, in this process and in one of their own."""

import json
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.testclient import TestClient

TEXTS = ["The small cat sees the old house.", "We read.", "The book is new today."]
DIRECTIONS = ["en-de", "en-fr", "en-hi"]


def translate(client: TestClient, **body) -> list[dict]:
    answer = client.post("/v1/translate", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["translations"]


def events(client: TestClient, path: str, **body) -> list[dict]:
    """What a stream sends, without the last [DONE]."""
    asked = {} if path == "/v1/documents" else {"stream": True}  # which are always streamed
    with client.stream("POST", path, json=body | asked) as answer:
        assert answer.status_code == 200, answer.read()
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def read_metrics(client: TestClient) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {k: float(v) for k, v in (li.rsplit(" ", 1) for li in lines if li[0] != "#")}


class Server:
    """What serves at `url`, and its process if it has one of its own."""

    def __init__(self, process: subprocess.Popen[str] | None, url: str) -> None:
        self.process, self.url = process, url

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and JSON of the answer, or the values of its events."""
        request = urllib.request.Request(
            self.url + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        return self._ask(request)

    def get(self, path: str) -> tuple[int, Any]:
        return self._ask(urllib.request.Request(self.url + path))

    def delete(self, path: str) -> int:
        return self._ask(urllib.request.Request(self.url + path, method="DELETE"))[0]

    def metric(self, name: str) -> float:
        _, text = self.get("/metrics")
        return float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1])

    def _ask(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                status, kind, data = answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            status, kind, data = error.code, error.headers["Content-Type"], error.read()
        text = data.decode()
        if kind is not None and kind.startswith("text/event-stream"):
            events = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
            assert events.pop() == "[DONE]"
            return status, [json.loads(event) for event in events]
        return status, json.loads(text) if kind == "application/json" else text


@contextmanager
def serving_here(app: Any) -> Iterator[str]:
    """Serve an application from a thread of this process; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(60)


@contextmanager
def serving(run: Path, *settings: str) -> Iterator[Server]:
    """Start `polylect serve` on a free port; it is stopped at the end."""
    command = [sys.executable, "-m", "polylect.cli", "serve", f"run={run}", "device=cpu", "port=0"]
    process = subprocess.Popen([*command, *settings], stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if (found := re.search(r"(http://\S+)", line)) is not None:
                break
        else:
            raise AssertionError("the server did not start")
        yield Server(process, found[1])
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()
