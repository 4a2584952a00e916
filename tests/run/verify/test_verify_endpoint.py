"""OpenAI-compatible servers, a small one and our own, held to golden outputs."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from helpers.tiny import config

from polylect.cli import run
from polylect.files import read_keys
from polylect.programs.serve.app import create_app
from polylect.programs.verify import main
from polylect.run.passport.file import Passport
from polylect.run.verify.endpoint import Endpoint
from polylect.translator import Translator

Answer = Callable[[dict[str, Any]], str]


@contextmanager
def server(
    models: list[str], answer: Answer, status: int = 200, key: str | None = None
) -> Iterator[str]:
    """The address of a server of completions; `answer` makes the text of a question."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"data": [{"id": name} for name in models]})

        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/completions" and question["temperature"] == 0
            self._send({"choices": [{"text": answer(question)}]}, status)

        def _send(self, value: Any, code: int = 200) -> None:
            if key and self.headers["Authorization"] != f"Bearer {key}":
                value, code = {"error": "no key"}, 401
            content = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def answers(tiny_run: Path) -> Answer:
    """What the model and adapters of the run make of token ids, by transformers' own loop."""
    translator = Translator.from_run(tiny_run, device="cpu")
    module = translator.module

    def answer(question: dict[str, Any]) -> str:
        ids = torch.tensor([question["prompt"]])
        with module.store.pin([question["model"]]), module.context.route([question["model"]]):
            out = module.backbone.generate(
                input_ids=ids,
                max_new_tokens=question["max_tokens"],
                do_sample=False,
                eos_token_id=module.ends(),
                pad_token_id=module.tokenizer.pad_token_id,
            )
        return module.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    return answer


def verify(url: str, passport: Path, *settings: str) -> int:
    return main(config("verify", f"target={url}", f"passport={passport}", *settings))


def test_a_server_that_gives_the_golden_outputs_passes(
    tiny_run: Path, answers: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(["base", "en-de", "en-fr"], answers) as url:
        assert verify(url, tiny_run) == 0
        assert verify(f"{url}/v1", tiny_run / "adapters" / "en-fr") == 0
    shown = capsys.readouterr().out
    assert "golden outputs from the server" in shown and "6 sentences in 2 directions" in shown
    assert "a server shows none of them" in shown


def test_one_that_serves_something_else_fails(
    tiny_run: Path, answers: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(question: dict[str, Any]) -> str:
        return answers(question) + " indeed"

    with server(["en-de"], other) as url:
        assert verify(url, tiny_run / "adapters" / "en-de") == 1
    shown = capsys.readouterr().out
    assert "the server: en-de 'In the evening the queen" in shown and "indeed" in shown
    with server(["left", "right"], answers) as url:
        assert verify(url, tiny_run) == 1
        assert verify(url, tiny_run, "name=middle") == 1
    shown = capsys.readouterr().out
    assert "serves no model en-de: it has left, right" in shown
    assert "serves no model middle" in shown


def test_the_only_model_is_asked_and_text_can_be_sent(tiny_run: Path) -> None:
    passport = Passport.read(tiny_run / "adapters" / "en-de")
    known = {output.prompt_text: output.text for output in passport.golden}
    asked = []

    def answer(question: dict[str, Any]) -> str:
        asked.append(question["model"])
        return f"  {known[question['prompt']]}\n"

    with server(["anything"], answer) as url:
        assert verify(url, tiny_run / "adapters" / "en-de", "prompts=text") == 0
    assert asked == ["anything"] * 3


@contextmanager
def own_server(translator: Translator) -> Iterator[str]:
    """The address of what `polylect serve` runs, in this process."""
    running = uvicorn.Server(uvicorn.Config(create_app(translator), log_level="error"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()


def test_our_own_server_is_held_to_them_too(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    translator = Translator.from_run(tiny_run, device="cpu")
    with own_server(translator) as url:
        assert verify(url, tiny_run) == 0
        assert verify(url, tiny_run / "adapters" / "en-fr") == 0
        assert "6 sentences in 2 directions" in capsys.readouterr().out
        for weight in translator.module.backbone.parameters():
            torch.nn.init.normal_(weight)
        assert verify(url, tiny_run) == 1
    assert "the server: en-de 'In the evening the queen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("owner", "said", "is_same"),
    [
        ("polylect", "so far and on", True),
        ("polylect", "so far", True),
        ("polylect", "so long", False),
        ("vllm", "so far and on", False),
    ],
)
def test_of_a_golden_output_that_was_cut_the_beginning_counts_where_the_server_goes_on(
    owner: str, said: str, is_same: bool, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passport = Passport.read(tiny_run / "adapters" / "en-de")
    cut = replace(passport.golden[0], text="so far\ufffd", capped=True)
    endpoint = Endpoint("http://localhost")
    answers = {
        "models": {"data": [{"id": "en-de", "owned_by": owner}]},
        "completions": {"choices": [{"text": said}]},
    }
    monkeypatch.setattr(endpoint, "_ask", lambda path, question: answers[path])
    assert endpoint.models() == ["en-de"]
    assert (endpoint.complete("en-de", cut, passport) == cut.text) == is_same


def test_a_server_that_refuses_is_a_sentence(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(["en-de", "en-fr"], lambda _: "", status=500) as url:
        assert run(["verify", url, f"passport={tiny_run}"]) == 2
    assert "/v1/completions answers 500" in capsys.readouterr().err


def test_a_server_that_wants_a_key_is_sent_one(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("secret\nother\n", encoding="utf-8")
    with server(["en-de"], lambda question: "", key="secret") as url:
        assert Endpoint(url, key=read_keys(str(tmp_path / "keys.txt"))[0]).models() == ["en-de"]
        with pytest.raises(RuntimeError, match="answers 401"):
            Endpoint(url, key="wrong").models()
        with pytest.raises(RuntimeError, match="answers 401"):
            Endpoint(url).models()
