"""A step that trains output rows of every module, against masked gradients of whole layers.

    python experiments/bench/rows.py --out experiments/bench/results/rows.json
    python experiments/bench/rows.py --base FOLDER --out experiments/bench/results/rows_gemma.json

A step is forward, loss, backward and AdamW (fused) of a language model of which four layers learn:

- ours: the rows of one direction as slices, in modules that `attach_rows` has changed; a share of
  the rows of every module, nine tenths of them general as LANDeRMT has it, or half and half;
- full fine tuning with a mask: all weights of the four layers have gradients and optimizer state;
  the gradients of other rows are set to zero before the optimizer, as LANDeRMT's code does.

Without --base the model is a made Llama. The gradients of both sides are compared first.
"""

import argparse
import copy
from collections.abc import Callable, Mapping

from harness import (  # sets the environment
    Row,
    agreement,
    main,
    measure,
    processor_ratio,
    row,
    with_goal,
    with_processor_times,
)

# ruff: isort: split
import torch
from detect import OPTIONS, make_batches
from torch import Tensor, nn

from polylect.data.batch import TranslationBatch
from polylect.layers.context import RoutingContext
from polylect.layers.neurons.layer import NeuronLayer
from polylect.layers.neurons.row_bank import RowBank
from polylect.layers.neurons.row_layer import attach_rows, row_layers
from polylect.layers.neurons.sets import NeuronSet
from polylect.layers.surgery import freeze
from polylect.models.backbone import load_backbone, tiny_backbone
from polylect.models.families import family_of
from polylect.strategies.loss import target_losses

LAYERS = 4  # that learn
SHARES = (0.1, 0.3, 0.92)  # of the rows; 0.92: nine tenths general, and two of ten languages
FASTER = 1.0
MASK = "full_fine_tuning_with_a_mask"


class Side:
    """A model, its optimizer, and its training step."""

    def __init__(
        self, model: nn.Module, batches: list[TranslationBatch], context: RoutingContext
    ) -> None:
        self.model, self.batches, self.context = model, batches, context
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5, weight_decay=0, fused=True)
        self.next = 0

    def losses(self) -> Tensor:
        batch = self.batches[self.next % len(self.batches)]
        with self.context.route(["en-de"] * batch.rows):
            return target_losses(self.model, batch)[0]

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.losses().mean().backward()
        self.optimizer.step()
        self.next += 1

    @property
    def optimizer_bytes(self) -> int:
        states = self.optimizer.state.values()
        return sum(tensor.nbytes for state in states for tensor in state.values())


def run(arguments: argparse.Namespace) -> list[Row]:
    torch.manual_seed(arguments.seed)
    if arguments.base is not None:
        base, _ = load_backbone(arguments.base)
        tokens = arguments.tokens
    else:
        hidden, layers, tokens = (32, 5, 128) if arguments.tiny else (256, 6, 1024)
        base, _ = tiny_backbone("llama", hidden=hidden, layers=layers, vocabulary=2048)
    freeze(base)
    return [case(arguments, base, tokens, share) for share in SHARES]


def case(arguments: argparse.Namespace, base: nn.Module, tokens: int, share: float) -> Row:
    """One share of the rows of every module in the middle layers."""
    family = family_of(base.config)
    layers = list(range(len(base.get_submodule(family.layers))))
    middle = layers[(len(layers) - LAYERS) // 2 :][:LAYERS]
    batches = make_batches(tokens, base.config.vocab_size)
    context = RoutingContext()
    ours, masked = copy.deepcopy(base), copy.deepcopy(base)
    chosen: dict[str, Tensor] = {}
    for layer in middle:
        blocks = [m.get_submodule(family.layers)[layer] for m in (ours, masked)]
        for path, module in row_layers(blocks[0]).items():
            rows = torch.randperm(len(module.weight))[: max(2, round(share * len(module.weight)))]
            chosen[f"{layer}.{path}"] = rows
            attach(module, rows, f"{layer}.{path}", context)
            mask(blocks[1].get_submodule(path), rows)
    sides = {"ours": Side(ours, batches, context), "mask": Side(masked, batches, RoutingContext())}
    difference = check(sides["ours"], sides["mask"], chosen, middle)
    variants = {"ours": sides["ours"].step, MASK: sides["mask"].step}
    variants, processor = with_processor_times(variants)
    times = measure(variants, arguments.seconds, arguments.rounds)
    what = {
        "base": base.config.model_type,
        "layers": f"{LAYERS} of {len(layers)}",
        "rows": f"{share:.0%}",
        "tokens": tokens,
    }
    result = row(what, times, "ours", difference)
    own, whole = sides["ours"].optimizer_bytes, sides["mask"].optimizer_bytes
    figures = {
        "ratio of the processor's times": processor_ratio(processor, MASK),
        "optimizer bytes, ours and full": [own, whole],
        "share": round(own / whole, 4),
        "trained parameters": sum(p.numel() for p in sides["ours"].trained),
    }
    return with_goal(result, MASK, least=FASTER) | {"figures": figures}


def attach(module: nn.Module, rows: Tensor, name: str, context: RoutingContext) -> None:
    """Slices of these rows: general ones, one of each language, and others of nobody's."""
    own = max(1, len(rows) // 40)
    sets = [
        NeuronSet(("en", "de"), True, rows[2 * own :].sort().values),
        NeuronSet(("en",), False, rows[:own].sort().values),
        NeuronSet(("de",), False, rows[own : 2 * own].sort().values),
    ]
    sets = [s for s in sets if len(s.index)]
    bank = RowBank(sets, len(module.weight), context, name, torch.device("cpu"), shared=True)
    attach_rows(module, bank)


def mask(module: nn.Module, rows: Tensor) -> None:
    """Train the whole module; gradients of other rows are set to zero."""
    for parameter in module.parameters(recurse=False):
        ones = torch.zeros(len(parameter), *[1] * (parameter.dim() - 1)).index_fill_(0, rows, 1)
        parameter.requires_grad_(True)
        parameter.register_post_accumulate_grad_hook(masking(ones))


def masking(ones: Tensor) -> Callable[[Tensor], None]:
    def zero(weight: Tensor) -> None:
        weight.grad.mul_(ones)

    return zero


def check(ours: Side, masked: Side, chosen: Mapping[str, Tensor], layers: list[int]) -> float:
    """Same losses, and the same gradients; the largest relative difference."""
    losses = [side.losses() for side in (ours, masked)]
    for loss in losses:
        loss.mean().backward()
    differences = [agreement(*(loss.detach() for loss in losses))]
    family = family_of(ours.model.config)
    for layer in layers:
        blocks = [side.model.get_submodule(family.layers)[layer] for side in (ours, masked)]
        for path, module in blocks[0].named_modules():
            if isinstance(module, NeuronLayer):
                whole = blocks[1].get_submodule(path).weight.grad
                for name, values in module.neuron_values.items():
                    expected = whole.index_select(0, module.bank.index(name))
                    differences.append(float((values.grad - expected).norm() / whole.norm()))
    if max(differences) > 1e-4:
        raise SystemExit(f"the gradients differ by {max(differences):.1e}: no times from them")
    return max(differences)


if __name__ == "__main__":
    main("rows", __doc__, run, OPTIONS)
