"""What routers can read off an adapter depends on how it began: `init_scale`."""

import pytest
import torch
from torch import nn

from polylect.layers.adapters import align, spectral_scores
from polylect.layers.context import RoutingContext
from polylect.layers.lora.attach import attach_lora

WIDTH, ADAPTERS, RANK, STEPS = 48, 4, 4, 10


def kinds_of_input() -> list[torch.Tensor]:
    """Inputs of each adapter, from four directions of its own."""
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q.split(4)
    return [torch.randn(400, 4) @ own for own in basis[:ADAPTERS]]


def trained(scale: float, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, float]:
    """A* of adapters that learnt a little on inputs of their own; the share of error left."""
    context = RoutingContext()
    layer = attach_lora(nn.Linear(WIDTH, WIDTH).requires_grad_(False), context, "layer")
    actual, error = [], 0.0
    for i, x in enumerate(inputs):
        name = f"a{i}"
        layer.add(name, RANK, alpha=RANK, init_scale=scale)
        wanted = x @ torch.randn(WIDTH, WIDTH) / WIDTH**0.5
        factors = [layer.lora_a[name], layer.lora_b[name]]
        optimizer = torch.optim.Adam(factors, lr=5e-3)
        with torch.no_grad(), context.route([""]):
            target = layer(x[None]) + wanted
        for _ in range(STEPS):
            with context.route([name]):
                loss = (layer(x[None]) - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        error += loss.item() / wanted.square().mean().item() / len(inputs)
        actual.append(align(*(f.detach() for f in factors), layer.scaling[name])[0])
    return torch.stack(actual), error


def right(a_star: torch.Tensor, inputs: list[torch.Tensor]) -> float:
    """Share of inputs whose best adapter by SpectR is the one that learnt on them."""
    hits = [(spectral_scores(x, a_star).argmax(1) == i).float() for i, x in enumerate(inputs)]
    return torch.cat(hits).mean().item()


def test_adapters_that_begin_small_are_told_apart_sooner():
    torch.manual_seed(0)
    inputs = kinds_of_input()
    drawn, drawn_error = trained(1.0, inputs)  # as PEFT begins
    small, small_error = trained(0.01, inputs)
    assert right(small, inputs) > 0.98
    assert right(drawn, inputs) < right(small, inputs) - 0.05
    assert small_error < 1.15 * drawn_error


def test_the_scale_is_of_what_is_drawn():
    context = RoutingContext()
    layer = attach_lora(nn.Linear(6, 5), context, "layer")
    for name, scale in (("one", 1.0), ("tenth", 0.1)):
        layer.add(name, 2, alpha=2, init_scale=scale, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer.lora_a["one"] * 0.1, layer.lora_a["tenth"])
    with pytest.raises(ValueError, match="init_scale must be positive, got 0"):
        layer.add("none", 2, alpha=2, init_scale=0)
