"""Aligned adapters against the SVD of the dense update."""

import pytest
import torch
from peft.tuners.lora.arrow import ArrowLoraLinearLayer
from peft.tuners.lora.config import ArrowConfig
from torch.nn import functional

from polylect.layers.adapters import align
from polylect.layers.adapters.alignment import (
    singular_values,
    subspace_overlaps,
    update_cosines,
)

SHAPES = [(1, 5, 4), (3, 8, 6), (4, 4, 9), (4, 9, 4), (5, 3, 9), (5, 9, 3), (6, 2, 4), (7, 1, 1)]


def factors(rank, width, out, dtype=torch.float64):
    return torch.randn(rank, width, dtype=dtype), torch.randn(out, rank, dtype=dtype)


def assert_aligned(a_star, b_star, update, rank):
    """All that `align` promises, for whatever update of this rank."""
    expected = torch.zeros(len(a_star), dtype=torch.float64)
    expected[:rank] = 1
    torch.testing.assert_close(a_star @ a_star.T, expected.diag())
    torch.testing.assert_close(b_star @ a_star, update)
    values = singular_values(b_star)
    assert (values.diff() <= 1e-12 * values[0]).all()
    assert (values > 0).tolist() == expected.bool().tolist()
    assert not a_star[rank:].any() and not b_star[:, rank:].any()
    largest = a_star.gather(1, a_star.abs().argmax(1, keepdim=True))[:rank]
    assert (largest > 0).all()


@pytest.mark.parametrize(("rank", "width", "out"), SHAPES)
@pytest.mark.parametrize("scaling", [2, 0.25, -1.5, 0])
def test_agrees_with_the_dense_svd(rank, width, out, scaling):
    a, b = factors(rank, width, out)
    a_star, b_star = align(a, b, scaling)
    assert a_star.shape == a.shape and b_star.shape == b.shape
    dense = torch.linalg.svd(b @ a)
    least = min(rank, width, out) if scaling else 0
    assert_aligned(a_star, b_star, scaling * b @ a, least)
    torch.testing.assert_close(singular_values(b_star)[:least], abs(scaling) * dense.S[:least])
    cosines = (a_star[:least] * dense.Vh[:least]).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones_like(cosines))


BASIS = torch.eye(9, dtype=torch.float64)
SCALE = torch.tensor([3, 3, 1, 1], dtype=torch.float64)
OPEN = {
    "zero B, as before training": (lambda a, b: (a, 0 * b), 0),
    "zero A": (lambda a, b: (0 * a, b), 0),
    "both zero": (lambda a, b: (0 * a, 0 * b), 0),
    "repeated rows of A": (lambda a, b: (a[[0, 0, 1, 1]], b), 2),
    "repeated columns of B": (lambda a, b: (a, b[:, [0, 1, 0, 1]]), 2),
    "zero columns of B": (lambda a, b: (a, b * torch.tensor([1, 0, 1, 0])), 2),
    "equal singular values": (lambda a, b: (BASIS[:4], BASIS[:7, :4]), 4),
    "pairs of equal singular values": (lambda a, b: (BASIS[3:7], BASIS[:7, :4] * SCALE), 4),
    "rank above in": (lambda a, b: (a[:, :2], b), 2),
    "rank above in, zero B": (lambda a, b: (a[:, :2], 0 * b), 0),
}
"""Updates of a rank below that of their factors, or with more than one SVD; with their rank."""


@pytest.mark.parametrize(("make", "rank"), OPEN.values(), ids=OPEN)
def test_rows_beyond_the_rank_are_zero(make, rank):
    a, b = make(*factors(4, 9, 7))
    a_star, b_star = align(a, b, 2)
    assert_aligned(a_star, b_star, 2 * b @ a, rank)
    again = align(a.clone(), b.clone(), 2)
    assert torch.equal(a_star, again[0]) and torch.equal(b_star, again[1])


def test_aligning_twice_changes_nothing():
    once = align(*factors(4, 9, 7), 2)
    twice = align(*once, 1)
    torch.testing.assert_close(twice, once)


