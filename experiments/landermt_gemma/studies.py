"""The number of layers and the general share as curves, beside the points of the authors.

    studies.py --results FOLDER --out FOLDER

Reads the records k1, k2, fixed (k 4), k8 and share75 to share95, fixed (.9) of all seeds in
--results and draws plots/layers.png and plots/general_share.png in --out. The authors' points are
the mean BLEU over their ten directions in the notebooks of their working code; base and test set
are not stated there.
"""

import argparse
import json
from pathlib import Path

from polylect import plots

AUTHORS = "the authors' working code"
LAYERS = {
    1: 21.90, 2: 22.42, 3: 23.07, 4: 23.09, 5: 23.05, 6: 23.02, 7: 23.07, 8: 23.00, 10: 22.96,
    15: 22.81, 20: 22.68, 25: 22.56, 30: 22.46,
}  # fmt: skip
SHARES = {0.75: 22.15, 0.80: 22.60, 0.85: 22.85, 0.90: 23.09, 0.95: 22.52}
OUR_LAYERS = {1: "k1", 2: "k2", 4: "fixed", 8: "k8"}
OUR_SHARES = {0.75: "share75", 0.80: "share80", 0.85: "share85", 0.90: "fixed", 0.95: "share95"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    for name, published, ours, setting, chosen in (
        ("layers", LAYERS, OUR_LAYERS, "layers that learn", 4),
        ("general_share", SHARES, OUR_SHARES, "share of general rows", 0.9),
    ):
        scores = {x: mean_bleu(arguments.results, run) for x, run in ours.items()}
        measured = {"fixed, Gemma 3 270M": {x: values for x, values in scores.items() if values}}
        measured = {name: values for name, values in measured.items() if values}
        figure = plots.study({AUTHORS: published}, measured, setting, "mean BLEU", chosen)
        plots.save(figure, arguments.out / "plots" / f"{name}.png")


def mean_bleu(results: Path, run: str) -> list[float]:
    """Of every seed, the mean over directions."""
    values = []
    for path in sorted(results.glob(f"{run}_seed*.json")):
        test = json.loads(path.read_text(encoding="utf-8"))["metrics"].get("test", {})
        if test:
            values.append(sum(row["bleu"]["value"] for row in test.values()) / len(test))
    return values


if __name__ == "__main__":
    main()
