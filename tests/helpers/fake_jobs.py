"""Jobs of a sweep that take no time, wherever a launcher starts them: Python runs this at start.

A job does what a file in the folder FAKE_JOBS says, by its seed: `fail_2`, `kill_3`, `diverge_4`;
else it is done, and its objective is 10 times the seed, less 1 per rank.
"""

import os
from pathlib import Path

import pytest

SITECUSTOMIZE = """
import json, os, pathlib, signal, sys
if "polylect.cli" in sys.orig_argv and "POLYLECT_RUN_FOLDER" in os.environ:
    given = dict(o.split("=", 1) for o in sys.orig_argv if "=" in o)
    control, seed = pathlib.Path(os.environ["FAKE_JOBS"]), given["seed"]
    threads = os.environ.get("OMP_NUM_THREADS")
    with (control / "calls").open("a") as calls:
        calls.write(json.dumps(given | {"threads": threads}) + "\\n")
    if (control / f"fail_{seed}").exists():
        print("the reason", flush=True)
        os._exit(2)
    folder = pathlib.Path(os.environ["POLYLECT_RUN_FOLDER"])
    folder.mkdir(parents=True, exist_ok=True)
    def write(status, objective=None):
        record = {"run": "", "config": {}, "status": status, "metrics": {"objective": objective}}
        (folder / "record.json").write_text(json.dumps(record))
    if (control / f"diverge_{seed}").exists():
        write("diverged")
        os._exit(2)
    write("running")
    if (control / f"kill_{seed}").exists():
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    write("done", 10 * float(seed) - float(given.get("strategy.rank", 0)))
    os._exit(0)
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let jobs be such; returns the folder that says what they do and has their `calls`."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITECUSTOMIZE)
    paths = [str(folder / "site"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("FAKE_JOBS", str(folder))
    return folder
