"""Scores and choices against loops over tokens and adapters."""

import itertools

import pytest
import torch
from helpers.lag import lag_project, lag_select
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from polylect.kernels.lag_select import sparse
from polylect.layers.adapters import align, arrow_scores, spectral_scores
from polylect.layers.adapters.alignment import singular_values
from polylect.layers.adapters.scores import FORMS, _first_of_ties, top_scored


def library(adapters, ranks=(3,), width=16, out=12, dtype=torch.float64):
    """A* and B* of adapters whose ranks take turns, filled up with zeros."""
    a_star, b_star = [], []
    for i in range(adapters):
        rank = ranks[i % len(ranks)]
        spectrum = torch.linspace(2, 1, rank, dtype=dtype) * (0.5 + torch.rand(1, dtype=dtype))
        a = torch.randn(rank, width, dtype=dtype)
        a, b = align(a, torch.randn(out, rank, dtype=dtype) * spectrum, 2)
        a_star.append(functional.pad(a, (0, 0, 0, max(ranks) - rank)))
        b_star.append(functional.pad(b, (0, max(ranks) - rank)))
    return torch.stack(a_star), torch.stack(b_star)


def by_loop(x, a_star, form, strengths=None, mean=None, std=None):
    """The definition of the spectral scores, one token and one adapter at a time."""
    rows = []
    for token in x:
        scores = []
        for i, a in enumerate(a_star):
            if form == "proj":
                scores.append((a @ token).norm())
                continue
            score = (torch.diag(strengths[i]) @ a @ token).norm()
            if form == "calibrated":
                centre = 0 if mean is None else mean[i]
                score = (score - centre) / (strengths[i].norm() if std is None else std[i])
            scores.append(score)
        rows.append(torch.stack(scores))
    return torch.stack(rows)


def lag_by_loop(x, arrows, a_star, k, form="proj", **statistics):
    """The definition of LAG; a token's best candidates come first, the lower index where equal."""
    chosen = []
    scores = by_loop(x, a_star, form, **statistics)
    for token, spectral_of in zip(x, scores.tolist(), strict=True):
        arrow_of = [(arrow @ token).abs().item() for arrow in arrows]
        candidates = sorted(range(len(arrows)), key=lambda i, entry=arrow_of: (-entry[i], i))[:k]
        chosen.append(min(candidates, key=lambda i, entry=spectral_of: (-entry[i], i)))
    return torch.tensor(chosen)


@pytest.fixture(params=["dense", "sparse"])
def product(request, monkeypatch):
    """Both ways to multiply tokens with their candidates, whatever the sizes."""
    cost = 10**18 if request.param == "dense" else -(10**18)
    monkeypatch.setattr(sparse, "_COST", cost)


# scores


def test_arrow_scores_are_the_definition():
    x, arrows = torch.randn(7, 16), torch.randn(5, 16)
    expected = torch.stack([torch.stack([(v @ token).abs() for v in arrows]) for token in x])
    torch.testing.assert_close(arrow_scores(x, arrows), expected)
    signs = torch.tensor([1.0, -1, -1, 1, -1])[:, None]
    assert torch.equal(arrow_scores(x, arrows * signs), arrow_scores(x, arrows))


@pytest.mark.parametrize("form", FORMS)
def test_spectral_scores_are_the_definition(form):
    a_star, b_star = library(5, ranks=(3, 1, 4))
    strengths = singular_values(b_star)
    x = torch.randn(6, 16, dtype=torch.float64)
    scores = spectral_scores(x, a_star, form, strengths=strengths)
    torch.testing.assert_close(scores, by_loop(x, a_star, form, strengths))
    if form == "calibrated":
        mean, std = torch.rand(2, 5, dtype=torch.float64) + 0.5
        scores = spectral_scores(x, a_star, form, strengths=strengths, mean=mean, std=std)
        torch.testing.assert_close(scores, by_loop(x, a_star, form, strengths, mean, std))


