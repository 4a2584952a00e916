"""What all benchmarks share: settings before torch is imported, interleaved rounds, one record.

A benchmark is a function from the command line's arguments to rows, which `main` calls. It times
its variants in turn with `measure`, compares their results (`agreement` ends the run where they
differ, so that a wrong result has no times) and makes a `row`, whose ratios are taken inside one
round each.
"""

import argparse
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # waiting threads sleep: fair on a shared machine
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor

from polylect.run.record import environment
from polylect.run.terminal import keep_freed_memory, quiet

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from publish import write_published

Row = dict[str, Any]
Variants = Mapping[str, Callable[[], object]]
MEMORY_SETTINGS = ("GOMP_SPINCOUNT", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def measure(variants: Variants, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each variant in each round; the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and len(next(iter(times.values()))) < rounds:
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def with_processor_times(variants: Variants) -> tuple[Variants, dict[str, list[float]]]:
    """The variants, and lists that fill with the processor's milliseconds of each call.

    What other work on the machine adds to a call is not in them, but for caches and memory.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}

    def timed(name: str, run: Callable[[], object]) -> Callable[[], None]:
        def call() -> None:
            start = time.process_time()
            run()
            times[name].append(1e3 * (time.process_time() - start))

        return call

    return {name: timed(name, run) for name, run in variants.items()}, times


def processor_ratio(times: dict[str, list[float]], variant: str, ours: str = "ours") -> float:
    """The median over rounds of the ratio of the processor's times; the first call is left out."""
    pairs = zip(times[variant][1:], times[ours][1:], strict=True)
    return round(statistics.median(a / b for a, b in pairs), 3)


def row(what: dict, times: dict[str, list[float]], ours: str, difference: float) -> Row:
    """One result: medians, and the median and quartiles of every variant's time over ours."""
    ratios = {}
    for name, series in times.items():
        within = sorted(a / b for a, b in zip(series, times[ours], strict=True))
        quarter = len(within) // 4
        ratios[name] = {
            "median": round(statistics.median(within), 3),
            "quartiles": [round(within[quarter], 3), round(within[-1 - quarter], 3)],
        }
    result = {
        **what,
        "rounds": len(times[ours]),
        "milliseconds": {name: round(statistics.median(s), 3) for name, s in times.items()},
        f"over_{ours}": ratios,
        "largest_difference": difference,
    }
    medians = "  ".join(f"{name} {r['median']:.2f}" for name, r in ratios.items())
    label = "  ".join(f"{key} {value}" for key, value in what.items())
    print(f"{label}: {medians}   ({result['rounds']} rounds)", flush=True)
    return result


def agreement(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest value; too large a one ends the run."""
    difference = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    if difference > 1e-5:
        raise SystemExit(f"the variants differ by {difference:.1e}: no times from a wrong result")
    return difference


def with_goal(
    result: Row, variant: str, least: float | None = None, most: float | None = None
) -> Row:
    """The row with what the ratio of a variant should be: at `least`, or at `most`."""
    goal = {"at_least": least} if least is not None else {"at_most": most}
    return result | {"goals": result.get("goals", {}) | {variant: goal}}


def of_sums(times: dict[str, list[float]], variant: str, ours: str = "ours") -> float:
    """Ratio of the summed times, in which a rare slow round counts in full."""
    return round(sum(times[variant]) / sum(times[ours]), 3)


def per_call(times: dict[str, list[float]], calls: int) -> dict[str, list[float]]:
    """Times of one call each, where a round made several."""
    return {name: [t / calls for t in series] for name, series in times.items()}


def main(
    name: str,
    about: str,
    run: Callable[[argparse.Namespace], list[Row]],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Read the command line, run the benchmark, write its record.

    Args:
        name: of the benchmark, in the record.
        about: the script's docstring; its first line says what is timed.
        run: makes the rows.
        options: further arguments, by name, as `argparse` takes them.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each set of variants")
    parser.add_argument("--rounds", type=int, default=40, help="at most, for each set")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tiny", action="store_true", help="only show that the script works")
    parser.add_argument("--out", type=Path, help="JSON file for the record")
    for option, settings in (options or {}).items():
        parser.add_argument(f"--{option}", **settings)
    arguments = parser.parse_args()
    load, begin = os.getloadavg()[0], time.monotonic()
    quiet()
    keep_freed_memory()
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    here = environment()
    rows = run(arguments)
    record = {
        "benchmark": name,
        "about": about.splitlines()[0],
        "command": ["python", *sys.argv],
        "started": started,
        "seconds": round(time.monotonic() - begin, 1),
        "load_before": round(load, 2),
        "environment": here | {"device": _processor(), "settings": _settings()},
        "scratch": bool(here["dirty"]) or not here["commit"],
        "gpu": "not run",
        "seed": arguments.seed,
        "rows": rows,
    }
    if arguments.out:
        write_published(arguments.out, record)
        print(arguments.out)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _settings() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in MEMORY_SETTINGS}
