"""Sketches of gradients against the gradients themselves."""

import pytest
import torch
from torch import Tensor, nn

from polylect.run.interference.sketch import GradientSketch, layer_of, next_prime

SIZE = 101


def product(one: Tensor, other: Tensor, seed: int) -> float:
    """The inner product of the sketches of two gradients of one parameter."""
    sketch = GradientSketch({"layer.weight": nn.Parameter(torch.zeros_like(one))}, SIZE, seed)
    vectors = torch.zeros(2, sketch.length)
    for vector, gradient in zip(vectors, (one, other), strict=True):
        sketch.add(vector, {"layer.weight": gradient})
    return float(vectors[0] @ vectors[1])


def gradients(kind: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    one, noise = torch.randn(2, 48, 64, generator=generator)
    if kind == "one column":  # an outlier dimension of the input: nearly all lies there
        one, noise = one * 0.01, noise * 0.01
        one[:, 5], noise[:, 5] = 1.0, torch.randn(48, generator=generator)
    if kind == "rank one":
        one, noise = (torch.outer(m[:, 0], m[0]) for m in (one, noise))
    return one, 0.6 * one + noise


@pytest.mark.parametrize("kind", ["dense", "one column", "rank one"])
def test_inner_products_are_unbiased_and_as_precise_as_said(kind: str) -> None:
    one, other = gradients(kind)
    exact = float((one * other).sum())
    estimates = torch.tensor([product(one, other, seed) for seed in range(400)])
    error = float(estimates.std()) / len(estimates) ** 0.5
    assert float(estimates.mean()) == pytest.approx(exact, abs=4 * error)
    said = float(one.norm() * other.norm()) / SIZE**0.5
    assert float(estimates.std()) < 2 * said


def test_a_parameter_that_fits_is_kept_exactly() -> None:
    one, other = torch.randn(2, 10, 10)
    assert product(one, other, 0) == pytest.approx(float((one * other).sum()), rel=1e-5)


def test_gradients_of_different_parameters_do_not_meet() -> None:
    parameters = {f"layers.0.{name}": nn.Parameter(torch.zeros(50, 40)) for name in "ab"}
    sketch = GradientSketch(parameters, SIZE, 0)
    one, other = torch.zeros(2, sketch.length)
    sketch.add(one, {"layers.0.a": torch.randn(50, 40)})
    sketch.add(other, {"layers.0.b": torch.randn(50, 40)})
    assert one.norm() > 0
    assert other.norm() > 0
    assert float(one @ other) == 0


def test_the_signs_do_not_depend_on_other_parameters() -> None:
    weight = nn.Parameter(torch.zeros(50, 40))
    gradient, vectors = torch.randn(50, 40), []
    for parameters in (
        {"x.weight": weight},
        {"a.bias": nn.Parameter(torch.zeros(3)), "x.weight": weight},
    ):
        sketch = GradientSketch(parameters, SIZE, 7)
        vector = torch.zeros(sketch.length)
        sketch.add(vector, {"x.weight": gradient})
        vectors.append(vector[sketch.layers["x"]])
    assert torch.equal(*vectors)


def test_sums_of_gradients_have_sums_of_sketches() -> None:
    parameters = {"x.weight": nn.Parameter(torch.zeros(30, 40))}
    sketch = GradientSketch(parameters, SIZE, 0)
    one, other = torch.randn(2, 30, 40)
    parts, whole = torch.zeros(2, sketch.length)
    sketch.add(parts, {"x.weight": one}, 2.0)
    sketch.add(parts, {"x.weight": other})
    sketch.add(whole, {"x.weight": 2 * one + other})
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("parameter", "layer"),
    [
        ("backbone.model.layers.3.mlp.up_proj.weight", "model.layers.3"),
        ("backbone.model.layers.3.mlp.up_proj.lora_a.en-de", "model.layers.3"),
        ("backbone.model.embed_tokens.weight", "model.embed_tokens"),
        ("backbone.lm_head.lora_b.en-de", "lm_head"),
        ("backbone.model.norm.weight", "model.norm"),
    ],
)
def test_layers_are_blocks_or_modules(parameter: str, layer: str) -> None:
    assert layer_of(parameter) == layer


def test_sizes() -> None:
    assert [next_prime(n) for n in (2, 8, 1021, 1022)] == [2, 11, 1021, 1031]
    with pytest.raises(ValueError, match="at least 2, got 1"):
        GradientSketch({}, 1, 0)
