"""Who is responsible for what: parts of runs silenced one at a time, as records to keep.

    python experiments/tools/responsibility.py --out FOLDER -- RUN…
    python experiments/tools/responsibility.py --out FOLDER --neurons neurons.safetensors -- RUN

The parts are the experts of a run of mix_moe, the adapters of a run of lora_switch or of an
evaluation with lag, arrow or spectr; with --neurons the sets of neurons that a detection found, in
the base of the run. For each part and direction the change of the loss in nats per target token,
with its 95 % interval over sentences; and how far that agrees with what the method says of its
parts: usage of experts, choices among adapters, awareness of neurons.

Writes one JSON per run into --out, its record with the map, and plots/responsibility.png into the
folder of the run.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from publish import write_published

from polylect import plots
from polylect.run.interference.responsibility import responsibility_of_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--neurons", type=Path, help="file of `polylect detect`")
    parser.add_argument("--sentences", type=int, help="of each direction; all by default")
    parser.add_argument("--name", default="{}", help="of a record; {} is the name of the run")
    arguments = parser.parse_args()
    for run in arguments.runs:
        settings = {"neurons": arguments.neurons, "sentences": arguments.sentences}
        found = responsibility_of_run(run, **settings)
        source = (run / "record.json").read_bytes()
        name = arguments.name.format(run.parent.name)
        record = json.loads(source) | {"responsibility": asdict(found)}
        write_published(arguments.out / f"{name}.json", record, source)
        changes = [(c.part, c.direction, c.change) for c in found.changes]
        figure = plots.responsibility(changes, found.agreement)
        plots.save_all(run, lambda figure=figure: {"responsibility": figure})
        print(name, json.dumps(found.agreement), flush=True)


if __name__ == "__main__":
    main()
