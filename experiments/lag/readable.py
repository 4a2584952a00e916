"""Could a router know? What tells of the right adapter: the inputs of the layers, the adapters.

    readable.py --library RUN/adapters --out FILE.json -- model=tongues data=tongues

Every direction of the test sets is one adapter's. For each adapted layer, on tokens of the source
and of the target apart, each under the right adapter:

- how often the right adapter has the highest score (Arrow, and SpectR in two forms);
- how often a linear probe finds it, least squares on the layer's input, fitted on every other
  sentence and tested on the rest: what the input tells;
- how much of the input's energy lies in the row space of the right adapter's A, beside rank over
  width, which is that of a space drawn at random.

And what follows: nats per target token of the test sets, with the right adapter, without any, and
under every router.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from polylect.data.batch import IGNORED, pad_id
from polylect.data.stream import EvaluationBatches
from polylect.layers.adapters import arrow_scores, spectral_scores
from polylect.layers.adapters.bank import AdapterBank
from polylect.layers.adapters.router import routed_layers
from polylect.layers.adapters.selection import RouterSettings
from polylect.run.results.scoring import nats_per_token
from polylect.strategies.lag import LAG

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from oracle import analyse_library, library_parser

SIDES = ("source", "target")
ROUTERS = {
    "oracle": RouterSettings("oracle"),
    "uniform": RouterSettings("uniform"),
    "arrow_1": RouterSettings("arrow", k=1),
    "lag_3": RouterSettings("lag", k=3),
    "spectr_proj": RouterSettings("spectr", k=1, form="proj"),
    "spectr_energy": RouterSettings("spectr", k=1, form="energy"),
    "spectr_model": RouterSettings("spectr", k=1, level="model"),
}
RIDGE = 1e-2  # of the probe, in units of the input's mean square


def main() -> None:
    arguments = library_parser(__doc__.splitlines()[0], limit=60).parse_args()

    def measure(module: LAG, data: Any) -> dict[str, Any]:
        return {
            "readable": readable(module, data, arguments.limit),
            "nats_per_token": likelihoods(module, data, arguments.limit),
        }

    metrics = analyse_library(arguments, measure)
    print(metrics["readable"]["all"], metrics["nats_per_token"])


def readable(module: LAG, data: Any, limit: int) -> dict[str, Any]:
    """By side, means over the layers: "all", and by name of the linear layer."""
    by_group: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    inputs, about = collect_inputs(module, data, limit)
    for path, layer in routed_layers(module.backbone).items():
        (bank,) = layer.lora_banks.values()
        right = torch.tensor([bank.serving[direction] for direction in about["direction"]])
        for side in SIDES:
            of_side = torch.tensor([own == side for own in about["side"]])
            if of_side.any():
                fitted = (torch.tensor(about["sentence"]) % 2 == 0)[of_side]
                measured = measure(inputs[path][of_side], right[of_side], fitted, bank)
                for group in ("all", path.rsplit(".", 1)[-1]):
                    by_group[group][side].append(measured)
    return {
        group: {side: mean(rows) for side, rows in sides.items()}
        for group, sides in by_group.items()
    }


def likelihoods(module: LAG, data: Any, limit: int) -> dict[str, float]:
    """Nats per target token, of all directions together."""
    texts = list(batches(module, data, limit))
    unnamed = [replace(batch, directions=("",) * len(batch.directions)) for batch in texts]
    module.route_by(ROUTERS["oracle"])
    nats = {"none": nats_per_token(module, unnamed)}
    for name, settings in ROUTERS.items():
        module.route_by(settings)
        nats[name] = nats_per_token(module, texts)
    return {name: round(value, 4) for name, value in nats.items()}


def collect_inputs(module: LAG, data: Any, limit: int) -> tuple[dict[str, Tensor], dict[str, list]]:
    """Inputs of each adapted layer, (tokens, in), and of each token direction, side, sentence."""
    inputs: dict[str, list[Tensor]] = defaultdict(list)
    about: dict[str, list] = defaultdict(list)
    mask: Tensor | None = None

    def note(path: str, x: Tensor) -> None:
        inputs[path].append(x[mask])

    hooks = [
        layer.register_forward_pre_hook(lambda _, given, path=path: note(path, given[0]))
        for path, layer in routed_layers(module.backbone).items()
    ]
    for batch in batches(module, data, limit):
        mask = batch.attention_mask.bool()
        with module.routing(batch):
            module(batch)
        start = len(set(about["sentence"]))
        for row, direction in enumerate(batch.directions):
            labels = batch.labels[row][mask[row]].tolist()
            about["direction"] += [direction] * len(labels)
            about["sentence"] += [start + row] * len(labels)
            about["side"] += [SIDES[label != IGNORED] for label in labels]
    for hook in hooks:
        hook.remove()
    return {path: torch.cat(parts) for path, parts in inputs.items()}, about


def batches(module: LAG, data: Any, limit: int) -> Iterator[Any]:
    for direction in data.directions_of("test"):
        examples = data.examples(direction, "test", limit)
        yield from EvaluationBatches(examples, 2048, 64, pad_id(module.tokenizer))


def measure(x: Tensor, right: Tensor, fitted: Tensor, bank: AdapterBank) -> dict[str, float]:
    """Shares in per cent, of tokens and of energy."""
    a_star, own = bank.factor("a"), {"strengths": bank.strengths}
    scores: Mapping[str, Tensor] = {
        "arrow": arrow_scores(x, bank.arrows),
        "spectr_proj": spectral_scores(x, a_star),
        "spectr_energy": spectral_scores(x, a_star, "energy", **own),
    }
    shares = {name: 100 * hits(score, right) for name, score in scores.items()}
    wide = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
    targets = one_hot(right, len(bank.names)).to(x.dtype)
    gram = wide[fitted].T @ wide[fitted]
    ridge = RIDGE * wide.square().mean() * torch.eye(len(gram))
    weight = torch.linalg.solve(gram + ridge, wide[fitted].T @ targets[fitted])
    shares["probe"] = 100 * hits(wide[~fitted] @ weight, right[~fitted])
    lengths = spectral_scores(x, a_star).gather(1, right.unsqueeze(1))
    shares["span"] = 100 * (lengths.square().sum() / x.square().sum()).item()
    shares["span_by_chance"] = 100 * a_star.shape[1] / a_star.shape[2]
    shares["chance"] = 100 / len(bank.names)
    return shares


def hits(scores: Tensor, right: Tensor) -> float:
    return (scores.argmax(1) == right).float().mean().item()


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(sum(row[key] for row in rows) / len(rows), 2) for key in rows[0]}


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
