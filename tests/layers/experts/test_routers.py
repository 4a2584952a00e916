"""Routers against their equation, expert by expert, and what training and stages rely on."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter

from polylect.layers.experts.features import FEATURES
from polylect.layers.experts.router_head import RouterHead
from polylect.layers.experts.routers import Router, Routing, make_router
from polylect.layers.tokens import Tokens

D = 40
LM, MT = 3, 2
TOKENS = Tokens.from_mask(torch.tensor([[1] * 7, [0] * 2 + [1] * 5]), torch.tensor([3, 2]))
X = torch.randn(2, 7, D, generator=torch.Generator().manual_seed(1))
every = pytest.mark.parametrize("features", [*FEATURES, "uniform"])


def trained(router: Router) -> Router:
    """With weights as after training: none is zero."""
    for parameter in router.parameters():
        nn.init.normal_(parameter, std=0.3)
    return router


def by_expert(routing: Routing) -> Tensor:
    """Weight of every expert, zero where it does not run."""
    tokens, experts = routing.logits.shape
    dense = torch.zeros(tokens, experts, dtype=routing.weights.dtype)
    return dense.scatter_add(1, routing.indices, routing.weights)


def logits(weights: RouterHead, x: Tensor, f: Tensor) -> Tensor:
    """The definition, W_s x + W_f f + c, for one token."""
    z = weights.semantic @ x
    if weights.hidden is not None:
        f = F.gelu(weights.hidden @ f[: weights.hidden.shape[1]])
    if weights.spectral is not None:
        z = z + weights.spectral @ f
    return z if weights.bias is None else z + weights.bias


def seen(router: Router) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Number, hidden state and features of some tokens."""
    f = router.features(X, TOKENS).flatten(0, 1)
    yield from ((token, X.flatten(0, 1)[token], f[token]) for token in range(0, 14, 3))


# The equations.


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("top", [None, 1, 2])
def test_each_group_has_its_softmax_and_the_gate_weighs_one(features: str, top: int | None):
    router = trained(make_router(D, LM, MT, features=features, top=top))
    routing = router(X, TOKENS)
    dense = by_expert(routing)
    for token, x, f in seen(router):
        a = logits(router.lm, x, f).softmax(0) * LM
        share = torch.sigmoid(logits(router.gate, x, f))
        b = logits(router.mt, x, f).softmax(0) * MT * share
        if top is not None:
            a[a.argsort()[:-top]], b[b.argsort()[:-top]] = 0, 0
        torch.testing.assert_close(dense[token], torch.cat([a, b]))
        torch.testing.assert_close(routing.gate[token].sigmoid(), share[0])
    assert routing.indices.shape == routing.weights.shape == (14, 5 if top is None else 2 * top)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("top", [None, 1, 3])
def test_jointly_all_experts_share_one_softmax(features: str, top: int | None):
    router = trained(make_router(D, LM, MT, gating="joint", features=features, top=top))
    routing = router(X, TOKENS)
    dense = by_expert(routing)
    for token, x, f in seen(router):
        p = torch.cat([logits(router.lm, x, f), logits(router.mt, x, f)]).softmax(0)
        torch.testing.assert_close(routing.gate[token].sigmoid(), p[LM:].sum())
        if top is not None:
            p[p.argsort()[:-top]] = 0
        p = p if top == 1 else p / p.sum()
        torch.testing.assert_close(dense[token], p * torch.tensor([LM] * LM + [MT] * MT))


def test_without_features_and_groups_it_is_mixtral():
    config = MixtralConfig(hidden_size=D, num_local_experts=6, num_experts_per_tok=2)
    peer = MixtralTopKRouter(config)
    nn.init.normal_(peer.weight)
    router = make_router(D, 6, gating="joint", features="none", top=2, lm_scale=1)
    router.load_state_dict({"lm.semantic": peer.weight.detach()})
    routing = router(X, TOKENS)
    expected_logits, weights, indices = peer(X)
    torch.testing.assert_close(routing.logits, expected_logits)
    torch.testing.assert_close(routing.weights, weights)
    assert torch.equal(routing.indices, indices)
    assert routing.gate is None


# The start, and the two stages.


def is_uniform(router: nn.Module) -> bool:
    """Whether all LM experts have the same weight for every token."""
    heads = (router.lm,) if router.gated else (router.lm, router.mt)
    return router.top is None and all(head is None or head.is_zero() for head in heads)


@every
@pytest.mark.parametrize("mt", [0, MT])
def test_at_the_start_slices_are_the_dense_network(features: str, mt: int):
    router = make_router(D, LM, mt, features=features)
    dense = by_expert(router(X, TOKENS))
    assert torch.allclose(dense[:, :LM], torch.ones(14, LM))
    assert torch.allclose(dense[:, LM:], torch.full((14, mt), 0.5))
    assert is_uniform(router)


def test_a_joint_softmax_is_uniform_only_if_both_groups_are():
    router = make_router(D, LM, MT, gating="joint")
    assert is_uniform(router)
    nn.init.normal_(router.mt.semantic)
    assert not is_uniform(router)


