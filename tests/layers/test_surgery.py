"""Modules found by name."""

import pytest
from torch import nn

from polylect.layers.surgery import find_linears, find_modules, freeze, matches


@pytest.fixture
def model():
    def block():
        return nn.ModuleDict(
            {"q_proj": nn.Linear(4, 4), "v_proj": nn.Linear(4, 2), "norm": nn.LayerNorm(4)}
        )

    return nn.ModuleDict({"layers": nn.ModuleList([block(), block()]), "head": nn.Linear(4, 8)})


def test_endings_match_whole_components(model):
    assert list(find_modules(model, ["q_proj", "layers.1.v_proj"])) == [
        "layers.0.q_proj",
        "layers.1.q_proj",
        "layers.1.v_proj",
    ]
    assert not matches("layers.0.xq_proj", ["q_proj"])


def test_a_regular_expression_matches_the_whole_path(model):
    assert list(find_modules(model, r"layers\.\d\.(q|v)_proj", nn.Linear)) == [
        "layers.0.q_proj",
        "layers.0.v_proj",
        "layers.1.q_proj",
        "layers.1.v_proj",
    ]
    assert not matches("layers.0.q_proj", "q_proj")


def test_a_pattern_without_a_module_names_the_nearest(model):
    with pytest.raises(ValueError, match=r"'q_porj' matches no Linear.*nearest names are q_proj"):
        find_linears(model, ["v_proj", "q_porj"])
    with pytest.raises(ValueError, match=r"'.*k_proj' matches no Linear.*q_proj"):
        find_linears(model, ".*k_proj")
    with pytest.raises(ValueError, match=r"'zzz' matches no Linear.*end in head, q_proj, v_proj"):
        find_linears(model, "zzz")


def test_a_module_of_another_kind_does_not_match(model):
    with pytest.raises(ValueError, match="'norm' matches no Linear"):
        find_linears(model, ["norm"])


def test_no_patterns_are_an_error(model):
    with pytest.raises(ValueError, match="no module patterns"):
        find_linears(model, [])


def test_all_linear_leaves_the_output_layer_out(model):
    assert "head" in find_linears(model, "all-linear")
    model.get_output_embeddings = lambda: model["head"]
    assert len(find_linears(model, "all-linear")) == 4
    with pytest.raises(ValueError, match="no linear layers"):
        find_linears(nn.LayerNorm(3), "all-linear")


def test_freeze(model):
    freeze(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())
