"""Which adapters of a library are nearest to a text that none of them has seen, and their mean."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from polylect.data.batch import TranslationBatch
from polylect.layers.adapters.alignment import align
from polylect.library import Adapter, AdapterLibrary
from polylect.library.adapter import LowRank
from polylect.library.aligned_library import AlignedLibrary
from polylect.strategies.loss import target_losses


def similarities(
    library: AdapterLibrary,
    names: Sequence[str],
    base: nn.Module,
    batches: Iterable[TranslationBatch],
) -> dict[str, float]:
    """Return how near each adapter is to a text: how much it goes the way that the text asks for.

    That is the cosine of the adapter's update B A, in its aligned form, and of the step that
    gradient descent on the whole weight would begin with; the mean over the layers that the adapter
    changes. An adapter of the text itself, trained for one step, would have the largest; one that
    learning has to undo is below zero. Which inputs an adapter is for, as routers read it off A,
    says little here: all adapters from one language see the same inputs.

    Args:
        library: the adapters.
        names: of those that are compared; they fit the base.
        base: the model alone. Its gradients need the memory of the weights that adapters change.
        batches: the text, as it would be learned.
    """
    aligned = AlignedLibrary(library, align)
    for name in names:
        aligned.prepare(name)
    changing = {path for name in names for path in aligned.paths(name)}
    steps = _first_steps(base, sorted(changing), batches)
    found = {}
    for name in names:
        cosines = [
            _cosine(steps[path], *(aligned.factor(name, path, f) for f in ("a_star", "b_star")))
            for path, strengths in aligned.strengths(name).items()
            if strengths[0] > 0
        ]
        found[name] = sum(cosines) / len(cosines) if cosines else 0.0
    return found


def _first_steps(
    base: nn.Module, paths: Sequence[str], batches: Iterable[TranslationBatch]
) -> dict[str, Float[Tensor, "out in"]]:
    """The negative gradients of the loss on some text, by layer; the base stays as it was."""
    weights = {path: base.get_submodule(path).weight for path in paths}
    kept = {name: p.requires_grad for name, p in base.named_parameters()}
    base.requires_grad_(False).eval()
    try:
        for weight in weights.values():
            weight.requires_grad_(True)
        device = next(base.parameters()).device
        for batch in batches:
            losses, _ = target_losses(base, batch.to(device))
            losses.sum().backward()
        return {path: -weight.grad.float().cpu() for path, weight in weights.items()}
    finally:
        for name, parameter in base.named_parameters():
            parameter.grad = None
            parameter.requires_grad_(kept[name])


def _cosine(
    step: Float[Tensor, "out in"], a: Float[Tensor, "rank in"], b: Float[Tensor, "out rank"]
) -> float:
    inner = (b.float().T @ step * a.float()).sum()  # <step, B A>
    lengths = step.norm() * b.float().norm()  # A* has orthonormal rows
    return float(inner / lengths) if lengths else 0.0


def mean_update(adapters: Sequence[Adapter], rank: int) -> tuple[dict[str, LowRank], float]:
    """Return the mean of the updates of some adapters at a rank, and the share of it that is kept.

    The mean is that of the products B A. (The mean of the As times that of the Bs would be another
    matrix, since the factors of each adapter are free up to an invertible one.) Its rank is up to
    the sum of theirs; what is kept are its `rank` strongest directions, the nearest there is, with
    the singular values shared by both factors in equal parts. A layer that an adapter leaves alone
    counts as zero.

    Returns:
        the updates by path, and of their squared singular values the share that is kept.
    """
    paths = {path for adapter in adapters for path in adapter.modules}
    updates, kept, whole = {}, 0.0, 0.0
    for path in sorted(paths):
        own = [adapter.modules[path] for adapter in adapters if path in adapter.modules]
        a = torch.cat([update.a.float() for update in own])
        b = torch.cat([update.b.float() * update.scaling for update in own], 1)
        a_star, b_star = align(a, b, 1 / len(adapters))
        strengths = torch.linalg.vector_norm(b_star, dim=0)
        kept += float(strengths[:rank].square().sum())
        whole += float(strengths.square().sum())
        root = strengths[:rank].sqrt()
        b_cut = b_star[:, :rank] / root.clamp_min(torch.finfo(root.dtype).tiny)
        updates[path] = LowRank(a_star[:rank] * root[:, None], b_cut, 1.0)
    return updates, kept / whole if whole else 1.0
