"""`model.gradient_checkpointing`: the same gradients, from less memory, for what is trained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.neurons import write_neurons
from helpers.small import DIRECTIONS, ROWS, base, batch_of, train_a_little
from helpers.tiny import MODEL, config

from polylect.layers.neurons.ffn import neuron_banks
from polylect.models.backbone import tiny_backbone
from polylect.models.gradient_checkpointing import checkpoint_layers, is_checkpointed
from polylect.run.build import build_strategy, load_backbone_into
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import target_losses

STRATEGIES = {
    "full": [],
    "lora": ["strategy.dropout=0.5"],
    "lora_switch": ["strategy.dropout=0.5"],
    "landermt": ["strategy.soft=true", "strategy.budget=1"],
    "mix_moe": ["strategy.balance=1", "strategy.top=1", "strategy.features=fft_prompt"],
}


@pytest.fixture(params=STRATEGIES)
def modules(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[TranslationModule, TranslationModule]]:
    """A strategy made by the configuration, without checkpointing and with it."""
    settings = [f"strategy={request.param}", *STRATEGIES[request.param]]
    if request.param == "landermt":
        settings.append(f"strategy.neurons={write_neurons(tmp_path, base()[0], DIRECTIONS)}")
    yield tuple(made(f"model.gradient_checkpointing={on}", *settings) for on in ("false", "true"))


def made(*overrides: str) -> TranslationModule:
    torch.manual_seed(0)
    cfg = config("train", *MODEL, f"data.directions=[{','.join(DIRECTIONS)}]", *overrides)
    module = build_strategy(cfg)
    load_backbone_into(module, None, cfg)
    for bank in neuron_banks(module.backbone).values():
        for gate in bank.gates.values():
            gate.noise = 1.0
    return train_a_little(module).train()


def gradients(module: TranslationModule) -> tuple[dict[str, torch.Tensor], int, int]:
    """Of one batch; how many bytes were kept for them, and how often the first layer ran."""
    runs, kept = [], {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    first = module.backbone.model.layers[0].self_attn
    handle = first.register_forward_hook(lambda *_: runs.append(1))
    batch = batch_of(module, ROWS * 8)
    torch.manual_seed(1)  # of dropout and noise
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with module.routing(batch):
            losses, _ = target_losses(module.backbone, batch)
            loss = losses.mean() + module.auxiliary_loss().sum()
        nbytes = sum(kept.values())
        loss.backward()
    handle.remove()
    named = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return named, nbytes, len(runs)


def test_the_gradients_are_the_same_and_less_is_remembered(
    modules: tuple[TranslationModule, TranslationModule],
) -> None:
    plain, checkpointed = modules
    assert not is_checkpointed(plain.backbone)
    assert is_checkpointed(checkpointed.backbone)
    expected, all_bytes, once = gradients(plain)
    grads, fewer_bytes, twice = gradients(checkpointed)
    assert (once, twice) == (1, 2)
    assert fewer_bytes < 0.7 * all_bytes
    assert grads.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(grads[name], gradient, msg=name)


def test_a_model_that_cannot_is_refused() -> None:
    model: Any = tiny_backbone()[0]
    model.supports_gradient_checkpointing = False
    with pytest.raises(ValueError, match="does not work for LlamaForCausalLM: leave it false"):
        checkpoint_layers(model)
