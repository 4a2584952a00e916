"""Awareness of all neurons against a plain forward and backward pass over the same batches.

    python experiments/bench/detect.py --out experiments/bench/results/detect.json

The plain pass is what ordinary training does before its optimizer: the gradients of all weights.
Detection needs no weight's gradient, but that of every neuron's activation, and adds up what it
sees of every neuron; with "rows" those are the output rows of all modules beside the neurons of the
FFNs. Random models, gated (Llama) and plain (BLOOM), or --base; the same loss on both sides.
"""

import argparse
import copy

from harness import (
    Row,
    agreement,
    main,
    measure,
    of_sums,
    processor_ratio,
    row,
    with_goal,
    with_processor_times,
)

# ruff: isort: split
import torch
from torch import Tensor, nn

from polylect.data.batch import Example, TranslationBatch, collate
from polylect.layers.neurons.awareness import AwarenessMeter
from polylect.layers.neurons.row_awareness import RowMeter
from polylect.layers.neurons.row_layer import row_layers
from polylect.layers.surgery import freeze
from polylect.models.backbone import load_backbone, tiny_backbone
from polylect.models.families import family_of
from polylect.run.awareness import add_batch
from polylect.strategies.loss import target_losses

SLOWER = 1.3  # than the plain pass, at most
# Family, hidden size, layers, tokens of a batch; the FFN is twice (BLOOM: four times) as wide.
CASES = (
    ("llama", 256, 6, 2048, "ffn"),
    ("llama", 512, 4, 1024, "ffn"),
    ("bloom", 256, 4, 1024, "ffn"),
    ("llama", 256, 6, 2048, "rows"),
    ("bloom", 256, 4, 1024, "rows"),
)
BATCHES = 2  # in a round
LENGTHS = (8, 48)  # of a sentence: prompt and target have half each


def run(arguments: argparse.Namespace) -> list[Row]:
    if arguments.base is not None:
        model, _ = load_backbone(arguments.base)
        return [case(arguments, model, arguments.tokens, kind) for kind in ("ffn", "rows")]
    rows = []
    for family, hidden, layers, tokens, neurons in CASES:
        hidden, layers, tokens = (32, 2, 256) if arguments.tiny else (hidden, layers, tokens)
        model, _ = tiny_backbone(family, hidden=hidden, layers=layers, vocabulary=2048)
        rows.append(case(arguments, model, tokens, neurons))
    return rows


def case(arguments: argparse.Namespace, plain: nn.Module, tokens: int, neurons: str) -> Row:
    """One model with batches of so many tokens; `neurons` as of `polylect detect`."""
    watched = copy.deepcopy(plain)
    plain.requires_grad_(True)
    freeze(watched)
    paths = family_of(watched.config)
    blocks = list(watched.get_submodule(paths.layers))
    modules = {kind: [block.get_submodule(kind) for block in blocks] for kind in kinds(blocks[0])}
    rows = RowMeter(modules, 1, paths.heads_first) if neurons == "rows" else None
    meter = AwarenessMeter([block.get_submodule(paths.down) for block in blocks], 1, rows=rows)
    batches = make_batches(tokens, watched.config.vocab_size)
    losses: dict[str, Tensor] = {}

    def ours() -> None:
        losses["ours"] = torch.tensor([add_batch(meter, watched, 0, batch)[0] for batch in batches])

    def forward_backward() -> None:
        losses["plain"] = torch.tensor([learn(plain, batch) for batch in batches])

    variants = {"ours": ours, "forward_backward": forward_backward}
    variants, processor = with_processor_times(variants)
    times = measure(variants, arguments.seconds, arguments.rounds)
    difference = agreement(losses["ours"], losses["plain"])
    config = watched.config
    what = {"family": config.model_type, "hidden": config.hidden_size, "layers": len(blocks)}
    what |= {"tokens": tokens, "neurons": neurons}
    result = row(what, times, "ours", difference)
    figures = {
        "ratio of the summed times": of_sums(times, "forward_backward"),
        "ratio of the processor's times": processor_ratio(processor, "forward_backward"),
        "neurons": count_of(meter),
        "parameters": sum(p.numel() for p in plain.parameters()),
    }
    goal = with_goal(result, "forward_backward", least=round(1 / SLOWER, 3))
    return goal | {"figures": figures}


def kinds(block: nn.Module) -> list[str]:
    """The modules of a layer whose output rows are neurons."""
    return list(row_layers(block))


def count_of(meter: AwarenessMeter) -> int:
    """FFN neurons, and rows where they are measured."""
    layers = [] if meter.rows is None else [m for own in meter.rows.modules.values() for m in own]
    return sum(down.in_features for down in meter.downs) + sum(len(m.weight) for m in layers)


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


OPTIONS = {
    "base": {"help": "folder of a model to time instead of made ones"},
    "tokens": {"type": int, "default": 512, "help": "of a batch, with --base"},
}

if __name__ == "__main__":
    main("detect", __doc__, run, OPTIONS)
