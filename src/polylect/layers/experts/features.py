"""Router features: what a mixture's router sees of a token beside its hidden state.

Mix-MoE (arXiv 2605.24681) gives its router Fourier features; which axis and which form it takes is
not known to us, so the forms that a causal model allows are options, and so are placebos of equal
size, without which nothing can be said about the Fourier transform.

| name             | feature of a token                                                            |
| ---------------- | ----------------------------------------------------------------------------- |
| `fft`            | magnitudes of the spectrum of its hidden state (the default)                  |
| `fft_prompt`     | mean of those magnitudes over the source prompt                               |
| `fft_short_time` | magnitudes of the 2-D spectrum of the last tokens' hidden states              |
| `dct`            | placebo: absolute values of a cosine transform in place of the Fourier's      |
| `random`         | placebo: absolute values of a random projection                               |
| `shuffled`       | placebo: `fft`, its bins in an order that changes from token to token         |
| `mlp`            | placebo: a learned layer with the parameters that the others' features take   |
| `none`           | nothing                                                                       |

All but the last two are LN(log1p(·)), LN without weights of its own, since the router's follow.
Real and imaginary parts are linear in the hidden state and would tell a linear router nothing new;
magnitudes do. No feature looks at a later token, at padding or at another row, so decoding with a
cache gives what one pass over the sentence gives. Features are computed in float32 or better.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from polylect.did_you_mean import did_you_mean
from polylect.layers.tokens import Tokens

MOST_BINS = 256


class _Magnitudes(torch.autograd.Function):
    """The lowest frequencies of |rfft(x)|, orthonormal; keeps the spectrum and its magnitudes.

    Squares and a root, as `abs` of complex numbers takes three times as long, and back through an
    inverse of half a spectrum, where autograd would take a complex transform of full length.
    Magnitudes above 1e19 would overflow in float32.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, size: int) -> Tensor:
        spectrum = torch.fft.rfft(x, norm="ortho")[..., :size]
        # A gradient at zero is zero, not zero over zero.
        squares = torch.addcmul(x.new_full((), 1e-37), spectrum.real, spectrum.real)
        magnitudes = squares.addcmul_(spectrum.imag, spectrum.imag).sqrt_()
        ctx.d = x.shape[-1]
        ctx.save_for_backward(spectrum, magnitudes)
        return magnitudes

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        spectrum, magnitudes = ctx.saved_tensors
        # The inverse counts each frequency twice but those that are their own mirror image.
        factor = torch.addcdiv(grad.new_zeros(()), grad, magnitudes, value=0.5)
        factor[..., 0] *= 2
        factor[..., ctx.d // 2 + ctx.d % 2 :] *= 2
        return torch.fft.irfft(spectrum * factor, n=ctx.d, norm="ortho"), None


class RouterFeatures(nn.Module, ABC):
    """Base of all options.

    Args:
        d: width of the hidden states.
        size: features per token.
        window: tokens that `fft_short_time` looks at, the present one included.
        seed: of random projections and orders.

    Attributes:
        learned: what `forward` returns still goes through a layer of the router's own; see `Head`.
    """

    learned = False

    def __init__(self, d: int, size: int, *, window: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.d, self.size, self.window, self.seed = d, size, window, seed

    def generator(self) -> torch.Generator:
        """Return a generator for fixed tensors: the same whatever else drew numbers before."""
        return torch.Generator().manual_seed(self.seed)

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "rows length d"], tokens: Tokens
    ) -> Float[Tensor, "rows length size"]:
        """Compute the features of each token from its own hidden state and earlier ones."""

    def spectrum(self, x: Float[Tensor, "rows length d"]) -> Float[Tensor, "rows length size"]:
        """Return the magnitudes of the lowest frequencies along the hidden axis."""
        return _Magnitudes.apply(x, self.size)


class Spectrum(RouterFeatures):
    """LN(log1p |rfft(x)|) over the hidden axis, lowest frequencies first."""

    def forward(
        self, x: Float[Tensor, "rows length d"], tokens: Tokens
    ) -> Float[Tensor, "rows length size"]:
        return _normal(self.spectrum(_at_least_float32(x)))


