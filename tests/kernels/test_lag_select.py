"""The gather-score-select step against a loop over tokens and candidates, and its kernel."""

import pytest
import torch
from helpers.lag import lag_project
from helpers.targets import SHARED_MEMORY, compile_all
from torch import Tensor
from torch.library import opcheck

from polylect.kernels.lag_select import best_candidate, reference, sparse
from polylect.layers.adapters.scores import FORMS

SHAPES = {  # tokens, k, adapters, rank, d
    "odd": (5, 3, 7, 3, 21),
    "one of one": (3, 1, 1, 1, 5),
    "all of them": (4, 6, 6, 4, 64),
    "wide": (2, 2, 5, 2, 1500),
    "no tokens": (0, 2, 3, 2, 7),
}
shapes = pytest.mark.parametrize("name", SHAPES)
forms = pytest.mark.parametrize("form", FORMS)
cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel runs on the GPU")


def made(
    name: str, form: str, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> tuple[Tensor | None, ...]:
    """Arguments of the step; no tensor of them is contiguous, and candidates are in no order."""
    tokens, k, adapters, rank, d = SHAPES[name]
    x = torch.randn(d, tokens, device=device).to(dtype).t()
    a_star = torch.randn(adapters, d, 2 * rank, device=device).to(dtype)[..., ::2].mT / d**0.5
    candidates = torch.rand(tokens, adapters).argsort(1)[:, :k]
    strengths, mean, std = (
        torch.rand(size, device=device) + 0.5
        for size in ((rank, adapters), (adapters,), (adapters,))
    )
    strengths = None if form == "proj" else strengths.t()
    calibrated = (mean, std) if form == "calibrated" else (None, None)
    return (x, candidates.to(device), a_star, strengths, *calibrated)


def by_loop(
    x: Tensor,
    candidates: Tensor,
    a_star: Tensor,
    strengths: Tensor | None,
    mean: Tensor | None,
    std: Tensor | None,
) -> tuple[list[int], list[Tensor]]:
    """The definition, in double precision."""
    chosen, products = [], []
    for token, mine in zip(x.double(), candidates.tolist(), strict=True):
        scores = {}
        for i in sorted(mine):
            product = a_star[i].double() @ token
            score = (product if strengths is None else strengths[i].double() * product).norm()
            score = score if mean is None else score - mean[i]
            scores[i] = float(score if std is None else score / std[i])
        chosen.append(max(scores, key=scores.__getitem__))
        products.append(a_star[chosen[-1]].double() @ token)
    return chosen, products


def agrees(actual: tuple[Tensor, Tensor], arguments: tuple, near: float = 1e-5) -> None:
    chosen, projected = actual
    expected, products = by_loop(*(a if a is None else a.cpu() for a in arguments))
    assert chosen.tolist() == expected
    for one, product in zip(projected.cpu(), products, strict=True):
        torch.testing.assert_close(one.double(), product, rtol=near, atol=near)


@pytest.fixture(params=["dense", "sparse"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of the reference to multiply, whatever the sizes."""
    cost = 10**18 if request.param == "dense" else -(10**18)
    monkeypatch.setattr(sparse, "_COST", cost)


@pytest.mark.usefixtures("way")
@shapes
@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_step_is_the_loop(name: str, form: str, dtype: torch.dtype) -> None:
    arguments = made(name, form, dtype)
    chosen, projected = best_candidate(*arguments)
    agrees((chosen, projected), arguments)
    assert projected.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.usefixtures("way")
def test_products_of_the_chosen_and_their_sums_are_those_of_loops() -> None:
    x, a, b = torch.randn(6, 9), torch.randn(5, 3, 9), torch.randn(5, 3, 4)
    indices = torch.rand(6, 5).argsort(1)[:, :2]
    h = sparse.chosen_products(x, a, indices)
    expected = torch.stack(
        [a[selected] @ token for selected, token in zip(indices, x, strict=True)]
    )
    torch.testing.assert_close(h, expected)
    expected = torch.einsum("tkro,tkr->to", b[indices], h)
    torch.testing.assert_close(sparse.chosen_sum(h, b, indices), expected)


def test_what_is_learned_is_multiplied_where_it_has_a_gradient() -> None:
    """The sparse product has none, so that shapes alone do not decide."""
    x, candidates, a_star, *_ = made("odd", "proj")
    many = torch.randn(4000, 3, 21)
    assert sparse.is_faster(x.repeat(9, 1), candidates.repeat(9, 1), many)
    assert not sparse.is_faster(x.repeat(9, 1).requires_grad_(), candidates.repeat(9, 1), many)
    assert not sparse.is_faster(x, candidates, a_star)
    x = x.contiguous().requires_grad_()
    chosen, projected = best_candidate(x, candidates, a_star)
    (grad,) = torch.autograd.grad(projected.sum(), x)
    torch.testing.assert_close(grad, a_star[chosen].sum(1))


def tied(device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Every adapter twice, candidates in falling order."""
    x, _, a_star, *_ = made("odd", "proj", device=device)
    candidates = torch.arange(13, -1, -1, device=device).expand(len(x), -1)
    return x, candidates, a_star.repeat(2, 1, 1)


@pytest.mark.usefixtures("way")
def test_the_lowest_of_equal_candidates_wins_in_any_order() -> None:
    x, candidates, twice = tied()
    chosen, projected = best_candidate(x, candidates, twice)
    once = best_candidate(x, candidates[:, 7:], twice[:7])
    assert torch.equal(chosen, once[0])
    torch.testing.assert_close(projected, once[1])
    assert best_candidate(torch.zeros_like(x), candidates, twice)[0].tolist() == [0] * len(x)


@pytest.mark.usefixtures("way")
def test_a_token_that_is_no_number_gets_a_candidate() -> None:
    x, candidates, a_star, *_ = made("odd", "proj")
    for value in (float("nan"), float("inf")):
        x = x.clone()
        x[1] = value
        chosen, _ = best_candidate(x, candidates, a_star)
        assert chosen[1] in candidates[1]
        agrees(
            best_candidate(x[2:], candidates[2:], a_star),
            (x[2:], candidates[2:], a_star, None, None, None),
        )


def test_the_operator_is_sound() -> None:
    opcheck(torch.ops.polylect.lag_select.default, made("odd", "calibrated"))


# the kernel


def kernel_agrees(name: str, form: str, dtype: torch.dtype, device: str) -> None:
    from polylect.kernels.lag_select import kernel

    arguments = made(name, form, dtype, device)
    actual, exact = (
        implementation.best_candidate(*arguments) for implementation in (kernel, reference)
    )
    agrees(actual, arguments, 1e-5 if name != "wide" else 1e-4)
    assert [t.dtype for t in actual] == [t.dtype for t in exact]
    assert [t.shape for t in actual] == [t.shape for t in exact]


@cpu
@pytest.mark.usefixtures("poisoned")
@shapes
@forms
def test_the_interpreted_kernel_agrees(name: str, form: str) -> None:
    kernel_agrees(name, form, torch.float32, "cpu")


@cpu
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_interpreted_kernel_agrees_in_other_precisions(dtype: torch.dtype) -> None:
    kernel_agrees("odd", "calibrated", dtype, "cpu")


def ties_agree(device: str) -> None:
    from polylect.kernels.lag_select import kernel

    x, candidates, twice = tied(device)
    x, candidates = x[:2], candidates[:2]
    nothing = (None, None, None)
    for of_x in (x, torch.zeros_like(x), torch.full_like(x, float("nan"))):
        actual, exact = (
            implementation.best_candidate(of_x, candidates, twice, *nothing)
            for implementation in (kernel, reference)
        )
        assert torch.equal(actual[0], exact[0])


@cpu
@pytest.mark.usefixtures("poisoned")
def test_the_interpreted_kernel_takes_the_lowest_of_equals() -> None:
    ties_agree("cpu")


@cpu
def test_too_many_candidates_for_a_program_are_left_to_the_reference(monkeypatch) -> None:
    from polylect.kernels.lag_select import kernel

    monkeypatch.setattr(kernel, "MOST", 4)
    monkeypatch.setattr(kernel, "best_candidate_kernel", None)
    arguments = made("odd", "calibrated")
    agrees(kernel.best_candidate(*arguments), arguments)


@pytest.mark.gpu
@shapes
@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_kernel_agrees(name: str, form: str, dtype: torch.dtype) -> None:
    kernel_agrees(name, form, dtype, "cuda")


@pytest.mark.gpu
def test_the_kernel_takes_the_lowest_of_equals() -> None:
    ties_agree("cuda")


@pytest.mark.gpu
def test_lag_waits_for_no_gpu() -> None:
    x, a_star = torch.randn(200, 256), torch.randn(64, 8, 256) / 16
    expected = lag_project(x, a_star[:, 0], a_star, 5)
    x, a_star = x.cuda(), a_star.cuda()
    lag_project(x, a_star[:, 0], a_star, 5)  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        chosen, projected = lag_project(x, a_star[:, 0], a_star, 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(chosen.cpu(), expected[0])
    torch.testing.assert_close(projected.cpu(), expected[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("element", "k", "rank"),
    [("bf16", 20, 8), pytest.param("fp32", 20, 64, marks=pytest.mark.slow)],
)
def test_the_kernel_compiles_for_gpus(element: str, k: int, rank: int) -> None:
    from polylect.kernels.lag_select import kernel

    types = dict.fromkeys(("x", "a_star"), f"*{element}") | {"candidates": "*i64"}
    types |= {"best_out": "*i64", "tie": "fp32"}
    types |= dict.fromkeys(("strengths", "mean", "std", "projected"), "*fp32")
    constants = {"x_column": 1, "a_column": 1, "PRECISE": "tl.float32"}
    constants |= dict.fromkeys(("SCALED", "CENTRED", "DIVIDED"), True)
    constants |= kernel.blocks(k, rank, 4096)
    case = {
        "kernel": "best_candidate_kernel",
        "types": types,
        "constants": constants,
        "options": kernel.LAUNCH,
    }
    for made in compile_all(kernel.__name__, [case]):
        assert made["shared"] <= SHARED_MEMORY[made["target"]]
        assert not made["narrow"]  # eight entries of A* at a time
