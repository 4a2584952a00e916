"""What breaks on the way: whoever waits is told, and the others have their answers."""

import http.client
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from helpers.serving import TEXTS, Server, read_metrics, serving, serving_here

from polylect.programs.serve.app import create_app
from polylect.programs.serve.limits import Limits
from polylect.strategies.decoding.translation import Watch

BODY = {"texts": TEXTS, "direction": "en-de"}


def test_a_text_is_answered_before_its_batch_has_ended(serve, make_translator, offline) -> None:
    translator, answered = make_translator(), threading.Event()
    decode = translator.decode

    def waits(prompts, watch):
        translations = decode(prompts, watch)
        assert answered.wait(60)
        return translations

    translator.decode = waits
    client = serve(translator, Limits())
    answer = client.post("/v1/translate", json=BODY)
    answered.set()
    found = [translation["text"] for translation in answer.json()["translations"]]
    assert found == offline.translate(TEXTS, "en-de")


def test_a_text_joins_a_batch_that_runs_and_is_answered_before_it(serve, make_translator) -> None:
    translator, begun = make_translator(limit=120, extra=120), threading.Event()
    decode, ended = translator.decode, []

    def slowly(prompts, watch):
        def token(index, newest):
            begun.set()
            time.sleep(0.005)
            return watch.token(index, newest)

        return decode(prompts, replace(watch, token=token))

    translator.decode = slowly
    client = serve(translator, Limits(wait_ms=0))

    def ask(name: str, **limit: int) -> str:
        body = {"model": "en-de", "prompt": f"The {name} house.", **limit}
        answer = client.post("/v1/completions", json=body)
        ended.append(name)
        return answer.json()["choices"][0]["text"]

    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(ask, "long")
        assert begun.wait(60)
        short = pool.submit(ask, "short", max_tokens=2)
        texts = [long.result(60), short.result(60)]
    assert ended == ["short", "long"]
    alone = make_translator(limit=120, extra=120)
    assert [texts[0]] == alone.translate(["The long house."], "en-de") != [""]
    (prompt,) = alone.prompts(["The short house."], ["en-de"], [None])
    assert texts[1] == alone.decode([replace(prompt, limit=2)])[0].text
    metrics = read_metrics(client)
    assert metrics["polylect_batch_rows_count"] == 1
    assert metrics["polylect_texts_total"] == metrics["polylect_batch_rows_sum"] == 2


def test_texts_that_were_answered_when_their_batch_fails_are_not_tried_again(
    serve, make_translator, offline
) -> None:
    """The batch fails at its last text; that one succeeds alone."""
    translator, tried = make_translator(), []
    decode = translator.decode

    def fails_late(prompts, watch):
        tried.append(len(prompts))
        ended = []

        def end(index, translation):
            ended.append(index)
            if len(ended) == len(prompts) > 1:
                raise RuntimeError("at the last one")
            watch.end(index, translation)

        return decode(prompts, Watch(watch.token, end))

    translator.decode = fails_late
    client = serve(translator, Limits())
    answer = client.post("/v1/translate", json=BODY)
    found = [translation["text"] for translation in answer.json()["translations"]]
    assert found == offline.translate(TEXTS, "en-de")
    assert tried == [len(TEXTS), 1]


def test_requests_are_told_when_the_engine_dies(serve, make_translator) -> None:
    """The thread ends in the midst of a batch, while others wait."""
    translator, runs = make_translator(), threading.Event()

    def dies(prompts, watch=None):
        runs.set()
        time.sleep(0.3)
        raise SystemExit

    translator.decode = dies
    client = serve(translator, Limits(wait_ms=0))
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(client.post, "/v1/translate", json=BODY)
        assert runs.wait(60)
        others = [pool.submit(client.post, "/v1/translate", json=BODY) for _ in range(2)]
        answers = [future.result(60) for future in (first, *others)]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert "has to be started again" in answers[0].json()["error"]["message"]
    assert client.get("/health").status_code == client.get("/ready").status_code == 503
    assert client.post("/v1/translate", json=BODY).status_code == 503
    assert client.get("/v1/adapters").status_code == 503


@pytest.mark.slow
def test_a_killed_server_leaves_no_request_without_an_error(run) -> None:
    with serving(run) as server:
        texts = [f"{text} {number}" for number in range(80) for text in TEXTS]
        with ThreadPoolExecutor(8) as pool:
            body = {"texts": texts, "direction": "en-de"}
            answers = [
                pool.submit(server.post, "/v1/translate", body | {"stream": i % 2 == 0})
                for i in range(8)
            ]
            while server.metric("polylect_batch_rows_count") < 1:
                time.sleep(0.01)
            server.process.send_signal(signal.SIGKILL)
            for answer in answers:
                with pytest.raises((OSError, http.client.HTTPException)):
                    answer.result(60)


@pytest.mark.slow
def test_a_client_that_does_not_read_keeps_nobody_waiting(make_translator, offline) -> None:
    with serving_here(create_app(make_translator())) as url:
        server, address = Server(None, url), urlsplit(url)
        texts = ",".join(f'"{TEXTS[0]} {number}"' for number in range(250))
        body = f'{{"texts": [{texts}], "direction": "en-de", "stream": true}}'.encode()
        head = f"POST /v1/translate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        slow = []
        for _ in range(8):
            client = socket.create_connection((address.hostname, address.port))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            slow.append(client)
        status, answer = server.post("/v1/translate", BODY)
        assert status == 200
        assert [t["text"] for t in answer["translations"]] == offline.translate(TEXTS, "en-de")
        for client in slow:
            client.close()
        deadline = time.monotonic() + 60
        while server.metric("polylect_queue_texts") and time.monotonic() < deadline:
            time.sleep(0.1)
        assert server.metric("polylect_queue_texts") == 0