class PromptSpectrum(RouterFeatures):
    """The mean of |rfft(x)| over the source prompt, the same for all tokens of the translation.

    A token inside the prompt gets the mean over the prompt up to and including itself, since the
    rest comes later; a token without any prompt before it gets zeros. Kept: sum and count.
    """

    def forward(
        self, x: Float[Tensor, "rows length d"], tokens: Tokens
    ) -> Float[Tensor, "rows length size"]:
        inside = tokens.prompt[..., None]
        spectrum = self.spectrum(_at_least_float32(x).masked_fill(~inside, 0))
        # Sum and count side by side: one state, which beam search reorders as one.
        sums = torch.cat([spectrum, inside.to(spectrum)], dim=-1).cumsum(1)
        before = tokens.recall(self)
        if before is not None:
            sums = sums + before[:, None]
        tokens.keep(self, sums[:, -1])
        return _normal(sums[..., :-1] / sums[..., -1:].clamp(min=1))


class ShortTimeSpectrum(RouterFeatures):
    """Magnitudes of the two-dimensional spectrum of the last `window` tokens' hidden states.

    Over time alone, d units times window/2 + 1 frequencies would be more numbers than the experts
    have neurons. So the hidden axis is transformed as well, as FNet does (arXiv 2105.03824), and
    its ceil(size / window) lowest frequencies are followed over time. Before a sentence's first
    token stand zeros. Kept: these frequencies of the last window - 1 tokens.
    """

    def __init__(self, d: int, size: int, *, window: int = 32, seed: int = 0) -> None:
        super().__init__(d, size, window=window, seed=seed)
        self.frequencies = math.ceil(size / window)
        if window < 2 or self.frequencies > d // 2 + 1:
            raise ValueError(
                f"window {window}: fft_short_time needs at least 2 tokens and, for {size} features "
                f"of {d} units, at least {math.ceil(size / (d // 2 + 1))}"
            )

    def forward(
        self, x: Float[Tensor, "rows length d"], tokens: Tokens
    ) -> Float[Tensor, "rows length size"]:
        x = _at_least_float32(x).masked_fill(~tokens.real[..., None], 0)
        hidden = torch.fft.rfft(x, norm="ortho")[..., : self.frequencies]
        before = tokens.recall(self)
        if before is None:
            before = hidden.new_zeros(len(x), self.window - 1, self.frequencies)
        hidden = torch.cat([before, hidden], dim=1)
        tokens.keep(self, hidden[:, 1 - self.window :])
        windows = hidden.unfold(1, self.window, 1)
        spectrum = torch.fft.fft(windows, norm="ortho").flatten(-2)
        return _normal(spectrum[..., : self.size].abs())


class CosineTransform(RouterFeatures):
    """LN(log1p |DCT(x)|), the orthonormal DCT-II over the hidden axis, lowest frequencies first."""

    def __init__(self, d: int, size: int, *, window: int = 32, seed: int = 0) -> None:
        super().__init__(d, size, window=window, seed=seed)
        unit, frequency = torch.arange(d, dtype=torch.float64), torch.arange(size)
        basis = torch.cos(math.pi / d * (unit[:, None] + 0.5) * frequency) * math.sqrt(2 / d)
        basis[:, 0] /= math.sqrt(2)
        self.register_buffer("basis", basis.float(), persistent=False)

    def forward(
        self, x: Float[Tensor, "rows length d"], tokens: Tokens
    ) -> Float[Tensor, "rows length size"]:
        x = _at_least_float32(x)
        return _normal((x @ self.basis.to(x.dtype)).abs())


