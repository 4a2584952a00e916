"""The same Translator behind LitServe, which batches what comes within some milliseconds.

    python experiments/bench/serve_litserve.py RUN

It prints its address when it takes requests. The package `litserve` is no extra of polylect.
"""

import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import keep_freed_memory, quiet  # sets the environment

# ruff: isort: split
import litserve

from polylect.translator import Translator

ROWS, SECONDS = 64, 0.005  # of a batch at most; how long it waits for more, as `polylect serve`


class TranslationAPI(litserve.LitAPI):
    """Takes and gives what `/v1/translate` does, without streaming."""

    def __init__(self, run: Path) -> None:
        super().__init__(max_batch_size=ROWS, batch_timeout=SECONDS, api_path="/v1/translate")
        self.run = run

    def setup(self, device: str) -> None:
        quiet()
        keep_freed_memory()
        self.translator = Translator.from_run(self.run, device=device)

    def decode_request(self, request: dict[str, Any]) -> tuple[list[str], list[str]]:
        return request["texts"], request["direction"]

    def batch(self, inputs: Sequence[tuple[list[str], list[str]]]) -> Any:
        return inputs

    def predict(self, inputs: Sequence[tuple[list[str], list[str]]]) -> list[list[str]]:
        texts = [text for own, _ in inputs for text in own]
        directions = [direction for _, own in inputs for direction in own]
        translations = iter(self.translator.translate(texts, directions))
        return [[next(translations) for _ in own] for own, _ in inputs]

    def unbatch(self, output: list[list[str]]) -> list[list[str]]:
        return output

    def encode_response(self, output: list[str]) -> dict[str, Any]:
        return {"translations": [{"text": text} for text in output]}


def _tell_when_ready(url: str) -> None:
    while True:
        try:
            if urllib.request.urlopen(f"{url}/health").status == 200:
                break
        except OSError:
            time.sleep(0.2)
    print(url, file=sys.stderr, flush=True)


def main(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    threading.Thread(
        target=_tell_when_ready, args=[f"http://127.0.0.1:{port}"], daemon=True
    ).start()
    server = litserve.LitServer(TranslationAPI(run), accelerator="cpu", timeout=600)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
