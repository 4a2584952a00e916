"""Awareness of all neurons against a plain forward and backward pass over the same batches.

    python experiments/bench/detect.py --out experiments/bench/results/detect.json

The plain pass is what ordinary training does before its optimizer: the gradients of all weights.
Detection needs no weight's gradient, but that of every neuron's activation, and adds up what it
sees of every neuron. Random models, gated (Llama) and plain (BLOOM); the same loss on both sides.
"""

import argparse
import copy

from harness import Row, agreement, main, measure, of_sums, row, with_goal

# ruff: isort: split
import torch
from torch import Tensor, nn

from polylect.data.batch import Example, TranslationBatch, collate
from polylect.layers.neurons.awareness import AwarenessMeter
from polylect.layers.surgery import freeze
from polylect.models.backbone import tiny_backbone
from polylect.models.families import family_of
from polylect.run.awareness import add_batch
from polylect.strategies.loss import target_losses

SLOWER = 1.3  # than the plain pass, at most
# Family, hidden size, layers, tokens of a batch; the FFN is twice (BLOOM: four times) as wide.
CASES = (("llama", 256, 6, 2048), ("llama", 512, 4, 1024), ("bloom", 256, 4, 1024))
BATCHES = 2  # in a round
LENGTHS = (8, 48)  # of a sentence: prompt and target have half each


def run(arguments: argparse.Namespace) -> list[Row]:
    cases = [(family, 32, 2, 256) for family, *_ in CASES] if arguments.tiny else CASES
    return [case(arguments, *settings) for settings in cases]


def case(arguments: argparse.Namespace, family: str, hidden: int, layers: int, tokens: int) -> Row:
    """One model with batches of so many tokens."""
    watched, _ = tiny_backbone(family, hidden=hidden, layers=layers, vocabulary=2048)
    plain = copy.deepcopy(watched)
    freeze(watched)
    paths = family_of(watched.config)
    blocks = watched.get_submodule(paths.layers)
    meter = AwarenessMeter([block.get_submodule(paths.down) for block in blocks], 1)
    batches = make_batches(tokens, watched.config.vocab_size)
    losses: dict[str, Tensor] = {}

    def ours() -> None:
        losses["ours"] = torch.tensor([add_batch(meter, watched, 0, batch) for batch in batches])

    def forward_backward() -> None:
        losses["plain"] = torch.tensor([learn(plain, batch) for batch in batches])

    variants = {"ours": ours, "forward_backward": forward_backward}
    times = measure(variants, arguments.seconds, arguments.rounds)
    difference = agreement(losses["ours"], losses["plain"])
    what = {"family": family, "hidden": hidden, "layers": layers, "tokens": tokens}
    result = row(what, times, "ours", difference)
    figures = {
        "ratio of the summed times": of_sums(times, "forward_backward"),
        "neurons": layers * meter.downs[0].in_features,
        "parameters": sum(p.numel() for p in plain.parameters()),
    }
    goal = with_goal(result, "forward_backward", least=round(1 / SLOWER, 3))
    return goal | {"figures": figures}


def learn(model: nn.Module, batch: TranslationBatch) -> float:
    """The gradients of all weights."""
    model.zero_grad()
    loss = target_losses(model, batch)[0].sum()
    loss.backward()
    return float(loss.detach())


def make_batches(tokens: int, vocabulary: int) -> list[TranslationBatch]:
    """Batches of random sentences, each of about one length, as the data module makes them."""
    shortest, longest = LENGTHS
    batches = []
    for number in range(BATCHES):
        length = shortest + number * (longest - shortest) // max(BATCHES - 1, 1)
        rows = [torch.randint(3, vocabulary, (length,)).tolist() for _ in range(tokens // length)]
        rows = [ids[: length - i % 2] for i, ids in enumerate(rows)]  # some padding
        half = length // 2
        batches.append(collate([Example(r[:half], r[half:], "en-de") for r in rows], 0, "right"))
    return batches


if __name__ == "__main__":
    main("detect", __doc__, run)
