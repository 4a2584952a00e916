"""Every family's paths, on a random model of two layers."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig

from polylect.models.backbone import tiny_backbone
from polylect.models.families import FAMILIES, family, family_of

names = pytest.mark.parametrize("name", FAMILIES)


def layers_of(model: nn.Module, name: str) -> nn.ModuleList:
    return model.get_submodule(FAMILIES[name].layers)


@names
def test_paths_lead_to_linear_layers_and_miss_none(name: str) -> None:
    model, _ = tiny_backbone(name, layers=3)
    layers = layers_of(model, name)
    assert len(layers) == 3
    for layer in layers:
        linears = {path for path, m in layer.named_modules() if isinstance(m, nn.Linear)}
        assert linears == set(FAMILIES[name].targets("all"))
        ffn = layer.get_submodule(FAMILIES[name].ffn)
        assert any(m is layer.get_submodule(FAMILIES[name].down) for m in ffn.modules())
        activation = layer.get_submodule(FAMILIES[name].activation)
        assert activation(torch.zeros(2)).tolist() == [0, 0]
        assert len(list(ffn.children())) == len(FAMILIES[name].projections) + 1


@names
def test_targets_are_endings_of_module_names(name: str) -> None:
    model, _ = tiny_backbone(name)
    linears = {path for path, m in model.named_modules() if isinstance(m, nn.Linear)}
    targets = {p for p in linears for t in FAMILIES[name].targets() if p.endswith("." + t)}
    head = {p for p in linears if model.get_submodule(p) is model.get_output_embeddings()}
    assert targets == linears - head
    assert len(targets) == 2 * len(FAMILIES[name].targets())


@names
def test_the_input_of_down_is_the_neuron_activation(name: str) -> None:
    """Silencing row j of what feeds a neuron silences column j of `down`'s input, and no other."""
    model, tokenizer = tiny_backbone(name)
    ids = torch.tensor([tokenizer("The small cat").input_ids])
    layer, paths = layers_of(model, name)[0], FAMILIES[name]
    seen: list[torch.Tensor] = []
    layer.get_submodule(paths.down).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    feeding = [layer.get_submodule(p) for p in paths.projections if p != paths.down]
    with torch.no_grad():
        model(ids)
        for linear in feeding:
            linear.weight[5] = 0
            if linear.bias is not None:
                linear.bias[5] = 0
        model(ids)
    before, after = seen
    others = [j for j in range(before.shape[-1]) if j != 5]
    assert before.shape[-1] == layer.get_submodule(paths.down).in_features
    assert before[..., 5].abs().min() > 0
    assert torch.equal(after[..., 5], torch.zeros_like(after[..., 5]))
    torch.testing.assert_close(after[..., others], before[..., others])


@names
def test_family_of_a_model_is_the_one_it_was_made_from(name: str) -> None:
    assert family_of(tiny_backbone(name)[0].config) is FAMILIES[name]


def test_unknown_model_type_lists_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"'opt' belongs to no known family .*llama, qwen2"
    ) as message:
        family_of(AutoConfig.for_model("opt"))
    assert "strategy.targets" in str(message.value)


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="'gema2' does not exist; did you mean gemma"):
        family("gema2")
    with pytest.raises(ValueError, match="'atention' do not exist; did you mean attention"):
        FAMILIES["llama"].targets("atention")
