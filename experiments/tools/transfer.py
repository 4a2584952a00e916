"""What runs did to the base and directions to each other: records to keep, with `measure_transfer`.

    python experiments/tools/transfer.py --out FOLDER --text data=captions_mono -- RUN…
    python experiments/tools/transfer.py --alone-commands RUN
    python experiments/tools/transfer.py --out FOLDER --text … --alone en-de=RUN en-fr=RUN -- RUN

For every run: nats per token and per character of the monolingual test sets that --text names, as
the base had them before and as the model stands after training (with adapters, under each of
them and under none), and after the stage that it went on from; with --untrained the same and chrF++
of directions that were not trained; nats per target token of each direction's test set. With
--matrix, every adapter on every direction. With --alone, each direction against runs of it alone
with as many tokens of it; --alone-commands prints how to train these.

Writes one JSON per run, its record as `publish.py` condenses it with the analysis, into --out. The
translations stay in the run folder: a model at times writes one that stands in its data, which is
not ours to give.
"""

import argparse
import json
from pathlib import Path

from publish import write_published
from settings import settings_of

from polylect.run.interference.transfer import (
    Questions,
    alone_settings,
    directions_alone,
    measure_transfer,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the records")
    parser.add_argument("--text", nargs="+", help="overrides that name monolingual test sets")
    parser.add_argument("--untrained", nargs="+", help="overrides that name other directions' sets")
    parser.add_argument("--sentences", type=int, help="of each untrained direction to translate")
    parser.add_argument("--matrix", type=int, default=0, help="sentences of each test set")
    parser.add_argument("--alone", nargs="+", default=[], help="DIRECTION=RUN, of one run")
    parser.add_argument("--alone-commands", action="store_true", help="print them and end")
    parser.add_argument("--name", default="{}", help="of a record; {} is the name of the run")
    arguments = parser.parse_args()
    if arguments.alone_commands:
        for run in arguments.runs:
            print("\n".join(alone_commands(run)))
        return
    if not (arguments.out and arguments.text):
        parser.error("give --out and --text, or --alone-commands")
    if arguments.alone and len(arguments.runs) > 1:
        parser.error("--alone belongs to one run")
    alone = {name: Path(run) for name, _, run in (pair.partition("=") for pair in arguments.alone)}
    questions = Questions(
        text=settings_of("train", arguments.text),
        untrained=settings_of("train", arguments.untrained) if arguments.untrained else None,
        matrix=arguments.matrix,
        sentences=arguments.sentences,
    )
    for run in arguments.runs:
        source = (run / "record.json").read_bytes()
        record = json.loads(source) | {"analysis": measure_transfer(run, questions, alone)}
        name = arguments.name.format(run.parent.name)
        write_published(arguments.out / f"{name}.json", record, source)
        print(name, record["status"], json.dumps(record["analysis"], indent=1), flush=True)


def alone_commands(run: Path) -> list[str]:
    """What trains each direction of a run alone, on as many tokens of it."""
    return [
        f"polylect train --config {run} name={run.parent.name}_alone_{direction} "
        + " ".join(alone_settings(run, direction))
        for direction in directions_alone(run)
    ]


if __name__ == "__main__":
    main()
