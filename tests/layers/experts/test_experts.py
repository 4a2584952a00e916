"""Mixtures of experts against a loop over tokens and experts, and what they may not disturb."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polylect.kernels.dispatch import Dispatch, dispatch
from polylect.layers.context import RoutingContext
from polylect.layers.experts.autograd import dense_experts_out, routed_experts_out
from polylect.layers.experts.ffn import ExpertFFN, attach_experts, expert_layers
from polylect.layers.experts.metrics import router_losses, routing_metrics
from polylect.layers.experts.routers import Routing, make_router
from polylect.layers.experts.slicing import SLICINGS, balanced_clusters, neuron_order
from polylect.layers.tokens import Tokens

D, NEURONS, LM = 6, 12, 3
PARTS = ("gates", "tokens", "offsets", "places")
KINDS = [(True, False), (False, True), (True, True)]
LINEAR = {"gate": "gate", "up": "up", "down": "down"}


class FFN(nn.Module):
    def __init__(self, gated: bool, bias: bool) -> None:
        super().__init__()
        options = {"bias": bias, "dtype": torch.float64}
        if gated:
            self.gate = nn.Linear(D, NEURONS, **options)
        self.up = nn.Linear(D, NEURONS, **options)
        self.down = nn.Linear(NEURONS, D, **options)
        self.act = nn.SiLU() if gated else nn.GELU()
        self.gated = gated

    def forward(self, x: Tensor) -> Tensor:
        return self.down(
            self.act(self.gate(x)) * self.up(x) if self.gated else self.act(self.up(x))
        )


def attached(
    ffn: nn.Module, mt: int = 2, slicing: str = "contiguous", gating: str = "group",
    top: int | None = None, features: str = "fft", **options: Any,
) -> ExpertFFN:  # fmt: skip
    """With experts and a router that are as after training."""
    router = make_router(D, LM, mt, gating=gating, top=top, features=features)
    order = None
    if slicing != "copies":
        points = torch.randn(NEURONS, 2, generator=torch.Generator().manual_seed(5))
        order = neuron_order(slicing, NEURONS, LM, activations=points)
    options |= {"copies": slicing == "copies", "order": order}
    linear = {name: path for name, path in LINEAR.items() if hasattr(ffn, path)}
    made = attach_experts(ffn, linear, "act", router, RoutingContext(), "layer_0", **options)
    for parameter in made.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made


def told(ffn: ExpertFFN, rows: int = 2, length: int = 5) -> ExpertFFN:
    mask = torch.ones(rows, length, dtype=torch.long)
    ffn.context.tokens = Tokens.from_mask(mask, torch.full((rows,), 2))
    return ffn


def by_hand(ffn: ExpertFFN, x: Tensor) -> Tensor:
    """Token by token, expert by expert."""
    routing = ffn.expert_router(x, ffn.context.tokens)
    rows = []
    for number, token in enumerate(x.flatten(0, 1)):
        y = torch.zeros(D, dtype=x.dtype)
        chosen = zip(routing.indices[number].tolist(), routing.weights[number], strict=True)
        for index, weight in chosen:
            y = y + weight * expert(ffn, index, token)
        rows.append(y)
    y = torch.stack(rows).view_as(x)
    return y if ffn.down.bias is None else y + ffn.down.bias


def expert(ffn: ExpertFFN, index: int, token: Tensor) -> Tensor:
    (group,) = [e for e in ffn.experts() if index in e.numbers]
    own = (group.owners() == index - group.numbers.start).nonzero()[:, 0]

    def rows(layer: nn.Linear) -> Tensor:
        return F.linear(token, layer.weight[own], None if layer.bias is None else layer.bias[own])

    up = rows(group.up)
    return group.down.weight[:, own] @ (
        ffn.act(rows(group.gate)) * up if ffn.gated else ffn.act(up)
    )


def gradients(y: Tensor, ffn: nn.Module, x: Tensor) -> list[Tensor | None]:
    toward = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return list(torch.autograd.grad(y, [x, *ffn.parameters()], toward, allow_unused=True))


def inputs(rows: int = 2, length: int = 5) -> Tensor:
    return torch.randn(rows, length, D, dtype=torch.float64, requires_grad=True)


# The equation.


@pytest.mark.parametrize(
    ("gated", "bias", "slicing"),
    [
        *((True, False, slicing) for slicing in (*SLICINGS, "copies")),
        *((False, True, slicing) for slicing in ("contiguous", "random", "copies")),
        (True, True, "copies"),
    ],
)
@pytest.mark.parametrize(("gating", "top"), [("group", None), ("group", 1), ("joint", 2)])
def test_it_is_the_sum_over_experts_and_so_are_its_gradients(
    gated: bool, bias: bool, slicing: str, gating: str, top: int | None
) -> None:
    ffn = told(attached(FFN(gated, bias), slicing=slicing, gating=gating, top=top))
    x = inputs()
    y, expected = ffn(x), by_hand(ffn, x)
    torch.testing.assert_close(y, expected)
    for actual, wanted in zip(gradients(y, ffn, x), gradients(expected, ffn, x), strict=True):
        torch.testing.assert_close(torch.zeros(1) if actual is None else actual,
                                   torch.zeros(1) if wanted is None else wanted,
                                   check_dtype=False)  # fmt: skip


@pytest.mark.parametrize(("gated", "bias"), KINDS)
@pytest.mark.parametrize("gating", ["group", "joint"])
def test_the_best_alone_is_all_with_the_weights_of_others_zero(
    gated: bool, bias: bool, gating: str
) -> None:
    ffn = told(attached(FFN(gated, bias), gating=gating, top=2))
    x = inputs()
    routing = ffn.expert_router(x, ffn.context.tokens)
    dense = torch.zeros_like(routing.logits).scatter(1, routing.indices, routing.weights)
    flat = x.flatten(0, 1)
    for experts in ffn.experts():
        best = experts.forward_topk(ffn.act, flat, routing.indices, routing.weights)
        torch.testing.assert_close(best, experts.forward_dense(ffn.act, flat, dense))


@pytest.mark.parametrize(("gated", "bias"), [(True, False), (False, True)])
@pytest.mark.parametrize("slicing", [*SLICINGS, "copies"])
def test_it_starts_as_the_dense_network(gated: bool, bias: bool, slicing: str) -> None:
    plain, ffn = FFN(gated, bias), FFN(gated, bias)
    ffn.load_state_dict(plain.state_dict())
    scale = 1 if slicing == "copies" else None
    router = make_router(D, LM, 2, lm_scale=scale)
    order = None if slicing == "copies" else neuron_order(
        slicing, NEURONS, LM, activations=torch.randn(NEURONS, 2)
    )  # fmt: skip
    linear = {name: path for name, path in LINEAR.items() if hasattr(ffn, path)}
    options = {"copies": slicing == "copies", "order": order}
    attach_experts(ffn, linear, "act", router, RoutingContext(), "layer_0", **options)
    x = inputs()
    torch.testing.assert_close(told(ffn)(x), plain(x), rtol=1e-6, atol=1e-7)
    kept = {n: t for n, t in ffn.state_dict().items() if not n.startswith("expert_")}
    assert kept.keys() == plain.state_dict().keys()
    assert all(torch.equal(t, plain.state_dict()[n]) for n, t in kept.items())


@pytest.mark.parametrize("start", ["zero", "random", "copies"])
def test_mt_experts_start_silent_or_not(start: str) -> None:
    ffn = FFN(True, True)
    router = make_router(D, LM, 4)
    attach_experts(ffn, LINEAR, "act", router, RoutingContext(), "layer_0", mt_start=start)
    lm, mt = ffn.experts()
    assert (mt.numbers, mt.up.out_features) == (range(3, 7), 4 * NEURONS // LM)
    assert bool(mt.down.weight.any()) == (start != "zero")
    assert mt.up.weight.std() > 0
    if start == "copies":  # the fourth is the first again
        again = torch.cat([lm.up.weight, lm.up.weight[: NEURONS // LM]])
        assert torch.equal(mt.up.weight, again)
        assert torch.equal(mt.down.weight[:, :NEURONS], lm.down.weight)
        assert torch.equal(mt.gate.bias[:NEURONS], lm.gate.bias)


def test_mt_experts_may_have_a_width_of_their_own() -> None:
    ffn = told(attached(FFN(True, False), mt_width=7, top=1))
    x = inputs()
    torch.testing.assert_close(ffn(x), by_hand(ffn, x))
    assert ffn.expert_mt.up.weight.shape == (14, D)


# What is frozen, what is empty, what is kept.


@pytest.mark.parametrize("top", [None, 1])
def test_frozen_experts_get_no_gradient_and_pass_one_on(top: int | None) -> None:
    ffn = told(attached(FFN(True, True), top=top)).requires_grad_(False)
    for name in ("mt_experts", "mt_router"):
        for parameter in ffn.parts()[name]:
            parameter.requires_grad_(True)
    x = inputs()
    ffn(x).square().sum().backward()
    parts = ffn.parts()
    assert all(p.grad is None for name in ("lm_experts", "lm_router") for p in parts[name])
    assert all(p.grad is not None for name in ("mt_experts", "mt_router") for p in parts[name])
    assert x.grad.any()
    assert sum(map(len, parts.values())) == len(list(ffn.parameters()))


@pytest.mark.parametrize("top", [None, 1])
def test_no_tokens_and_experts_without_tokens_are_fine(top: int | None) -> None:
    ffn = attached(FFN(False, True), top=top, features="none")
    assert told(ffn, 2, 0)(inputs(2, 0)).shape == (2, 0, D)
    one = told(ffn, 1, 1)(inputs(1, 1))
    one.sum().backward()
    assert all(p.grad.isfinite().all() for p in ffn.parameters())


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("activation", [F.silu, F.relu, nn.Identity()])
@pytest.mark.parametrize("kind", ["side by side", "mixed", "sorted", "evened"])
def test_the_way_out_keeps_what_it_is_given_and_nothing_else(
    gated: bool, activation: Callable[[Tensor], Tensor], kind: str
) -> None:
    indices = torch.tensor([[0, 2], [2, -1], [1, 2], [0, 1]])
    neurons, experts, by_row = 6, 3, kind in ("sorted", "evened")
    weights = torch.rand(4, 2 if by_row else experts, dtype=torch.float64, requires_grad=True)
    members = F.one_hot(torch.tensor([2, 0, 1, 1, 0, 2])).T.double() if kind == "mixed" else None

    def sort(weights: Tensor) -> Dispatch | None:
        spare = 9 if kind == "evened" else 0
        return dispatch(indices, weights, experts, spare=spare) if by_row else None

    routes = sort(weights)
    rows = 4 if routes is None else len(routes.tokens)
    assert rows == {"sorted": 7, "evened": 9}.get(kind, 4)
    inward = [torch.randn(rows, neurons, dtype=torch.float64) for _ in range(1 + gated)]
    down = torch.randn(*([experts] if by_row else []), neurons, 2, dtype=torch.float64)
    given = [tensor.requires_grad_() for tensor in (*inward, down)]

    def run(routes: Dispatch | None, weights: Tensor, *tensors: Tensor) -> Tensor:
        *inward, down = tensors
        if routes is None:
            return dense_experts_out(activation, inward, weights, down, members)
        return routed_experts_out(activation, inward, down, routes)

    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        run(routes, weights, *given)
    others = [weights] if routes is None else [getattr(routes, name) for name in PARTS]
    wanted = [t for t in (*given, *others, members) if t is not None]
    assert sorted(t.data_ptr() for t in kept) == sorted(t.data_ptr() for t in wanted)
    assert torch.autograd.gradcheck(lambda w, *ts: run(sort(w), w, *ts), (weights, *given))


@pytest.mark.parametrize("top", [None, 1])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_keeps_masters_in_float32(top: int | None, autocast: bool) -> None:
    dtype = torch.float32 if autocast else torch.bfloat16
    ffn = told(attached(FFN(True, True).to(dtype), top=top))
    x = inputs().detach().to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = ffn(x)
    y.float().square().sum().backward()
    assert y.dtype == torch.bfloat16
    assert ffn.expert_mt.up.weight.grad.dtype == torch.float32
    expected = by_hand(told(ffn.double()), x.double())
    torch.testing.assert_close(y.double(), expected, atol=0.1, rtol=0.1)


def test_outside_a_route_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"layer_0 .* call the backbone inside strategy.routing"):
        attached(FFN(True, False))(inputs())


def test_layers_that_are_no_linear_layers_and_uneven_slices_are_refused() -> None:
    ffn, context = FFN(True, False), RoutingContext()
    with pytest.raises(ValueError, match="layer_0: 5 experts cannot share 12 neurons evenly"):
        attach_experts(ffn, LINEAR, "act", make_router(D, 5), context, "layer_0")
    with pytest.raises(ValueError, match="copies of LM experts have 4 neurons, not 3"):
        options = {"mt_start": "copies", "mt_width": 3}
        attach_experts(ffn, LINEAR, "act", make_router(D, 3, 3), context, "layer_0", **options)
    ffn.up.weight = nn.Parameter(torch.zeros(NEURONS, D, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match=r"the up projection is a Linear in torch\.int8"):
        attach_experts(ffn, LINEAR, "act", make_router(D, 3), context, "layer_0")
    assert not expert_layers(ffn)


# Slices.


@pytest.mark.parametrize("slicing", SLICINGS)
def test_slices_share_the_neurons_out(slicing: str) -> None:
    options = {"activations": torch.randn(24, 3), "seed": 4}
    order = neuron_order(slicing, 24, 4, **options)
    again = neuron_order(slicing, 24, 4, **options)
    if slicing == "contiguous":
        assert order is None
        return
    assert torch.equal(order, again)
    assert sorted(order.tolist()) == list(range(24))
    if slicing == "interleaved":
        assert order[:6].tolist() == [0, 4, 8, 12, 16, 20]


def test_clusters_are_even_and_find_what_belongs_together() -> None:
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [5.0, 5.0]])
    truth = torch.arange(40).remainder(4)
    points = centres[truth] + 0.3 * torch.randn(40, 2)
    clusters = balanced_clusters(points, 4)
    assert all(len(clusters[truth == cluster].unique()) == 1 for cluster in range(4))
    lopsided = balanced_clusters(torch.cat([torch.randn(35, 2), 9 + torch.randn(5, 2)]), 4)
    assert lopsided.bincount().tolist() == [10] * 4
    assert len(lopsided[35:].unique()) == 1


def test_bad_slicings_are_refused() -> None:
    with pytest.raises(ValueError, match="slicing=randm does not exist; did you mean random"):
        neuron_order("randm", 12, 3)
    with pytest.raises(ValueError, match="needs activations of the 12 neurons"):
        neuron_order("clustered", 12, 3)


# Numbers.


def test_numbers_and_losses_of_a_routing_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 0.0], [3.0, 0.0, 0.0, 0.0], [9.0, 9.0, -9.0, 9.0]])
    indices, gate = torch.tensor([[1, 2], [0, 3], [0, 3]]), torch.tensor([0.0, -1.0, 9.0])
    routing = Routing(indices, torch.tensor([[2.0, 0.1]] * 3), logits, gate)
    groups = {"lm": range(2), "mt": range(2, 4)}
    real = torch.tensor([[True, True, False]])
    numbers = routing_metrics(routing, groups, real, ["en-de"])
    sigmoid = torch.tensor([0.0, -1.0]).sigmoid().mean()
    assert numbers["gate/en-de"] == pytest.approx(sigmoid.item())
    assert [numbers[f"lm/{e}"] for e in (0, 1)] == [0.5, 0.5]
    assert [numbers[f"mt/{e}"] for e in (0, 1)] == [0.5, 0.5]
    lm = logits[:2, :2].softmax(1)
    assert numbers["entropy/lm"] == pytest.approx(-(lm * lm.log()).sum(1).mean().item())
    flat = real.flatten()
    losses = router_losses(routing, groups, flat, torch.tensor([False, True, True]))
    probabilities = [lm.mean(0), logits[:2, 2:].softmax(1).mean(0)]
    balance = sum(2 * (0.5 * p).sum() for p in probabilities)
    z = sum(logits[:2, g.start : g.stop].logsumexp(1).square().mean() for g in groups.values())
    torch.testing.assert_close(losses["balance"], balance)
    torch.testing.assert_close(losses["z"], z)
    torch.testing.assert_close(losses["lm_prior"], -torch.log(1 - torch.tensor(-1.0).sigmoid()))
    assert router_losses(routing, {}, flat, flat)["balance"] == 0
