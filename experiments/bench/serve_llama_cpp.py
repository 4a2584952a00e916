"""Translations over HTTP with the adapters of a run: `polylect serve` against llama.cpp's server.

    polylect export run=RUN form=gguf out=FOLDER
    python experiments/bench/serve_llama_cpp.py --server llama-server --base BASE.gguf \
        --gguf FOLDER --run RUN --texts FILE --out experiments/bench/results/serve_llama_cpp.json

Both have the whole base of the file, ours de-quantised and llama.cpp's as it is, and every
adapter; each request names one. `cut` is ours on the run's own base, whose vocabulary may be cut.
llama.cpp gets the same tokens, stops where ours does and keeps nothing of a prompt that comes
again. Translations differ by what quantisation changes, of which the record tells.
"""

import argparse
import functools
import http.client
import json
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
from harness import Row, main, measure, row  # sets the environment
from sacrebleu.metrics import CHRF
from serve import DIRECTIONS, OURS, Server, lines, send, started

from polylect.translator import Translator

CASES = ((1, 32), (8, 64))
"""Clients, texts in all."""


class LlamaCpp(Server):
    """llama.cpp's server, whose adapters are numbered.

    Args:
        translator: makes the prompts and says how long a translation may be.
    """

    def __init__(self, url: str, process: psutil.Process, translator: Translator) -> None:
        super().__init__(url, process)
        self._translator = translator

    def answers(self, connection: http.client.HTTPConnection, request: dict[str, Any]) -> list[str]:
        found = []
        for text, direction in zip(request["texts"], request["direction"], strict=True):
            (prompt,) = self._translator.prompts([text], direction)
            body = {
                "prompt": prompt.prompt,
                "lora": [{"id": DIRECTIONS.index(direction), "scale": 1.0}],
                "n_predict": self._translator.module.generation.cap(len(prompt.prompt)),
                "temperature": 0,
                "stop": ["\n"],
                "cache_prompt": False,
            }
            answer = json.loads(send(connection, "/completion", body).read())
            found.append(answer["content"].strip())
        return found


def run(arguments: argparse.Namespace) -> list[Row]:
    translator = Translator.from_run(
        arguments.run, device="cpu", model={"path": str(arguments.base)}
    )
    ours = [sys.executable, "-m", "polylect.cli", "serve", f"run={arguments.run}", *OURS]
    commands = {
        "ours": [*ours, f"model.path={arguments.base}"],
        "cut": ours,
        "llama.cpp": llama_server(arguments),
    }
    with ExitStack() as stack:
        started_at = {
            name: stack.enter_context(started(command, arguments.threads))
            for name, command in commands.items()
        }
        servers = {name: Server(*started_at[name]) for name in ("ours", "cut")}
        servers["llama.cpp"] = LlamaCpp(*started_at["llama.cpp"], translator)
        return [measured(arguments, servers, *case) for case in CASES]


def llama_server(arguments: argparse.Namespace) -> list[str]:
    """The command that starts it with every adapter, none of which is used unless it is named."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [arguments.server, "--model", str(arguments.base), "--lora-init-without-apply"]
    adapters = ",".join(str(arguments.gguf / f"{direction}.gguf") for direction in DIRECTIONS)
    command += ["--lora", adapters, "--port", str(port), "--threads", str(arguments.threads)]
    clients = max(clients for clients, _ in CASES)
    return [*command, "--parallel", str(clients), "--ctx-size", str(512 * clients), "--no-webui"]


def measured(
    arguments: argparse.Namespace, servers: dict[str, Server], clients: int, count: int
) -> Row:
    texts, directions = lines(8 if arguments.tiny else count, arguments.texts)
    requests = [{"texts": [t], "direction": [d]} for t, d in zip(texts, directions, strict=True)]
    found: dict[str, list[str]] = {}

    def ask(name: str) -> None:
        found[name] = servers[name].translate(requests, clients)

    variants = {name: functools.partial(ask, name) for name in servers}
    times = measure(variants, arguments.seconds, arguments.rounds)
    figures: dict[str, Any] = {"texts": len(texts)}
    share_that_differs = 0.0
    for name in ("cut", "llama.cpp"):
        equal = sum(a == b for a, b in zip(found[name], found["ours"], strict=True))
        figures[f"translations of {name} that are ours"] = equal
        figures[f"chrF++ of {name} against ours"] = agreement(found[name], found["ours"])
        share_that_differs = max(share_that_differs, 1 - equal / len(texts))
    what = {"clients": clients, "texts in a request": 1}
    return row(what, times, "ours", share_that_differs) | {"figures": figures}


def agreement(translations: Sequence[str], ours: Sequence[str]) -> float:
    return round(CHRF(word_order=2).corpus_score(translations, [ours]).score, 1)


if __name__ == "__main__":
    options = {
        "server": {"required": True, "help": "llama.cpp's llama-server"},
        "base": {"type": Path, "required": True, "help": "GGUF file of the base"},
        "gguf": {"type": Path, "required": True, "help": "adapters of `polylect export form=gguf`"},
        "run": {"type": Path, "required": True, "help": "their run folder"},
        "texts": {"type": Path, "required": True, "help": "file of English sentences, one a line"},
    }
    main("serve_llama_cpp", __doc__, run, options)