class RandomProjection(RouterFeatures):
    """LN(log1p |P x|) with a fixed P, entries normal with variance 1/d: lengths as an FFT's.

    P is stored in checkpoints: the trained router is of no use with another.
    """

    def __init__(self, d: int, size: int, *, window: int = 32, seed: int = 0) -> None:
        super().__init__(d, size, window=window, seed=seed)
        projection = torch.randn(d, size, generator=self.generator(), dtype=torch.float32)
        self.register_buffer("projection", projection / math.sqrt(d))

    def project(self, x: Float[Tensor, "rows length d"]) -> Float[Tensor, "rows length size"]:
        """Compute P x."""
        x = _at_least_float32(x)
        return x @ self.projection.to(x.dtype)

    def forward(
        self, x: Float[Tensor, "rows length d"], tokens: Tokens
    ) -> Float[Tensor, "rows length size"]:
        return _normal(self.project(x).abs())


class ShuffledSpectrum(Spectrum):
    """`Spectrum` with its bins in an order that the token's position decides.

    One order for all tokens would destroy nothing: the router's weights would be learned in that
    order. With 64 orders in turn each weight meets a different bin at every token, so that what a
    bin says is lost while the features' distribution is that of the spectrum. Features of another
    token, the usual shuffle, would be those of a later one, another row or a similar earlier one.
    """

    ORDERS = 64

    def __init__(self, d: int, size: int, *, window: int = 32, seed: int = 0) -> None:
        super().__init__(d, size, window=window, seed=seed)
        orders = torch.rand(self.ORDERS, size, generator=self.generator(), dtype=torch.float32)
        self.register_buffer("orders", orders.argsort(dim=1))

    def forward(
        self, x: Float[Tensor, "rows length d"], tokens: Tokens
    ) -> Float[Tensor, "rows length size"]:
        return super().forward(x, tokens).gather(-1, self.orders[tokens.positions % self.ORDERS])


class LearnedFeatures(RandomProjection):
    """P x, on which the router trains a small MLP: see `Head`."""

    learned = True

    def forward(
        self, x: Float[Tensor, "rows length d"], tokens: Tokens
    ) -> Float[Tensor, "rows length size"]:
        return self.project(x)


class NoFeatures(RouterFeatures):
    """Nothing: the router sees the hidden state alone."""

    def __init__(self, d: int, size: int, *, window: int = 32, seed: int = 0) -> None:
        super().__init__(d, 0, window=window, seed=seed)

    def forward(
        self, x: Float[Tensor, "rows length d"], tokens: Tokens
    ) -> Float[Tensor, "rows length size"]:
        return x.new_zeros(*x.shape[:2], 0)


FEATURES: dict[str, type[RouterFeatures]] = {
    "fft": Spectrum,
    "fft_prompt": PromptSpectrum,
    "fft_short_time": ShortTimeSpectrum,
    "dct": CosineTransform,
    "random": RandomProjection,
    "shuffled": ShuffledSpectrum,
    "mlp": LearnedFeatures,
    "none": NoFeatures,
}


def router_features(
    name: str, d: int, *, size: int | None = None, window: int = 32, seed: int = 0
) -> RouterFeatures:
    """Return the features of that name; see the module's table.

    Args:
        d: width of the hidden states.
        size: features per token, by default the smaller of 256 and d // 2 + 1 (all frequencies).
        window: of `fft_short_time`, in tokens.
        seed: of `random`, `shuffled` and `mlp`.

    Raises:
        ValueError: an unknown name, or a size or window that d does not allow.
    """
    if name not in FEATURES:
        raise ValueError(f"router features {name!r} do not exist: {did_you_mean(name, FEATURES)}")
    size = min(MOST_BINS, d // 2 + 1) if size is None else size
    if not 1 <= size <= d // 2 + 1:
        raise ValueError(
            f"{size} router features: a spectrum of {d} units has {d // 2 + 1} magnitudes, "
            f"take 1 to {d // 2 + 1}"
        )
    return FEATURES[name](d, size, window=window, seed=seed)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _normal(magnitudes: Float[Tensor, "rows length size"]) -> Float[Tensor, "rows length size"]:
    return F.layer_norm(torch.log1p(magnitudes), magnitudes.shape[-1:])
