"""Translations over HTTP, of mixed directions, against the offline Translator and against PEFT.

    python experiments/bench/serve.py --out experiments/bench/results/serve.json

`polylect serve` and two servers that differ from it in the model alone take turns: PEFT with
`set_adapter` before the texts of each adapter, and PEFT with `adapter_names`; with --ways litserve
our Translator behind LitServe. Clients of a process of their own ask for one text after the other,
or several at once. The offline Translator has all texts in one call, and once more in batches of no
more rows than the clients have texts underway (`rows_underway`). Without --run the quick
start's four adapters are trained first, some minutes. Of a larger base with such directions: --run,
with --texts for texts of its own.
"""

import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from harness import Row, main, measure, processor_ratio, row, with_goal  # sets the environment

from polylect.cli import run as polylect
from polylect.tongues import parallel
from polylect.translator import Translator

DIRECTIONS = ("en-de", "en-fr", "en-hi", "en-ta")
# Clients, texts in each of their requests, texts in all, and what of the offline Translator's
# throughput is wanted.
CASES = ((1, 1, 16, None), (8, 1, 64, None), (32, 1, 128, 0.9), (32, 8, 512, 0.9))
OURS = ("device=cpu", "port=0")
WAYS = ("set_adapter", "adapter_names", "litserve")  # of PEFT; our Translator, if installed


class Server:
    """A process that serves, and what clients ask of it."""

    def __init__(self, url: str, process: psutil.Process) -> None:
        self.address, self._process = urlsplit(url).netloc, process

    def processor_seconds(self) -> float:
        """What the server's processes have used of the processor until now."""
        family = [self._process, *self._process.children(recursive=True)]
        return sum(times.user + times.system for times in (own.cpu_times() for own in family))

    def translate(self, requests: Sequence[dict[str, Any]], clients: int) -> list[str]:
        """The translations of all requests, of which each client takes the next that is left."""
        waiting, found = deque(enumerate(requests)), {}

        def client(_: int) -> None:
            connection = http.client.HTTPConnection(self.address)
            while waiting:
                try:
                    number, request = waiting.popleft()
                except IndexError:
                    break
                found[number] = self.answers(connection, request)

        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(client, range(clients)))
        return [text for number in range(len(requests)) for text in found[number]]

    def answers(self, connection: http.client.HTTPConnection, request: dict[str, Any]) -> list[str]:
        """The translations of one request."""
        answer = json.loads(send(connection, "/v1/translate", request).read())
        return [translation["text"] for translation in answer["translations"]]

    def first_token_ms(self, requests: Sequence[dict[str, Any]], clients: int) -> float:
        """The median over requests of the time until the first piece of a translation came."""

        def client(number: int) -> list[float]:
            connection = http.client.HTTPConnection(self.address)
            return [first_piece_ms(connection, r) for r in requests[number::clients]]

        with ThreadPoolExecutor(clients) as pool:
            return statistics.median(ms for part in pool.map(client, range(clients)) for ms in part)


def send(connection: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> Any:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"status {answer.status}: {answer.read()!r}")
    return answer


def first_piece_ms(connection: http.client.HTTPConnection, body: dict[str, Any]) -> float:
    begin = time.perf_counter()
    answer = send(connection, "/v1/translate", body | {"stream": True})
    line = answer.readline()
    elapsed = 1e3 * (time.perf_counter() - begin)
    if b"piece" not in line:
        raise SystemExit(f"no piece of a translation came first, but {line!r}")
    answer.read()
    return elapsed


def run(arguments: argparse.Namespace) -> list[Row]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trained = arguments.run or train(folder, arguments)
        translator = Translator.from_run(trained, device="cpu")
        here = Path(__file__)
        commands = {"ours": ["-m", "polylect.cli", "serve", f"run={trained}", *OURS]}
        for way in arguments.ways:
            script = "serve_litserve.py" if way == "litserve" else "serve_peers.py"
            commands[way] = [str(here.with_name(script)), str(trained), way]
        servers = {
            name: Server(
                *stack.enter_context(started([sys.executable, *command], arguments.threads))
            )
            for name, command in commands.items()
        }
        rows = []
        for case in CASES:
            if "x".join(map(str, case[:2])) in arguments.cases:
                rows += measured(arguments, translator, servers, *case)
    return rows


def processor_seconds(server: Server | None) -> float:
    """Of this process, and of the server's where one is asked."""
    return time.process_time() + (server.processor_seconds() if server else 0.0)


