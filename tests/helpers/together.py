"""Programs run by two processes at once, as torchrun starts them, many in one start.

`python -m helpers.together FILE` runs the commands of a JSON file one after the other, in each of
the processes.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from helpers.tiny import config

SECONDS = 600  # a start with some trainings takes 40 when nothing else runs


def run_together(folder: Path, *commands: Sequence[str], count: int = 2) -> list[str]:
    """Run commands such as ["train", "seed=1"] in `count` processes; what each wrote to stderr.

    Raises AssertionError where one fails, with what it said.
    """
    file = folder / "commands.json"
    file.write_text(json.dumps(commands))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    of_torchrun = {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "helpers.together", str(file)]
    started = []
    for rank in range(count):
        of_rank = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        with (folder / f"{rank}.out").open("w") as out, (folder / f"{rank}.err").open("w") as err:
            env = os.environ | of_torchrun | of_rank
            started.append(subprocess.Popen(command, stdout=out, stderr=err, env=env))
    try:
        codes = [process.wait(SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
    said = [(folder / f"{rank}.err").read_text() for rank in range(count)]
    assert codes == [0] * count, "\n".join(said)
    return said


if __name__ == "__main__":
    for program, *overrides in json.loads(Path(sys.argv[1]).read_text()):
        with suppress(SystemExit):  # a run that was told to stop
            import_module(f"polylect.programs.{program}").main(config(program, *overrides))