def test_the_energy_is_the_size_of_the_update_and_the_projection_is_not():
    a_star, b_star = library(5)
    x = torch.randn(200, 16, dtype=torch.float64)
    sizes = torch.einsum("nor,nrd,td->tno", b_star, a_star, x).norm(dim=2)
    energy = spectral_scores(x, a_star, "energy", strengths=singular_values(b_star))
    torch.testing.assert_close(energy, sizes)
    proj = spectral_scores(x, a_star, "proj")
    assert (proj.argmax(1) == sizes.argmax(1)).float().mean() < 0.9


def test_calibrated_scores_do_not_see_how_strong_an_adapter_is():
    a_star, b_star = library(4)
    x = torch.randn(6, 16, dtype=torch.float64)
    strengths = singular_values(b_star)
    louder = strengths * torch.tensor([1, 100, 1e-3, 1], dtype=torch.float64)[:, None]
    scores = spectral_scores(x, a_star, "calibrated", strengths=strengths)
    torch.testing.assert_close(spectral_scores(x, a_star, "calibrated", strengths=louder), scores)
    energy = spectral_scores(x, a_star, "energy", strengths=louder)
    mean, std = energy.mean(0), energy.std(0)
    scores = spectral_scores(x, a_star, "calibrated", strengths=louder, mean=mean, std=std)
    torch.testing.assert_close(scores.mean(0), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(scores.std(0), torch.ones(4, dtype=torch.float64))


# choices


@settings(max_examples=40)
@given(
    tokens=st.integers(1, 9),
    adapters=st.integers(1, 12),
    k=st.integers(1, 13),
    form=st.sampled_from(FORMS),
    statistics=st.booleans(),
    cost=st.sampled_from([10**18, -(10**18)]),
    seed=st.integers(0, 2**31),
)
def test_lag_is_the_definition(tokens, adapters, k, form, statistics, cost, seed):
    torch.manual_seed(seed)
    a_star, b_star = library(adapters, ranks=(3, 1, 2), width=8)
    x = torch.randn(tokens, 8, dtype=torch.float64)
    given_ = {"strengths": singular_values(b_star)}
    if statistics:
        given_ |= {"mean": torch.rand(adapters).double(), "std": torch.rand(adapters).double() + 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "_COST", cost)
        chosen, projected = lag_project(x, a_star[:, 0], a_star, k, form, **given_)
    assert torch.equal(chosen, lag_by_loop(x, a_star[:, 0], a_star, k, form, **given_))
    torch.testing.assert_close(projected, torch.einsum("trd,td->tr", a_star[chosen], x))


@pytest.mark.parametrize("form", FORMS)
def test_one_candidate_is_arrow_and_all_are_spectr(product, form):
    a_star, b_star = library(20)
    arrows, strengths = a_star[:, 0], singular_values(b_star)
    x = torch.randn(300, 16, dtype=torch.float64)
    arrow, spectr = (
        arrow_scores(x, arrows).argmax(1),
        spectral_scores(x, a_star, form, strengths=strengths).argmax(1),
    )
    assert (arrow != spectr).any()
    assert torch.equal(lag_select(x, arrows, a_star, 1, form, strengths=strengths), arrow)
    for k in (20, 21):
        assert torch.equal(lag_select(x, arrows, a_star, k, form, strengths=strengths), spectr)


def test_one_adapter_is_chosen_always():
    a_star, _ = library(1)
    chosen = lag_select(torch.randn(4, 16).double(), a_star[:, 0], a_star, 1)
    assert chosen.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_order_of_adapters_and_the_size_of_tokens_do_not_matter(product, k):
    a_star, _ = library(8)
    x = torch.randn(50, 16, dtype=torch.float64)
    chosen = lag_select(x, a_star[:, 0], a_star, k)
    order = torch.randperm(8)
    moved = a_star[order]
    assert torch.equal(order[lag_select(x, moved[:, 0], moved, k)], chosen)
    sizes = torch.logspace(-6, 6, 50, dtype=torch.float64)[:, None]
    assert torch.equal(lag_select(x * sizes, a_star[:, 0], a_star, k), chosen)
    signs = torch.randn(8, 3, 1, dtype=torch.float64).sign()
    flipped = a_star * signs
    assert torch.equal(lag_select(x, flipped[:, 0], flipped, k), chosen)


@pytest.mark.parametrize("k", [1, 2, 4, 7])
@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_the_first_of_equal_adapters_wins(product, k, tokens):
    """In float32 products of this width, equal columns come out up to 27 epsilon apart."""
    a_star, _ = library(3, width=4096, out=8, dtype=torch.float32)
    copies = a_star[[0, 1, 2, 0, 1, 2, 0, 1, 2]]
    x = torch.randn(tokens, 4096)
    chosen = lag_select(x, copies[:, 0], copies, k)
    assert (chosen < 3).all()
    if k == 1:
        assert torch.equal(chosen, lag_select(x, a_star[:, 0], a_star, 1))
    assert torch.equal(
        lag_select(x, copies[:, 0], copies, 9), lag_select(x, a_star[:, 0], a_star, 3)
    )


def test_ties_for_the_last_place_go_to_the_lowest_index():
    scores = torch.tensor(
        [
            [1.0, 1, 1, 1, 1],
            [0, 1, 5, 1, 1],
            [0, 1, 5, 1 + 1e-7, 1 - 1e-7],
            [9, 8, 7, 6, 5],
            [0, 0, 0, 0, 0],
            [-2, -1, -1, -3, -1],
            [1, 1, 0, 1, 5],
        ]
    )
    assert top_scored(scores, 1)[:, 0].tolist() == [0, 2, 2, 0, 0, 1, 4]
    expected = [[0, 1], [1, 2], [1, 2], [0, 1], [0, 1], [1, 2], [0, 4]]
    assert top_scored(scores, 2).sort().values.tolist() == expected
    on_gpu = _first_of_ties(scores, scores.topk(2).values[:, 1:], 2)
    assert on_gpu.sort().values.tolist() == expected
    assert top_scored(scores, 5).tolist() == [[0, 1, 2, 3, 4]] * 7


def test_a_token_of_zeros_takes_the_first():
    a_star, b_star = library(4)
    x = torch.zeros(2, 16, dtype=torch.float64)
    for form in FORMS:
        chosen = lag_select(x, a_star[:, 0], a_star, 2, form, strengths=singular_values(b_star))
        assert chosen.tolist() == [0, 0]


@pytest.mark.parametrize("form", FORMS)
def test_an_adapter_that_does_nothing_is_not_chosen(form):
    a_star, b_star = library(4)
    nothing, zero = align(torch.randn(3, 16).double(), torch.zeros(12, 3).double(), 2)
    with_it = torch.cat([nothing[None], a_star])
    strengths = singular_values(torch.cat([zero[None], b_star]))
    x = torch.randn(60, 16, dtype=torch.float64)
    chosen = lag_select(x, with_it[:, 0], with_it, 5, form, strengths=strengths)
    before = lag_select(x, a_star[:, 0], a_star, 4, form, strengths=strengths[1:])
    assert torch.equal(chosen, before + 1)


def mix(rank):
    return torch.randn(rank, rank, dtype=torch.float64) + torch.eye(rank, dtype=torch.float64)


def mixed(a, b, scaling):
    own = mix(len(a))
    return own @ a, b @ own.inverse(), scaling


def padded(a, b, scaling, rank=8):
    noise = torch.randn(rank - len(a), a.shape[1], dtype=a.dtype)
    return torch.cat([a, noise]), functional.pad(b, (0, rank - len(a))), scaling


def padded_in_b(a, b, scaling, rank=8):
    noise = torch.randn(b.shape[0], rank - len(a), dtype=b.dtype)
    return functional.pad(a, (0, 0, 0, rank - len(a))), torch.cat([b, noise], 1), scaling


STORED = {
    "with a higher rank": padded,
    "with a higher rank, in B": padded_in_b,
    "with a rank above in": lambda *update: padded(*update, rank=40),
    "in other factors": mixed,
    "in other factors of a higher rank": lambda *update: mixed(*padded(*update)),
    "with rows of unlike size": lambda a, b, s: (
        a * (sizes := torch.logspace(-8, 8, len(a), dtype=a.dtype))[:, None],
        b / sizes,
        s,
    ),
    "twice": lambda a, b, s: (torch.cat([a, a]), torch.cat([b, b], 1), s / 2),
    "with its size in A": lambda a, b, s: (a * 1e6, b * 1e-6, s),
    "with its size in alpha": lambda a, b, s: (a, b / 1e4, s * 1e4),
    "with its sign in alpha": lambda a, b, s: (a, -b, -s),
}
"""The same update stored otherwise."""


def updates(adapters, ranks=(3, 1, 2), width=16, out=12):
    """A, B and scaling of adapters, with singular values from 1 to 2."""
    results = []
    for i in range(adapters):
        rank = ranks[i % len(ranks)]
        a = torch.linalg.qr(torch.randn(width, rank, dtype=torch.float64)).Q.T
        b = torch.linalg.qr(torch.randn(out, rank, dtype=torch.float64)).Q
        results.append((a, b * torch.linspace(2, 1, rank, dtype=torch.float64), 0.5))
    return results


def aligned(adapters, dtype, rank=40):
    """What a bank holds of them: A* and strengths, filled up with zeros."""
    a_star, strengths = [], []
    for a, b, scaling in adapters:
        a, b = align(a.to(dtype), b.to(dtype), scaling)
        a_star.append(functional.pad(a, (0, 0, 0, rank - len(a))))
        strengths.append(functional.pad(singular_values(b), (0, rank - len(a))))
    return torch.stack(a_star), torch.stack(strengths)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", STORED.values(), ids=STORED)
def test_scores_and_choices_do_not_depend_on_how_an_update_is_stored(how, form):
    adapters = updates(7)
    other = [how(*update) if i in (0, 4, 5) else update for i, update in enumerate(adapters)]
    x = torch.randn(200, 16, dtype=torch.float64)
    (a_star, strengths), (stored, same) = (
        aligned(adapter_set, torch.float64) for adapter_set in (adapters, other)
    )
    close = {"atol": 1e-6, "rtol": 1e-6}  # sizes that are 16 digits apart cost some
    torch.testing.assert_close(arrow_scores(x, stored[:, 0]), arrow_scores(x, a_star[:, 0]))
    torch.testing.assert_close(
        spectral_scores(x, stored, form, strengths=same),
        spectral_scores(x, a_star, form, strengths=strengths),
        **close,
    )
    for k in (1, 3, 7):
        expected = lag_select(x, a_star[:, 0], a_star, k, form, strengths=strengths)
        assert torch.equal(lag_select(x, stored[:, 0], stored, k, form, strengths=same), expected)


@pytest.mark.parametrize("how", STORED.values(), ids=STORED)
def test_scores_do_not_depend_on_it_in_float32_either(how):
    adapters = updates(7)
    x = torch.randn(50, 16)
    a_star, stored = (
        aligned(adapter_set, torch.float32)[0]
        for adapter_set in (adapters, [how(*update) for update in adapters])
    )
    close = {"atol": 1e-3, "rtol": 1e-3}
    torch.testing.assert_close(spectral_scores(x, stored), spectral_scores(x, a_star), **close)


def test_a_higher_rank_wins_no_choices():
    adapters = updates(10, ranks=(3,))
    x = torch.randn(500, 16)
    a_star, _ = aligned(adapters, torch.float32)
    before = lag_select(x, a_star[:, 0], a_star, 10)
    assert (before == 0).float().mean() < 0.3
    a_star, _ = aligned([padded(*adapters[0]), *adapters[1:]], torch.float32)
    assert (lag_select(x, a_star[:, 0], a_star, 10) == before).float().mean() > 0.99


def test_neighbours_do_not_matter(product):
    a_star, _ = library(30, dtype=torch.float32)
    x = torch.randn(40, 16)
    chosen = lag_select(x, a_star[:, 0], a_star, 5)
    alone = [lag_select(token[None], a_star[:, 0], a_star, 5) for token in x]
    assert torch.equal(chosen, torch.cat(alone))
    some = torch.randperm(40)[:11]
    assert torch.equal(lag_select(x[some], a_star[:, 0], a_star, 5), chosen[some])


def test_scores_are_precise_whatever_the_input(product):
    a_star, _ = library(30, dtype=torch.float32)
    x = torch.randn(40, 16).bfloat16()
    expected = lag_select(x.float(), a_star[:, 0], a_star, 5)
    assert torch.equal(lag_select(x, a_star[:, 0], a_star, 5), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lag_select(x.float(), a_star[:, 0], a_star, 5), expected)
        assert arrow_scores(x, a_star[:, 0]).dtype == torch.float32
        assert spectral_scores(x, a_star, "proj").dtype == torch.float32
    rounded = a_star.bfloat16()
    expected = lag_select(x, rounded.float()[:, 0], rounded.float(), 5)
    assert torch.equal(lag_select(x, rounded[:, 0], rounded, 5), expected)


def test_no_tokens_no_choice(product):
    a_star, _ = library(4)
    for k in (1, 2, 4):
        chosen, projected = lag_project(torch.zeros(0, 16).double(), a_star[:, 0], a_star, k)
        assert chosen.shape == (0,) and projected.shape == (0, 3)


@pytest.mark.parametrize("tokens", [16, 1000])
@pytest.mark.parametrize("adapters", [100, 300])
def test_the_cost_grows_with_candidates_and_not_with_the_library(tokens, adapters):
    """Multiplications and additions: 2 (n d + k r d) per token, for n adapters."""
    rank, width, k = 4, 512, 5
    a_star = functional.normalize(torch.randn(adapters, rank, width), dim=2)

    def of_entries(wanted, x, *_, **__):
        return 2 * tokens * k * rank * x[1]

    sparse_product = {torch.ops.aten.sparse_sampled_addmm: of_entries}
    with FlopCounterMode(display=False, custom_mapping=sparse_product) as counter:
        lag_select(torch.randn(tokens, width), a_star[:, 0], a_star, k)
    assert counter.get_total_flops() == 2 * tokens * (adapters + k * rank) * width


def test_where_all_products_are_made_they_are_few():
    for tokens, adapters in itertools.product((1, 4, 32, 1000), (1, 10, 100, 1000)):
        candidates = torch.zeros(tokens, 5, dtype=torch.long)
        a_star = torch.empty(adapters, 8, 64)
        if not sparse.is_faster(torch.empty(tokens, 64), candidates, a_star):
            assert tokens * a_star.numel() <= 3 * tokens * 5 * 8 * 64 + sparse._COST


def test_what_cannot_be_scored_is_said():
    a_star, _ = library(3)
    x = torch.randn(2, 16).double()
    with pytest.raises(ValueError, match=r"k must be at least 1 .* got 0"):
        lag_select(x, a_star[:, 0], a_star, 0)
    for call in (spectral_scores, lambda *args: lag_select(x, a_star[:, 0], a_star, 1, args[2])):
        with pytest.raises(ValueError, match=r"unknown form 'engery' .* did you mean energy"):
            call(x, a_star, "engery")
        with pytest.raises(ValueError, match=r"'calibrated' need strengths.* singular_values"):
            call(x, a_star, "calibrated")