@contextmanager
def started(command: Sequence[str], threads: int) -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of a server, which ends with the block."""
    process = subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if (found := re.search(r"(http://\S+)", line)) is not None:
                break
        else:
            raise SystemExit(f"the server did not start: {''.join(said)}")
        # What it says from now on is read and forgotten, as it would wait where nobody reads.
        threading.Thread(target=lambda: deque(process.stderr, 0), daemon=True).start()
        yield found[1], psutil.Process(process.pid)
    finally:
        for own in psutil.Process(process.pid).children(recursive=True):  # of LitServe
            own.kill()
        process.terminate()
        process.wait(60)


def measured(
    arguments: argparse.Namespace,
    translator: Translator,
    servers: dict[str, Server],
    clients: int,
    size: int,
    count: int,
    goal: float | None,
) -> list[Row]:
    """Throughput, and the time to the first token, at so many clients."""
    texts, directions = lines(32 if arguments.tiny else count, arguments.texts)
    parts = range(0, len(texts), size)
    requests = [
        {"texts": texts[i : i + size], "direction": directions[i : i + size]} for i in parts
    ]
    found: dict[str, list[str]] = {}
    own = translator.module.generation
    rows = {"offline": own.rows, "rows_underway": min(own.rows, clients * size)}
    used: dict[str, list[float]] = {name: [] for name in (*rows, *servers)}

    def variant(name: str) -> Callable[[], None]:
        server = servers.get(name)

        def call() -> None:
            before = processor_seconds(server)
            if server is None:
                translator.module.generation = replace(own, rows=rows[name])
                found[name] = translator.translate(texts, directions)
                translator.module.generation = own
            else:
                found[name] = server.translate(requests, clients)
            used[name].append(processor_seconds(server) - before)

        return call

    times = measure({name: variant(name) for name in used}, arguments.seconds, arguments.rounds)
    differ = max(
        sum(a != b for a, b in zip(found["offline"], texts, strict=True))
        for texts in found.values()
    )
    if differ > len(texts) / 50:
        raise SystemExit(f"{differ} of {len(texts)} translations differ: no times from that")
    what = {"clients": clients, "texts in a request": size}
    result = row(what, times, "ours", differ / len(texts))
    if goal is not None:
        result = with_goal(result, "offline", least=goal)
    figures = {
        "texts": len(texts),
        "translations that differ": differ,
        "ratio of the processor's times to offline, clients counted": processor_ratio(
            used, "offline"
        ),
    }
    return [result | {"figures": figures}, first_token(arguments, servers, requests, what, differ)]


def first_token(
    arguments: argparse.Namespace,
    servers: dict[str, Server],
    requests: Sequence[dict[str, Any]],
    what: dict[str, Any],
    differ: int,
) -> Row:
    """How long a client waits for the beginning of its translation."""
    streaming = {name: own for name, own in servers.items() if name != "litserve"}
    times: dict[str, list[float]] = {name: [] for name in streaming}
    end = time.perf_counter() + arguments.seconds / 2
    while not times["ours"] or time.perf_counter() < end:
        for name, server in streaming.items():
            times[name].append(server.first_token_ms(requests, what["clients"]))
    return row({**what, "until": "first token"}, times, "ours", differ)


def lines(count: int, file: Path | None) -> tuple[list[str], list[str]]:
    """English sentences in directions that take turns: of a file, or of the tongues, unlearnt."""
    directions = [DIRECTIONS[number % len(DIRECTIONS)] for number in range(count)]
    if file is not None:
        texts = file.read_text(encoding="utf-8").splitlines()[:count]
        return texts, directions[: len(texts)]
    sources = {d: iter(parallel(d, "test", count)) for d in DIRECTIONS}
    return [next(sources[d])[0] for d in directions], directions


def train(folder: Path, arguments: argparse.Namespace) -> Path:
    """A run of the quick start; its folder."""
    settings = {"runs": folder, "name": "serve", "seed": arguments.seed, "evaluate": False}
    settings["evaluate_base"] = False
    if arguments.tiny:
        settings["trainer.max_steps"] = 2
    if polylect(["train", *(f"{key}={value}" for key, value in settings.items())]):
        raise SystemExit("the training failed")
    return next((folder / "serve").iterdir())


if __name__ == "__main__":
    known = ["x".join(map(str, case[:2])) for case in CASES]
    options = {
        "run": {"type": Path, "help": "run folder of the quick start"},
        "texts": {"type": Path, "help": "file of English sentences, one a line"},
        "cases": {"nargs": "+", "choices": known, "default": known, "help": "clients x texts"},
        "ways": {"nargs": "*", "choices": WAYS, "default": WAYS[:2], "help": "peers"},
    }
    main("serve", __doc__, run, options)
