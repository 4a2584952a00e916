"""Runs whose translations a test writes itself, scored as if a model had made them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.tiny import DATA, MODEL, config

from polylect.eval.metrics import score
from polylect.run.build import build_data


def references(split: str = "test") -> dict[str, list[str]]:
    """The targets, by direction, of the data of `tiny_run`."""
    data = build_data(config("evaluate", *MODEL, "data=tongues", *DATA))
    data.setup("test" if split == "test" else "validate")
    stores = {d: data.pairs(d, split) for d in data.directions_of(split)}
    return {d: [store[i].target for i in range(len(store))] for d, store in stores.items()}


def put_translations(
    folder: Path, translations: Mapping[str, Sequence[str]], right: Mapping[str, Sequence[str]]
) -> None:
    """Write a run's translations by direction, and their scores in place of those there were."""
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    for direction, lines in translations.items():
        text = "".join(f"{line}\n" for line in lines)
        (folder / "outputs" / f"{direction}.txt").write_text(text, encoding="utf-8")
        metrics = [name for name, row in scores[direction].items() if "signature" in str(row)]
        target, truth = direction.split("-")[-1], [[text] for text in right[direction]]
        for new in score(lines, truth, metrics=metrics, target=target):
            scores[direction][new.name] = {"value": new.value, "signature": new.signature}
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
