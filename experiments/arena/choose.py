"""The learning rate of each system of the arena: the one with the lower loss on development text.

    python experiments/arena/choose.py RECIPE_FOLDER…

Takes the folders of `polylect recipe recipe=arena`, one for each seed, and prints a line for each
system: its name and `low` or `high`, whichever has the lower mean over the seeds, the same for all
of them. Every system has two trials; nothing here reads a test set.
"""

import json
import sys
from pathlib import Path

RATES = ("low", "high")


def main() -> None:
    if not (folders := [Path(argument) for argument in sys.argv[1:]]):
        raise SystemExit("give the folders of the recipe: choose.py runs/arena_seed1/TIME …")
    for system, losses in development_losses(folders).items():
        best = min(losses, key=lambda rate: losses[rate])
        shown = ", ".join(f"{rate} {loss:.4f}" for rate, loss in losses.items())
        print(f"{system}: {shown} nats per target token", file=sys.stderr)
        print(system, best)


def development_losses(folders: list[Path]) -> dict[str, dict[str, float]]:
    """Return by system the mean loss over seeds of each rate, in nats per target token.

    Raises SystemExit where a trial is missing, for then the systems would not have as many.
    """
    systems = sorted({p.name.removesuffix("_low") for f in folders for p in f.glob("*_low")})
    return {
        system: {
            rate: sum(_loss(f / f"{system}_{rate}") for f in folders) / len(folders)
            for rate in RATES
        }
        for system in systems
    }


def _loss(run: Path) -> float:
    record = run / "record.json"
    if not record.is_file():
        raise SystemExit(f"{run} has no record.json: let the recipe end first.")
    objective = json.loads(record.read_text(encoding="utf-8"))["metrics"].get("objective")
    if objective is None:
        raise SystemExit(f"{run} did not end well: it has no loss on development text.")
    return -objective


if __name__ == "__main__":
    main()
