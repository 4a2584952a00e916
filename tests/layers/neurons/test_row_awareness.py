"""Scores of output rows against one backward pass for each module, without hooks of ours."""

import pytest
import torch
from torch import Tensor, nn

from polylect.data.batch import IGNORED, Example, TranslationBatch, collate
from polylect.layers.neurons.awareness import AwarenessMeter
from polylect.layers.neurons.row_awareness import RowMeter
from polylect.layers.neurons.row_layer import row_layers
from polylect.models.backbone import tiny_backbone
from polylect.models.families import family_of
from polylect.strategies.loss import target_losses

VOCABULARY = 300


def base(family: str) -> tuple[nn.Module, list[nn.Module], list[nn.Module]]:
    model = tiny_backbone(family, hidden=8, heads=2, vocabulary=VOCABULARY)[0].double()
    model.requires_grad_(False)
    paths = family_of(model.config)
    blocks = list(model.get_submodule(paths.layers))
    return model, blocks, [block.get_submodule(paths.down) for block in blocks]


def batch() -> TranslationBatch:
    generator = torch.Generator().manual_seed(0)
    lengths = ((5, 4), (2, 6), (7, 1))
    ids = [[torch.randint(3, VOCABULARY, (n,), generator=generator) for n in p] for p in lengths]
    examples = [Example(p.tolist(), t.tolist(), "en-de") for p, t in ids]
    return collate(examples, 0, "right")


def measure(
    model: nn.Module, blocks: list[nn.Module], downs: list[nn.Module], kinds: list[str]
) -> AwarenessMeter:
    modules = {k: [block.get_submodule(k) for block in blocks] for k in kinds}
    rows = RowMeter(modules, 1, family_of(model.config).heads_first)
    meter, text = AwarenessMeter(downs, 1, blocks, rows), batch()
    target = text.labels != IGNORED
    source = text.attention_mask.bool() & ~target
    meter.add(0, source, target, lambda: target_losses(model, text)[0].sum())
    return meter


def by_hand(model: nn.Module, module: nn.Module) -> dict[str, Tensor]:
    text, outputs = batch(), []
    target = text.labels != IGNORED
    handle = module.register_forward_hook(
        lambda _, __, y: outputs.append(y if y.requires_grad else y.requires_grad_()) or outputs[-1]
    )
    loss = target_losses(model, text)[0].sum()
    handle.remove()
    (y,) = outputs
    (grad,) = torch.autograd.grad(loss, y)
    product = (y * grad).abs()
    if product.dim() == 4:
        heads_first = product.shape[1] != text.input_ids.shape[1]  # of which there are two
        product = product.sum(1 if heads_first else 2)
    sides = {"source": text.attention_mask.bool() & ~target, "target": target}
    return {side: product[mask].mean(0) for side, mask in sides.items()}


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "bloom", "gpt_neox"])
def test_one_pass_gives_every_module_what_a_pass_of_its_own_gives(family: str) -> None:
    model, blocks, downs = base(family)
    kinds = list(row_layers(blocks[0]))
    meter = measure(model, blocks, downs, kinds)
    alone = AwarenessMeter(downs, 1)
    text = batch()
    target = text.labels != IGNORED
    source = text.attention_mask.bool() & ~target
    alone.add(0, source, target, lambda: target_losses(model, text)[0].sum())
    for side, scores in alone.awareness().items():  # neurons of the FFN are as without rows
        torch.testing.assert_close(meter.awareness()[side], scores)
    for kind in kinds:
        actual = meter.row_awareness(kind)
        for layer, block in enumerate(blocks):
            for side, expected in by_hand(model, block.get_submodule(kind)).items():
                torch.testing.assert_close(actual[side][0, layer], expected, rtol=1e-5, atol=1e-12)


def test_the_difference_of_blocks_is_that_of_their_mean_outputs() -> None:
    model, blocks, downs = base("llama")
    meter, text = measure(model, blocks, downs, ["self_attn.q_proj"]), batch()
    states = model(
        input_ids=text.input_ids, attention_mask=text.attention_mask, output_hidden_states=True
    )
    first = states.hidden_states[1]
    outputs = []
    handle = blocks[1].register_forward_hook(
        lambda _, __, y: outputs.append(y if isinstance(y, Tensor) else y[0])
    )
    model(input_ids=text.input_ids, attention_mask=text.attention_mask)
    handle.remove()
    mask = text.attention_mask.bool()
    means = [
        torch.stack([y[row][mask[row]].mean() for row in range(len(y))]).mean()
        for y in (first, outputs[0])
    ]
    torch.testing.assert_close(meter.relevance("block")[0, 0], (means[0] - means[1]).abs())
