"""Memory and time of `polylect train` on very many lines, through the token cache.

    python experiments/bench/scale.py --pairs 100000 1000000 10000000 --folder FOLDER

Writes that many short pairs (sentences of the embedded tongues behind a number, so that no two are
one) into FOLDER, trains a few steps on them with an empty cache, and once more with the cache that
the first run has left. Each run is a process of its own, of which are told:

- anonymous: the largest sum of the memory that is no file's, of it and the processes that tokenise
  for it, looked at twice a second (shared pages are counted once)
- peak: the most that the process itself has had in memory, mapped files included (`VmHWM`)
- processor seconds, of all processes, and seconds

Linux alone. FOLDER holds about 300 bytes for each pair in the end.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from polylect import tongues
from polylect.files import write_json
from polylect.run.record import environment

CHARACTERS = 32
"""Of the sentences taken, at most."""

SETTINGS = (
    "name=scale", "data=files", "data.directions=[en-de]", "data.template=tag",
    "data.max_length=128", "strategy=lora", "evaluate=false", "evaluate_base=false",
    "trainer.max_steps=20", "trainer.enable_progress_bar=false", "logger=none",
)  # fmt: skip


def write_pairs(folder: Path, pairs: int) -> None:
    """Write `pairs` lines for each side, and a validation set."""
    known = list(tongues.parallel("en-de", "train", size=20_000))
    short = [pair for pair in known if max(map(len, pair)) <= CHARACTERS]
    with (folder / "train.en").open("w") as sources, (folder / "train.de").open("w") as targets:
        for number, start in enumerate(range(0, pairs, len(short))):
            part = short[: pairs - start]
            sources.writelines(f"{number} {source}\n" for source, _ in part)
            targets.writelines(f"{number} {target}\n" for _, target in part)
    dev = list(tongues.parallel("en-de", "dev", size=50))
    (folder / "dev.en").write_text("".join(f"{source}\n" for source, _ in dev))
    (folder / "dev.de").write_text("".join(f"{target}\n" for _, target in dev))


def train(folder: Path, processes: int) -> dict[str, Any]:
    """Train on the pairs of the folder, tokenised by so many processes; what it has taken."""
    files = [
        f"data.{split}={folder}/{name}.{{lang}}"
        for split, name in (("train", "train"), ("val", "dev"))
    ]
    command = [sys.executable, "-m", "polylect.cli", "train", *SETTINGS, *files]
    command += [f"data.cache={folder}/cache", f"runs={folder}/runs", f"data.processes={processes}"]
    before, begin = _processor_seconds(), time.monotonic()
    anonymous = peak = 0
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            anonymous = max(anonymous, sum(map(_anonymous, _family(process.pid))))
            peak = max(peak, _field(f"/proc/{process.pid}/status", "VmHWM:"))
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"training failed, see {folder}/log.txt")
    return {
        "anonymous_mib": anonymous // 1024,
        "peak_mib": peak // 1024,
        "seconds": round(time.monotonic() - begin, 1),
        "processor_seconds": round(_processor_seconds() - before, 1),
    }


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family(pid: int) -> Iterator[int]:
    """Yield a process and all that it has started."""
    yield pid
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = file.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from _family(int(child))


def _anonymous(pid: int) -> int:
    return _field(f"/proc/{pid}/smaps_rollup", "Pss_Anon:")


def _field(file: str, name: str) -> int:
    """Return a field of a file of the kernel in KiB; 0 where the process has ended."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def main() -> None:
    """Measure each number of pairs, and print or write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for pairs in options.pairs:
        folder = options.folder / str(pairs)
        folder.mkdir(parents=True)
        write_pairs(folder, pairs)
        first, again = train(folder, options.processes), train(folder, options.processes)
        rows.append({"pairs": pairs, "first": first, "again": again})
        print(json.dumps(rows[-1]), flush=True)
    machine = {"cores": len(os.sched_getaffinity(0)), "processes": options.processes}
    record = {"rows": rows, **machine, "environment": environment()}
    if options.out is not None:
        write_json(options.out, record)


if __name__ == "__main__":
    main()