def test_the_factorisation_of_an_update_does_not_matter():
    a, b = factors(4, 9, 7)
    mix = torch.randn(4, 4, dtype=torch.float64)
    torch.testing.assert_close(align(mix @ a, b @ mix.inverse(), 1), align(a, b, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("exact", [True, False])
def test_what_rounding_adds_to_other_factors_is_no_direction(dtype, exact):
    """Rounded once, or in each product with the mix and in its inverse."""
    for _ in range(50):
        rank, own = int(torch.randint(2, 33, ())), int(torch.randint(1, 3, ()))
        width, out = torch.randint(rank, 200, (2,)).tolist()
        a, b = factors(rank, width, out, dtype)
        b[:, own:] = 0
        mix = torch.diag(10 ** (4 * torch.rand(rank) - 2)) @ torch.randn(rank, rank)
        mix, inverse = (m.double() if exact else m.to(dtype) for m in (mix, mix.inverse()))
        kind = mix.dtype
        stored = (mix @ a.to(kind)).to(dtype), (b.to(kind) @ inverse).to(dtype)
        assert (singular_values(align(*stored, 1)[1]) > 0).sum() <= own
        assert (singular_values(align(a, b, 1)[1]) > 0).sum() == own


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_weak_directions_that_are_stored_by_themselves_stay(dtype):
    basis = torch.linalg.qr(torch.randn(9, 9)).Q
    strengths = torch.logspace(0, -6, 4)
    a, b = basis[:4].to(dtype), (basis[:, 5:] * strengths).to(dtype)
    values = singular_values(align(a, b, 1)[1])
    torch.testing.assert_close(values, strengths.to(values), rtol=0.02, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_neither_the_size_of_a_factor_matters(scale):
    a, b = factors(3, 8, 6)
    a_star, b_star = align(a * scale, b, 1)
    expected = align(a, b, 1)
    torch.testing.assert_close((a_star, b_star / scale), expected)


@pytest.mark.parametrize(
    ("dtype", "result"),
    [(torch.float64,) * 2, (torch.float32,) * 2, (torch.bfloat16, torch.float32)],
)
def test_results_are_float32_at_least(dtype, result):
    a, b = factors(3, 8, 6, dtype)
    a_star, b_star = align(a, b, 2)
    assert a_star.dtype == b_star.dtype == result
    torch.testing.assert_close(b_star @ a_star, 2 * b.to(result) @ a.to(result))
    assert not a_star.requires_grad


def test_the_update_is_never_formed():
    width = 100_000  # squared, 80 GB
    a_star, b_star = align(*factors(2, width, width), 1)
    assert a_star.shape == (2, width) and b_star.shape == (width, 2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    a, b = factors(3, 8, 6)
    with pytest.raises(ValueError, match="the scaling of the adapter has NaN or infinite values"):
        align(a, b, bad)
    b[2, 1] = bad
    with pytest.raises(ValueError, match="B of the adapter has NaN or infinite values"):
        align(a, b, 1)


@pytest.mark.parametrize(
    ("dtype", "size", "scaling"),
    [(torch.float32, 1e15, 1), (torch.float32, 1, 1e30), (torch.float64, 1e160, 1)],
)
def test_updates_that_overflow_are_refused(dtype, size, scaling):
    a, b = (size * factor for factor in factors(3, 8, 6, dtype))
    with pytest.raises(ValueError, match=f"overflow {str(dtype)[6:]}: train or save"):
        align(a, b, scaling)


def test_arrows_are_pefts_where_the_spectrum_is_well_separated():
    config = ArrowConfig(top_k=1)
    config.task_adapter_names, config.gks_adapter_names = ["task_0"], []
    peft = ArrowLoraLinearLayer(24, config)
    for _ in range(10):
        a, b = factors(4, 24, 20, torch.float32)
        b *= torch.linalg.vector_norm(b, dim=0).reciprocal() * torch.tensor([8.0, 2, 1, 0.5])
        a = torch.linalg.qr(a.T).Q.T
        values = torch.linalg.svdvals(b @ a)
        assert values[1] < 0.7 * values[0]
        ours, theirs = align(a, b, 1)[0][0], peft.top_right_singular_vec_from_BA(a, b)
        assert (ours @ theirs).abs() == pytest.approx(1, abs=1e-4)


# reports


def library(count, ranks=(4, 2, 3), width=9, out=7):
    """Aligned adapters of different ranks, filled up with zeros."""
    of_rank = [ranks[i % len(ranks)] for i in range(count)]
    aligned = [align(*factors(rank, width, out), 2) for rank in of_rank]
    missing = [max(ranks) - rank for rank in of_rank]
    a = [functional.pad(a, (0, 0, 0, m)) for (a, _), m in zip(aligned, missing, strict=True)]
    b = [functional.pad(b, (0, m)) for (_, b), m in zip(aligned, missing, strict=True)]
    return torch.stack(a), torch.stack(b), of_rank


@pytest.mark.parametrize("count", [1, 5, 130])
def test_cosines_agree_with_the_dense_updates(count):
    a, b, _ = library(count)
    dense = functional.normalize((b @ a).flatten(1))
    torch.testing.assert_close(update_cosines(a, b), dense @ dense.T)


def test_cosines_of_equal_opposite_and_zero_updates():
    a, b = factors(3, 8, 6)
    mix = torch.randn(3, 3, dtype=torch.float64)
    same = torch.stack([a, mix @ a, a, a]), torch.stack([b, 5 * b @ mix.inverse(), -b, 0 * b])
    expected = torch.tensor([[1.0, 1, -1, 0], [1, 1, -1, 0], [-1, -1, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(update_cosines(*same), expected.double())


@pytest.mark.parametrize("count", [1, 5, 130])
def test_overlaps_agree_with_the_principal_angles(count):
    a, _, ranks = library(count)
    overlaps = subspace_overlaps(a)
    for i in range(min(count, 6)):
        for j in range(count):
            cosines = torch.linalg.svdvals(a[i, : ranks[i]] @ a[j, : ranks[j]].T)
            assert overlaps[i, j] == pytest.approx(cosines.square().mean().item())


def test_overlaps_of_contained_and_orthogonal_spaces():
    basis = torch.eye(6)
    spaces = torch.stack([basis[:3], basis[[1, 0, 0]], basis[3:]])
    spaces[1, 2] = 0  # of rank 2, within the first
    expected = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(subspace_overlaps(spaces), expected)
