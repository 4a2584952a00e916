"""Router features against their definitions, and what none of them may look at."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from polylect.layers.experts.features import FEATURES, RouterFeatures, router_features
from polylect.layers.tokens import Tokens

D, SIZE, WINDOW = 22, 12, 5
MASK = torch.tensor([[1] * 9, [0] * 3 + [1] * 6, [1] * 5 + [0] * 4])
PROMPT = torch.tensor([4, 3, 5])
every = pytest.mark.parametrize("name", FEATURES)
all_but_none = pytest.mark.parametrize("name", [name for name in FEATURES if name != "none"])


def made(name: str) -> RouterFeatures:
    return router_features(name, D, window=WINDOW)


def given(mask: Tensor = MASK, prompt: Tensor = PROMPT) -> tuple[Tensor, Tokens]:
    return torch.randn(*mask.shape, D), Tokens.from_mask(mask, prompt)


def normal(magnitudes: np.ndarray) -> np.ndarray:
    logs = np.log1p(magnitudes)
    centred = logs - logs.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def same(actual: Tensor, expected: np.ndarray, **tolerance: float) -> None:
    np.testing.assert_allclose(actual.numpy(), expected, **{"atol": 1e-5, "rtol": 1e-4} | tolerance)


# Definitions.


@pytest.mark.parametrize("d", [22, 23, 700])
def test_the_spectrum_is_the_fourier_sum_over_the_hidden_axis(d: int):
    x = torch.randn(2, 3, d, dtype=torch.float64)
    size = min(256, d // 2 + 1)
    angles = np.outer(np.arange(d), np.arange(size)) * 2 * np.pi / d
    cosine, sine = x.numpy() @ np.cos(angles), x.numpy() @ np.sin(angles)
    actual = router_features("fft", d)(
        x, Tokens.from_mask(torch.ones(2, 3).long(), torch.ones(2).long())
    )
    same(actual, normal(np.sqrt((cosine**2 + sine**2) / d)), atol=1e-9)
    assert actual.shape == (2, 3, size)


def test_the_prompt_spectrum_is_a_mean_over_the_prompt_so_far():
    x, tokens = given()
    spectra = np.abs(np.fft.rfft(x.numpy(), norm="ortho"))
    actual = made("fft_prompt")(x, tokens)
    for row, first in enumerate([0, 3, 0]):
        for t in range(first, MASK.shape[1]):
            last = min(t, first + int(PROMPT[row]) - 1)
            same(actual[row, t], normal(spectra[row, first : last + 1].mean(0)))


def test_all_tokens_of_a_translation_have_the_same_prompt_spectrum():
    x, tokens = given()
    actual = made("fft_prompt")(x, tokens)
    assert torch.equal(actual[0, 3:], actual[0, 3].expand(6, -1))
    assert not torch.allclose(actual[0, 2], actual[0, 3])


def test_no_prompt_has_no_spectrum():
    x, tokens = given(prompt=torch.zeros(3, dtype=torch.long))
    assert not made("fft_prompt")(x, tokens).any()


def test_the_short_time_spectrum_is_that_of_the_last_tokens():
    x, tokens = given()
    actual = made("fft_short_time")(x, tokens)
    for row, first in enumerate([0, 3, 0]):
        for t in range(first, first + int(MASK[row].sum())):
            window = np.zeros((WINDOW, D))
            last = x[row, max(first, t - WINDOW + 1) : t + 1].numpy()
            window[WINDOW - len(last) :] = last
            spectrum = np.abs(np.fft.fft2(window, norm="ortho")).T.flatten()[:SIZE]
            same(actual[row, t], normal(spectrum))


def test_the_cosine_transform_is_its_sum():
    x, tokens = given()
    expected = np.zeros((*MASK.shape, SIZE))
    for k in range(SIZE):
        scale = np.sqrt((1 if k == 0 else 2) / D)
        for n in range(D):
            expected[..., k] += scale * np.cos(np.pi * (n + 0.5) * k / D) * x[..., n].numpy()
    same(made("dct")(x, tokens), normal(np.abs(expected)))


def test_the_random_projection_has_lengths_like_the_spectrum():
    x, tokens = (
        torch.randn(1, 50, 512),
        Tokens.from_mask(torch.ones(1, 50).long(), torch.ones(1).long()),
    )
    random = router_features("random", 512)
    assert 0.9 < random.project(x).square().mean() / x.square().mean() < 1.1
    same(random(x, tokens), normal(np.abs(random.project(x).numpy())))
    other = router_features("random", 512, seed=1)
    assert not torch.equal(random.projection, other.projection)


def test_shuffling_keeps_the_values_and_changes_their_order():
    x, tokens = given()
    x[:] = x[0, 0]
    plain, shuffled = made("fft")(x, tokens), made("shuffled")(x, tokens)
    assert torch.equal(plain.sort(-1).values, shuffled.sort(-1).values)
    assert not torch.equal(shuffled[0, 0], shuffled[0, 1])


def test_shuffling_destroys_what_a_spectrum_says():
    """Two kinds of tokens, smooth and rough ones, told apart by a linear readout."""
    rough = torch.arange(4000) % 7 % 2
    x = torch.randn(1, 4000, D)
    x[0, rough == 0] += x[0, rough == 0].roll(1, -1)
    x[0, rough == 1] -= x[0, rough == 1].roll(1, -1)
    tokens = Tokens.from_mask(torch.ones(1, 4000).long(), torch.ones(1).long())
    right = {}
    for name in ("fft", "shuffled"):
        f = made(name)(x, tokens)[0]
        learn, test = f[:2000], f[2000:]
        w = torch.linalg.lstsq(learn, 2.0 * rough[:2000, None] - 1).solution
        right[name] = ((test @ w)[:, 0] > 0).eq(rough[2000:] == 1).float().mean()
    assert right["fft"] > 0.95
    assert right["shuffled"] < 0.65


# What none may look at.


@every
def test_later_tokens_are_not_seen(name: str):
    features = made(name)
    x, tokens = given()
    before = features(x, tokens)
    for t in range(1, MASK.shape[1]):
        changed = x.clone()
        changed[:, t:] = torch.randn_like(changed[:, t:])
        after = features(changed, tokens)
        assert torch.equal(after[:, :t], before[:, :t])
        if features.size:
            assert torch.allclose(after[:, t], before[:, t]) == (name == "fft_prompt" and t >= 6)


@every
def test_padding_on_the_left_changes_nothing(name: str):
    features = made(name)
    x, tokens = given(torch.ones(2, 7).long(), torch.tensor([3, 4]))
    expected = features(x, tokens)
    for pads in (1, WINDOW, 3 * WINDOW):
        rubbish = torch.full((2, pads, D), 1e6)
        mask = F.pad(torch.ones(2, 7).long(), (pads, 0))
        actual = features(torch.cat([rubbish, x], 1), Tokens.from_mask(mask, torch.tensor([3, 4])))
        torch.testing.assert_close(actual[:, pads:], expected, atol=1e-6, rtol=1e-5)


@every
def test_rows_do_not_see_each_other(name: str):
    features = made(name)
    x, tokens = given()
    together = features(x, tokens)
    for row in range(3):
        alone = features(
            x[row : row + 1], Tokens.from_mask(MASK[row : row + 1], PROMPT[row : row + 1])
        )
        torch.testing.assert_close(alone[0], together[row], atol=1e-6, rtol=1e-5)


@every
def test_they_have_one_size(name: str):
    features = made(name)
    assert features(*given()).shape == (3, 9, 0 if name == "none" else SIZE)
    assert not list(features.parameters())


# Numbers.


@all_but_none
def test_gradients_are_those_of_finite_differences(name: str):
    features, (x, tokens) = made(name), given()
    x = x[:, :6].double().requires_grad_()
    tokens = Tokens.from_mask(MASK[:, :6], PROMPT)
    weights = torch.randn(3, 6, SIZE, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        return (features(x, tokens) * weights).sum()

    assert torch.autograd.gradcheck(loss, x, fast_mode=True)


@pytest.mark.parametrize("d", [7, 8])
@pytest.mark.parametrize("size", [1, 3, None])
def test_gradients_count_each_frequency_once(d: int, size: int | None):
    x = torch.randn(1, 2, d, dtype=torch.float64, requires_grad=True)
    tokens = Tokens.from_mask(torch.ones(1, 2).long(), torch.ones(1).long())
    features = router_features("fft", d, size=size)
    weights = torch.randn(features.size, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: features.spectrum(x) @ weights, x)
    assert features(x, tokens).shape[-1] == features.size


@all_but_none
def test_empty_and_huge_states_have_finite_gradients(name: str):
    features, (x, tokens) = made(name), given()
    x[0], x[1] = 0, x[1] * 1e15
    x.requires_grad_()
    (1e3 * features(x, tokens)).sum().backward()
    assert x.grad.isfinite().all()


@all_but_none
def test_half_precision_is_worked_on_in_single(name: str):
    features, (x, tokens) = made(name), given()
    x = x.bfloat16()
    actual = features(x, tokens)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, features(x.float(), tokens))


def test_random_parts_come_back_with_a_checkpoint():
    for name in ("random", "mlp", "shuffled"):
        saved = made(name)
        loaded = router_features(name, D, seed=5)
        x, tokens = given()
        assert not torch.equal(saved(x, tokens), loaded(x, tokens))
        loaded.load_state_dict(saved.state_dict())
        assert torch.equal(saved(x, tokens), loaded(x, tokens))


def test_unknown_names_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r"'ftf' do not exist: did you mean fft"):
        router_features("ftf", D)
    for size in (0, 13):
        with pytest.raises(ValueError, match=r"22 units has 12 magnitudes, take 1 to 12"):
            router_features("fft", D, size=size)
    with pytest.raises(ValueError, match=r"window 1: fft_short_time needs at least 2 tokens"):
        router_features("fft_short_time", D, window=1)