def test_copies_of_the_dense_network_are_not_multiplied():
    routing = make_router(D, LM, MT, lm_scale=1, mt_scale=1)(X, TOKENS)
    torch.testing.assert_close(by_expert(routing)[:, :LM].sum(1), torch.ones(14))


@pytest.mark.parametrize("gating", ["group", "joint"])
def test_where_few_experts_run_none_is_left_out_at_the_start(gating: str):
    router = make_router(D, 4, 4, gating=gating, top=1)
    used = router(
        torch.randn(1, 400, D), Tokens.from_mask(torch.ones(1, 400).long(), torch.ones(1).long())
    )
    assert used.indices.unique().tolist() == list(range(8))
    assert not is_uniform(router)


@pytest.mark.parametrize("features", FEATURES)
def test_the_second_stage_takes_the_first_ones_router(features: str):
    first = trained(make_router(D, LM, features=features))
    second = make_router(D, LM, MT, features=features)
    missing, unexpected = second.load_state_dict(first.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"mt", "gate"}
    torch.testing.assert_close(by_expert(first(X, TOKENS)), by_expert(second(X, TOKENS))[:, :LM])
    assert not is_uniform(second)


@pytest.mark.parametrize("features", FEATURES)
def test_groups_learn_apart(features: str):
    router = trained(make_router(D, LM, MT, features=features))
    router.lm.requires_grad_(False)
    routing = router(X, TOKENS)
    (routing.weights * torch.randn_like(routing.weights)).sum().backward()
    for name, parameter in router.named_parameters():
        if name.startswith("lm."):
            assert parameter.grad is None
        else:
            assert parameter.grad.isfinite().all()
            assert parameter.grad.any()


@every
def test_the_input_gets_a_finite_gradient_from_the_start(features: str):
    x = X.clone().requires_grad_()
    router = make_router(D, LM, MT, features=features)
    routing = router(x, TOKENS)
    if features == "uniform":
        assert not routing.weights.requires_grad
        return
    (routing.weights * torch.randn_like(routing.weights)).sum().backward()
    assert x.grad.isfinite().all()
    for head in (router.lm, router.mt, router.gate):
        assert head.semantic.grad.any()
        assert head.spectral is None or head.spectral.grad.any()


# The placebos.


def test_placebos_have_as_many_parameters_as_the_spectrum():
    def parameters(features: str) -> dict[str, int]:
        router = make_router(D, LM, MT, features=features)
        heads = {"lm": router.lm, "mt": router.mt, "gate": router.gate}
        return {name: sum(p.numel() for p in head.parameters()) for name, head in heads.items()}

    expected = {"lm": LM * (D + 21), "mt": MT * (D + 21), "gate": D + 21 + 1}
    assert {name: parameters(name) for name in FEATURES if name != "none"} == {
        name: expected for name in FEATURES if name != "none"
    }
    assert parameters("none") == {"lm": LM * D, "mt": MT * D, "gate": D + 1}
    assert not list(make_router(D, LM, MT, features="uniform").parameters())


def test_the_learned_placebo_is_no_linear_router():
    router = trained(make_router(D, LM, features="mlp"))
    twice = router(2 * X, TOKENS).logits
    assert not torch.allclose(twice, 2 * router(X, TOKENS).logits, rtol=0.01)


@pytest.mark.parametrize("gating", ["group", "joint"])
def test_uniform_experts_take_turns(gating: str):
    tokens = Tokens.from_mask(torch.ones(2, 12).long(), torch.tensor([3, 3]))
    routing = make_router(D, 4, 4, gating=gating, top=1, features="uniform")(
        torch.randn(2, 12, D), tokens
    )
    length = 4 if gating == "group" else 8
    in_a_round = routing.indices[:length, 0]
    assert sorted(in_a_round.tolist()) == list(range(length))
    assert torch.equal(routing.indices[:12], routing.indices[12:])
    assert len(routing.weights.unique()) == (2 if gating == "group" else 1)


# Numbers.


@pytest.mark.parametrize("features", FEATURES)
def test_it_is_exact_in_half_precision_and_under_autocast(features: str):
    router = trained(make_router(D, LM, MT, features=features))
    x = X.bfloat16()
    expected = router(x.float(), TOKENS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for routing in (router(x, TOKENS), router(x.float(), TOKENS)):
            assert torch.equal(routing.weights, expected.weights)
            assert routing.logits.dtype == torch.float32
    double = router(x.double(), TOKENS)
    assert double.weights.dtype == torch.float64
    torch.testing.assert_close(double.weights.float(), expected.weights, atol=1e-4, rtol=1e-4)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"gating=groups does not exist; did you mean group"):
        make_router(D, 2, gating="groups")
    with pytest.raises(ValueError, match=r"at least 1 LM expert"):
        make_router(D, 0)
    with pytest.raises(ValueError, match=r"top 3 of 3 LM and 2 MT experts: take 1 to 2"):
        make_router(D, 3, 2, top=3)
    with pytest.raises(ValueError, match=r"top 6 of 3 LM and 2 MT experts: take 1 to 5"):
        make_router(D, 3, 2, gating="joint", top=6)
    with pytest.raises(ValueError, match=r"2 router features for 3 logits"):
        make_router(D, 3, features="mlp", size=2)
