"""Merging as an export: a plain model, and what it costs."""

import pytest
import torch
from torch import nn

from polylect.layers.context import RoutingContext
from polylect.layers.lora.attach import attach_all, lora_layers
from polylect.layers.lora.merge import merged_copy

PROBE = torch.arange(3, 23).view(2, 10)


@pytest.fixture
def adapted(llama):
    layers = attach_all(llama, ["q_proj", "down_proj"], RoutingContext())
    for layer in layers.values():
        for adapter in ("de", "fr"):
            layer.add(adapter, 4, alpha=8)
            layer.lora_b[adapter].data.normal_(std=0.3)
    return llama


def test_the_copy_is_plain_and_says_the_same(adapted, tmp_path):
    merged, difference = merged_copy(adapted, "de", PROBE)
    assert not lora_layers(merged)
    assert type(merged.model.layers[0].self_attn.q_proj) is nn.Linear
    with next(iter(lora_layers(adapted).values())).context.route(["de", "de"]):
        expected = adapted(input_ids=PROBE).logits
    actual = merged(input_ids=PROBE).logits
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert difference == pytest.approx((actual - expected).abs().max().item(), abs=1e-7)
    merged.save_pretrained(tmp_path)
    again = type(merged).from_pretrained(tmp_path, dtype=torch.float32).eval()
    torch.testing.assert_close(again(input_ids=PROBE).logits, actual)


def test_the_original_is_left_alone(adapted):
    before = {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    merged_copy(adapted, "fr", PROBE)
    after = adapted.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert len(lora_layers(adapted)) == 4


def test_an_unknown_adapter_is_answered_with_the_nearest(adapted):
    with pytest.raises(ValueError, match="no adapter 'dee' to merge: did you mean de"):
        merged_copy(adapted, "dee", PROBE)


def test_a_shared_weight_is_refused(adapted):
    layer = adapted.model.layers[0].self_attn.q_proj
    adapted.model.layers[1].self_attn.o_proj.weight = layer.weight
    with pytest.raises(ValueError, match=r"layers.0.self_attn.q_proj shares its weight"):
        merged_copy(adapted, "de", PROBE)


def test_a_quantised_weight_is_refused(adapted):
    layer = adapted.model.layers[0].self_attn.q_proj
    layer.weight = nn.Parameter(torch.zeros(4, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(ValueError, match=r"q_proj is quantised to torch.uint8"):
        merged_copy(adapted, "de", PROBE)


def test_weights_that_would_overflow_are_refused(adapted):
    adapted.half()
    layer = adapted.model.layers[1].mlp.down_proj
    layer.lora_b["de"].data.fill_(60000)
    layer.scaling["de"] = 100.0
    with pytest.raises(ValueError, match=r"1.mlp.down_proj with adapter 'de' has NaN or infinite"):
        merged_copy(adapted, "de", PROBE)
