"""Gather, score, select: of each token's candidate adapters the best one, and its product.

No tensor of (tokens, candidates, rank, d) is ever made. On a CUDA device one Triton kernel reads
the factors where they lie, everywhere else it is plain PyTorch.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polylect.kernels.lag_select import reference

__all__ = ["best_candidate"]


def best_candidate(
    x: Float[Tensor, "tokens d"],
    candidates: Int[Tensor, "tokens k"],
    a_star: Float[Tensor, "adapters rank d"],
    strengths: Float[Tensor, "adapters rank"] | None = None,
    mean: Float[Tensor, " adapters"] | None = None,
    std: Float[Tensor, " adapters"] | None = None,
) -> tuple[Int[Tensor, " tokens"], Float[Tensor, "tokens rank"]]:
    """Return the candidate with the highest (‖S A* x‖ - mean) / std, and its A* x.

    Scores that differ by no more than rounding are ties, which the lowest adapter wins. Sums are
    taken in float32, those of float64 in float64; so is the product. Where a gradient is wanted, of
    the product, plain PyTorch makes it.

    Args:
        x: the layer's input.
        candidates: distinct adapters of each token, at least one, in any order.
        a_star: A* of each adapter; lower ranks are filled up with zeros.
        strengths: the diagonal of S; without it S is the identity.
        mean: by default zero.
        std: positive; by default one.
    """
    needs_grad = torch.is_grad_enabled() and (x.requires_grad or a_star.requires_grad)
    on_cpu = type(x) is Tensor and x.is_cpu and not torch.compiler.is_compiling()
    step = reference.best_candidate if on_cpu or needs_grad else _operator  # 0.3 ms more a call
    return step(x, candidates, a_star, strengths, mean, std)


_operator = torch.library.custom_op(
    "polylect::lag_select", reference.best_candidate, mutates_args=()
)


@_operator.register_fake
def _empty(x, candidates, a_star, strengths, mean, std):
    projected = x.new_empty(
        x.shape[0], a_star.shape[1], dtype=reference.accumulation_dtype(x, a_star)
    )
    return candidates.new_empty(x.shape[0]), projected


@_operator.register_kernel("cuda")
def _on_cuda(x, candidates, a_star, strengths, mean, std):
    from polylect.kernels.lag_select import kernel  # Triton, where it is needed

    return kernel.best_candidate(x, candidates, a_star, strengths, mean, std)
